"""One group: runs that train together now, as lanes, and what becomes of each after every epoch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, final

import torch

from hpsearch.errors import ObjectiveError, Stopped
from hpsearch.objective import Workload
from hpsearch.training import worker
from hpsearch.training.course import Outcome
from hpsearch.training.fused import FusedTraining
from hpsearch.training.lane import Lane
from hpsearch.training.measure import lanes_that_pay, refuse_what_gains_nothing
from hpsearch.training.member import Known, Member, witnesses
from hpsearch.training.precision import noted
from hpsearch.training.probe import RANDOM, explain, generators, probe, same_attributes
from hpsearch.training.schedule import Rate
from hpsearch.training.shared import Shared
from hpsearch.training.structure import CannotFuse, attributes_of
from hpsearch.trial import STREAMED, Finished, PausedReport, Report, State

#: lanes whose files are written at once
WRITERS = 8
#: what ends a run's attempt
Last = Finished | PausedReport


@final
@dataclass(kw_only=True)
class Ended:
    """Why a group cannot go on as it is: its members, each with its states from before the epoch."""

    members: Sequence[Member] = ()
    too_large: bool = False
    #: one of them may be to blame, and nobody knows which
    sift: bool = False
    #: no two runs of the study may train together
    never: bool = False
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
        captured: False: neither compiled nor captured, for the few steps that it has.
    """

    def __init__(
        self, members: Sequence[Member], workload: Workload, slots: int, device: str, *, captured: bool = True
    ) -> None:
        self.members: list[Member] = []
        self.slots = slots
        self._first, self._workload, self._device, self._captured = list(members), workload, device, captured
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
        shared = Shared(self._first[0].task)
        try:
            pay = self._admit()
            self._same_shared(shared)
        except CannotFuse:
            try:
                self._same_shared(shared)  # rather than by what it has made of the numbers
            finally:
                shared.put_back()
            raise
        except Exception as error:  # noqa: BLE001 - they begin again, fewer of them, or alone
            shared.put_back()
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
        tried = witnesses(self._first)
        self._probe([k for k, member in enumerate(self._first) if self._enter(member) or k in tried])
        pay = len(self._first)
        if not self._workload.fixed_lanes:
            for training in self._trainings:
                refuse_what_gains_nothing(training)
        if not self._workload.fixed_lanes and not first.known:
            pay = lanes_that_pay(self._trainings)
        for k in range(last, pay - 1, -1):
            self._leave(k)
        for training in self._trainings:
            if not self._captured:
                training.steps.capture_never()
            training.prepare()
        return pay

    def add(self, member: Member) -> None:
        """A lane for one more run.

        Raises:
            CannotFuse: it differs from the others in a float that lanes cannot differ in; it has no lane then.
        """
        before = [(set(training.stack.floats), training.way) for training in self._trainings]
        shared = Shared(member.task)
        if self._enter(member):
            try:
                self._probe([len(self.members) - 1])
            except Exception as error:
                shared.put_back()
                self._leave(len(self.members) - 1)
                for training, (known, way) in zip(self._trainings, before, strict=True):
                    training.unlift(training.stack.floats.keys() - known)
                    training.way = way
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
        shared = Shared(self.members[0].task)
        attributes = [attributes_of(training.stack.form) for training in self._trainings]
        try:
            drawn = generators(torch.device(self._device))
            tables = [training.run_epoch() for training in self._trainings]
            if generators(torch.device(self._device)) != drawn:  # for the first time: the probe would have seen it
                raise CannotFuse(RANDOM)
            self._same_shared(shared)
            for training, before in zip(self._trainings, attributes, strict=True):
                same_attributes(training.stack.form, before)
        except Exception as error:  # noqa: BLE001 - of the task's code: whose lane it was nobody knows
            shared.put_back()
            return self._broken(error, saved)
        share = (time.monotonic() - began) / len(self.members)
        norms = self._trainings[0].norms()
        lasts: dict[int, Last] = {}
        leaving = []
        for k, member in enumerate(self.members):
            member.seconds += share
            last = self._hear(member, k, [table[k] for table in tables], norms[k])
            if last is not None:
                lasts[k] = last
            elif member.course.pausing or member.course.ended:
                leaving.append(k)
        lasts.update(zip(leaving, _at_once(self._left, leaving), strict=True))
        reports: list[Report] = []
        for k, member in enumerate(self.members):
            reports += [*member.said, *([lasts[k]] if k in lasts else [])]
            member.said.clear()
        send(reports)
        for k in sorted(lasts, reverse=True):
            self._leave(k)
        return Ended()

    def _same_shared(self, before: Shared) -> None:
        task = self._first[0].task
        if used := before.used(Shared(task)):
            words = f"{type(task).__name__} trains with what all runs share, and changes it ({used[0]})"
            raise CannotFuse(words, never=True)

    def _enter(self, member: Member) -> bool:
        """A lane for a member; True where the lanes differ in more floats than before."""
        k, fresh = len(self.members), False
        self.members.append(member)
        for fold, training in enumerate(self._trainings):
            recipe, floats = member.recipe, member.structures[fold].floats
            lane = Lane(recipe, member.active.seed, Rate(recipe.schedule, recipe.lr, recipe.epochs))
            lane.epoch = member.course.epoch
            model = member.models[fold] if member.models else training.stack.form
            fresh |= bool(training.add(lane, model, floats))
            if member.states:
                training.restore(k, member.states[fold], model, floats)
        return fresh

    def _states(self, k: int) -> list[dict[str, Any]]:
        """What a lane needs to go on, one a fold."""
        return [training.state(k) for training in self._trainings]

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
                probe(training, models, lambda k: self.members[k].remake())

    def _hear(
        self, member: Member, k: int, tables: Sequence[Mapping[str, float]], norms: Mapping[str, tuple[float, float]]
    ) -> Last | None:
        """Hear a lane's metrics: its last report, where it ends here with nothing to leave."""
        course, active, finished = member.course, member.active, self._failed(member)
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
        course.advance()
        limit = self._workload.timeout_s
        late = limit is not None and member.seconds > limit  # its share: the rest of the time is the other lanes'
        if late and not (course.pausing or course.ended):
            return self._signed(replace(finished, reason="timeout", error=f"ran longer than {limit:g} s"), member)
        return None

    def _left(self, k: int) -> Last:
        """The last report of a lane that ends or pauses here, once what it leaves is on disk."""
        member = self.members[k]
        course, active, finished = member.course, member.active, self._failed(member)
        try:
            if course.pausing:
                course.save(self._states(k))
                return self._signed(
                    PausedReport(run=active.key, attempt=active.attempt, epoch=course.epoch - 1), member
                )
            course.clear()
            outcome = course.outcome([training.best(k) for training in self._trainings])
        except Exception as error:  # noqa: BLE001 - its folder is gone, the disk is full: it costs this run only
            broken = replace(finished, reason="exception", error=worker.traceback_text(error))
            return self._signed(broken, member)
        return self._signed(worker.of_outcome(finished, outcome), member)

    def _failed(self, member: Member) -> Finished:
        return Finished(run=member.active.key, attempt=member.active.attempt, state=State.FAILED)

    def _signed(self, last: Last, member: Member) -> Last:
        # Kernels of a batch that lanes share may round in another way: a convolution's do.
        how = f"{self.engine}{' + stream' * member.parts[0].streamed}"
        engine = noted(f"{how}, {self._device}, {self._lanes} lane{'s' * (self._lanes > 1)}", member.task)
        return worker.signed(last, member.active, member.seconds, self._workload, engine)

    def _broken(self, error: Exception, saved: Sequence[Mapping[str, Any]]) -> Ended:
        """Take every lane back to where the epoch began, for the runs to go on from there in another way."""
        too_large = worker.is_out_of_memory(error)
        reason = explain(error)
        sift, never = not isinstance(error, CannotFuse), isinstance(error, CannotFuse) and error.never
        del error
        for training, checkpoint in zip(self._trainings, saved, strict=True):
            training.go_back(checkpoint)
        members = self.disband()
        too_large = too_large and len(members) > 1
        return Ended(members=members, too_large=too_large, sift=sift, never=never, reason=reason)

    def disband(self) -> Sequence[Member]:
        """The members, each with its states, for other groups or to go on alone; the group is no more."""
        known = Known([t.stack.form for t in self._trainings], [t.way for t in self._trainings])
        for k, member in enumerate(self.members):
            member.states, member.known = self._states(k), known
        members = self.members
        self.close()
        return members


def _at_once(leave: Callable[[int], Last], lanes: Sequence[int]) -> Sequence[Last]:
    """For each of these lanes, in threads: files of 3 MB take 10 ms each to write, sum and sync."""
    if len(lanes) < 2:
        return [leave(k) for k in lanes]
    with ThreadPoolExecutor(min(WRITERS, len(lanes)), thread_name_prefix="hpsearch.writer") as writers:
        return list(writers.map(leave, lanes))
