"""One group: runs that train together now, as lanes, and what becomes of each after every epoch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import nn

from hpsearch.errors import ObjectiveError, Stopped
from hpsearch.executor import Assignment
from hpsearch.objective import TrainingTask, Workload
from hpsearch.training import worker
from hpsearch.training.active import LiveRun
from hpsearch.training.build import build
from hpsearch.training.course import Course, Outcome
from hpsearch.training.data import Parts, prepare
from hpsearch.training.fused import FusedTraining
from hpsearch.training.lane import Lane, Way
from hpsearch.training.measure import lanes_that_pay
from hpsearch.training.precision import dtype_of, noted
from hpsearch.training.probe import RANDOM, CannotFuse, explain, generators, probe
from hpsearch.training.recipe import ModelParams, Recipe, resolve
from hpsearch.training.schedule import Rate
from hpsearch.training.solo import check_smoothing
from hpsearch.training.structure import Structure, structure_of
from hpsearch.trial import STREAMED, Finished, PausedReport, Report, RunKey, State

#: floats that lanes may differ in without a doubt; others are tried
LIFTED = ("p", "momentum", "eps", "negative_slope", "alpha")


@final
@dataclass(frozen=True)
class Known:
    """What a group has found out: its forms, and the way they take, one a fold."""

    forms: Sequence[nn.Module]
    ways: Sequence[Way]


@final
@dataclass(kw_only=True)
class Member:
    """A run of a group: what it needs beside its lane."""

    assignment: Assignment
    task: TrainingTask
    active: LiveRun
    recipe: Recipe
    course: Course
    parts: tuple[Parts, ...]
    #: one a fold, with the run's weights; [] when it has a lane
    models: list[nn.Module]
    structures: list[Structure]
    #: what to go on from, one a fold; [] at the beginning
    states: Sequence[dict[str, Any]]
    #: the reports of this epoch
    said: list[Report]
    #: what is known of its group from before it ran out of memory
    known: Known | None = None
    seconds: float = 0.0
    #: when it got its lane
    started: float = 0.0

    @property
    def key(self) -> Hashable:
        """Equal for runs that may be tried in one group."""
        recipe = self.recipe
        loop = (recipe.optimizer, recipe.batch_size, recipe.clip is None, recipe.label_smoothing > 0)
        return (loop, tuple(id(part) for part in self.parts), tuple(s.key for s in self.structures))

    @property
    def pace(self) -> Hashable:
        """Equal for runs that may be in one group now: where data is streamed, of one seed and at one epoch."""
        return (self.active.seed, self.course.epoch) if self.parts[0].streamed else ()

    @property
    def steps(self) -> int:
        """Updates of the whole run, of one fold."""
        return self.recipe.epochs * -(-len(self.parts[0].train.targets) // self.recipe.batch_size)

    def parted(self, level: int) -> Hashable:
        """What lanes must agree in besides: 0 nothing, 1 the floats that torch's layers do not have, 2 all floats."""
        if level == 0:
            return ()
        return tuple(
            (place, number)
            for structure in self.structures
            for place, number in sorted(structure.floats.items())
            if level == 2 or place[1] not in LIFTED
        )


def prepare_member(
    assignment: Assignment,
    task: TrainingTask,
    workload: Workload,
    device: str,
    stopped: Callable[[RunKey], bool],
) -> Member:
    """A run, ready to become a lane; where it was paused, ready to go on.

    Raises:
        CannotFuse: it has to train alone. Whatever the task's code raises.
    """
    said: list[Report] = []
    run = assignment.run
    active = LiveRun(assignment, workload, send=said.append, stopped=lambda: stopped(run), device=device)
    active.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    orders = worker.orders_of(active, workload)
    recipe, given = resolve(task, active.params), ModelParams(active.params)
    parts = prepare(task, workload.seed, device, given)
    active.data = parts[0].fingerprint
    models = []
    for part in parts:
        before = dict(vars(task))
        models.append(build(task, given, part, active.seed).to(device, dtype_of(task)))
        changed = [name for name, value in vars(task).items() if before.get(name) is not value]
        if changed:
            raise CannotFuse(f"{type(task).__name__}.model changes the task ({', '.join(changed)})")
    given.check_read(task)
    check_smoothing(recipe, active.params, parts[0])
    structures = [structure_of(model, [task]) for model in models]
    for structure in structures:
        if structure.opaque:
            raise CannotFuse(structure.opaque)
    course = Course(recipe, active.params, orders)
    return Member(
        assignment=assignment,
        task=task,
        active=active,
        recipe=recipe,
        course=course,
        parts=parts,
        models=models,
        structures=structures,
        states=course.resume(),
        said=said,
    )


@final
@dataclass(kw_only=True)
class Ended:
    """Why a group cannot go on as it is: its members, each with its states from before the epoch."""

    members: Sequence[Member] = ()
    too_large: bool = False
    reason: str = ""

    @property
    def over(self) -> bool:
        """True where the group is no more."""
        return bool(self.members)


@final
class Group:
    """Lanes that train, and the runs they belong to.

    Args:
        members: the first ones, of one key.
        workload: what all runs of the study share.
        slots: how many lanes there may be.
        device: ``cpu``, ``cuda:0`` ...
    """

    def __init__(self, members: Sequence[Member], workload: Workload, slots: int, device: str) -> None:
        self.members: list[Member] = []
        self.slots = slots
        self._first, self._workload, self._device = list(members), workload, device
        self._trainings: list[FusedTraining] = []
        self._lanes = len(members)

    @property
    def engine(self) -> str:
        """The rung of the ladder that its steps take."""
        return self._trainings[0].steps.engine if self._trainings else "vmap"

    @property
    def reason(self) -> str:
        """Why they take no higher one, where one was tried; and whether they share their batches."""
        if not self._trainings:
            return ""
        training = self._trainings[0]
        return "; ".join(filter(None, [STREAMED if training.parts.streamed else "", training.steps.reason]))

    def begin(self) -> tuple[Ended, list[Member]]:
        """Give members lanes, and find out whether they come out as they would alone and how many pay.

        Returns:
            Why it cannot begin, where memory does not reach; members that get no lane for now.

        Raises:
            CannotFuse: they do not come out the same.
        """
        try:
            pay = self._admit()
        except CannotFuse:
            raise
        except Exception as error:  # noqa: BLE001 - they begin again, fewer of them, or alone
            too_large, reason = worker.is_out_of_memory(error), explain(error)
            del error
            self.close()
            return Ended(members=self._first, too_large=too_large and len(self._first) > 1, reason=reason), []
        for member in self.members:
            member.models, member.states = [], []
        self._lanes = pay
        if pay < len(self._first):
            self.slots = pay
        return Ended(), self._first[pay:]

    def _admit(self) -> int:
        """How many of the first members have a lane."""
        first = self._first[0]
        forms = first.known.forms if first.known else first.models
        self._trainings = [
            FusedTraining(first.task, part, first.recipe, form, self.slots)
            for part, form in zip(first.parts, forms, strict=True)
        ]
        if first.known:
            for training, way in zip(self._trainings, first.known.ways, strict=True):
                training.way = way
        last = len(self._first) - 1
        self._probe([k for k, member in enumerate(self._first) if self._enter(member) or k in (0, last)])
        pay = len(self._first)
        if not self._workload.fixed_lanes and not first.known:
            pay = lanes_that_pay(self._trainings)
        for k in range(last, pay - 1, -1):
            self._leave(k)
        for training in self._trainings:
            training.prepare()
        return pay

    def add(self, member: Member) -> None:
        """A lane for one more run.

        Raises:
            CannotFuse: it differs from the others in a float that lanes cannot differ in; it has no lane then.
        """
        before = [set(training.stack.floats) for training in self._trainings]
        if self._enter(member):
            try:
                self._probe([len(self.members) - 1])
            except Exception as error:
                self._leave(len(self.members) - 1)
                for training, known in zip(self._trainings, before, strict=True):
                    training.unlift(training.stack.floats.keys() - known)
                raise error if isinstance(error, CannotFuse) else CannotFuse(explain(error)) from error
        self._lanes = max(self._lanes, len(self.members))
        member.models, member.states = [], []

    def resume(self) -> None:
        """Begin again with other runs, in lanes that are all free."""
        self._lanes = 0

    def close(self) -> None:
        """Free what it has; it is no more."""
        self.members, self._trainings = [], []
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def run_epoch(self, send: Callable[[Sequence[Report]], None]) -> Ended:
        """Train every lane for an epoch, report, and free the lanes of the runs that end or pause."""
        began = time.monotonic()
        saved = [training.checkpoint() for training in self._trainings]
        try:
            drawn = generators(torch.device(self._device))
            tables = [training.run_epoch() for training in self._trainings]
            if generators(torch.device(self._device)) != drawn:  # for the first time: the probe would have seen it
                raise CannotFuse(RANDOM)
        except Exception as error:  # noqa: BLE001 - of the task's code: whose lane it was nobody knows
            return self._broken(error, saved)
        share = (time.monotonic() - began) / len(self.members)
        norms = self._trainings[0].norms()
        reports: list[Report] = []
        ended: list[int] = []
        for k, member in enumerate(self.members):
            member.seconds += share
            last = self._after_epoch(member, k, [table[k] for table in tables], norms[k], reports)
            if last is not None:
                reports.append(last)
                ended.append(k)
        send(reports)
        for k in reversed(ended):
            self._leave(k)
        return Ended()

    def _enter(self, member: Member) -> bool:
        """A lane for a member; True where the lanes differ in more floats than before."""
        k, fresh = len(self.members), False
        self.members.append(member)
        member.started = time.monotonic()
        for fold, training in enumerate(self._trainings):
            recipe, floats = member.recipe, member.structures[fold].floats
            lane = Lane(recipe, member.active.seed, Rate(recipe.schedule, recipe.lr, recipe.epochs))
            lane.epoch = member.course.epoch
            model = member.models[fold] if member.models else training.stack.form
            fresh |= bool(training.add(lane, model, floats))
            if member.states:
                named = dict(model.named_buffers())
                for name, buffer in member.states[fold]["transient"].items():
                    named[name].copy_(buffer)
                training.restore(k, member.states[fold], model, floats)
        return fresh

    def _states(self, k: int) -> list[dict[str, Any]]:
        """What a lane needs to go on, one a fold."""
        return [{**training.state(k), "transient": training.stack.transient(k)} for training in self._trainings]

    def _leave(self, k: int) -> None:
        for training in self._trainings:
            training.remove(k)
        self.members[k] = self.members[-1]
        self.members.pop()

    def _probe(self, tried: Sequence[int]) -> None:
        """Try lanes beside their models alone; those of a group that was known before have none."""
        for fold, training in enumerate(self._trainings):
            models = {k: self.members[k].models[fold] for k in tried if self.members[k].models}
            if models:
                probe(training, models)

    def _after_epoch(
        self,
        member: Member,
        k: int,
        tables: Sequence[Mapping[str, float]],
        norms: Mapping[str, tuple[float, float]],
        reports: list[Report],
    ) -> Finished | PausedReport | None:
        """Hear a lane's metrics: its last report, where it ends or pauses here."""
        course, active = member.course, member.active
        finished = Finished(run=active.key, attempt=active.attempt, state=State.FAILED)
        try:
            metrics = course.judge(tables)
            if isinstance(metrics, Outcome):
                return self._signed(worker.of_outcome(finished, metrics), member)
            if course.improved:
                for training in self._trainings:
                    training.keep_best(k)
            active.tell(course.epoch, metrics, norms, epochs=member.recipe.epochs)
        except Stopped as ending:
            return self._signed(worker.of_ending(finished, active, ending), member)
        except ObjectiveError as error:
            return self._signed(replace(finished, reason="study", error=worker.study_text(error)), member)
        finally:
            reports += member.said
            member.said.clear()
        course.advance()
        if course.pausing:
            try:
                course.save(self._states(k))
            except Exception as error:  # noqa: BLE001 - its folder is gone, the disk is full: it costs this run only
                broken = replace(finished, reason="exception", error=worker.traceback_text(error))
                return self._signed(broken, member)
            paused = PausedReport(run=active.key, attempt=active.attempt, epoch=course.epoch - 1)
            return self._signed(paused, member)
        if course.ended:
            course.clear()
            try:
                outcome = course.outcome([training.best(k) for training in self._trainings])
            except Exception as error:  # noqa: BLE001 - as above
                broken = replace(finished, reason="exception", error=worker.traceback_text(error))
                return self._signed(broken, member)
            return self._signed(worker.of_outcome(finished, outcome), member)
        limit = self._workload.timeout_s
        if limit is not None and time.monotonic() - member.started > limit:
            late = replace(finished, reason="timeout", error=f"ran longer than {limit:g} s")
            return self._signed(late, member)
        return None

    def _signed(self, last: worker.Last, member: Member) -> worker.Last:
        # Kernels of a batch that lanes share may round in another way: a convolution's do.
        how = f"{self.engine}{' + stream' * member.parts[0].streamed}"
        engine = noted(f"{how}, {self._device}, {self._lanes} lane{'s' * (self._lanes > 1)}", member.task)
        return worker.signed(last, member.active, member.seconds, self._workload, engine)

    def _broken(self, error: Exception, saved: Sequence[Mapping[str, Any]]) -> Ended:
        """Take every lane back to where the epoch began, for the runs to go on from there in another way."""
        too_large = worker.is_out_of_memory(error)
        reason = explain(error)
        del error
        for training, checkpoint in zip(self._trainings, saved, strict=True):
            training.go_back(checkpoint)
        known = Known([t.stack.form for t in self._trainings], [t.way for t in self._trainings])
        for k, member in enumerate(self.members):
            member.states = self._states(k)
            member.known = known
            if not too_large or len(self.members) == 1:
                member.course.save(member.states)  # alone it goes on from there
        members = self.members
        self.close()
        return Ended(members=members, too_large=too_large and len(members) > 1, reason=reason)
