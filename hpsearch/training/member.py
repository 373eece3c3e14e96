"""A run of a group: what it needs beside its lane, and how it is made ready for one."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from torch import nn

from hpsearch.executor import Assignment
from hpsearch.objective import TrainingTask, Workload
from hpsearch.training import worker
from hpsearch.training.active import LiveRun
from hpsearch.training.build import build
from hpsearch.training.course import Course
from hpsearch.training.data import Parts, prepare
from hpsearch.training.lane import Way
from hpsearch.training.precision import dtype_of
from hpsearch.training.recipe import ModelParams, Recipe, resolve
from hpsearch.training.shared import Shared, mentions
from hpsearch.training.solo import check_smoothing
from hpsearch.training.structure import CannotFuse, Structure, structure_of
from hpsearch.trial import Report, RunKey

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
    #: makes its models anew, for what that does beside; they are of no account
    remake: Callable[[], object]
    #: what is known of its group from before that was taken apart
    known: Known | None = None
    #: its share of the group's time
    seconds: float = 0.0

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
    changes: list[str],
) -> Member:
    """A run, ready to become a lane; where it was paused, ready to go on.

    ``changes`` gets the names of what runs share that making its models has changed.

    Raises:
        CannotFuse: it has to train alone. Whatever the task's code raises.
    """
    said: list[Report] = []
    run = assignment.run
    active = LiveRun(assignment, workload, send=said.append, stopped=lambda: stopped(run), device=device)
    active.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    orders = worker.orders_of(active, workload)
    recipe, given = resolve(task, active.params), ModelParams(active.params)
    at_first = Shared(task)
    parts = prepare(task, workload.seed, device, given)
    active.data = parts[0].fingerprint
    before = Shared(task)
    changes += at_first.used(before)
    try:
        models = [build(task, given, part, active.seed).to(device, dtype_of(task)) for part in parts]
    finally:
        after = Shared(task)
        changes += before.changed(after)
    held = {id(part) for model in models for part in [*model.modules(), *model.parameters()]}
    if kept := [name for name in changes if mentions(after.values.get(name), held)]:
        raise CannotFuse(f"{type(task).__name__}.model keeps what it makes where all runs find it ({kept[0]})")
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
        remake=partial(_remake, task, given, parts, active.seed),
    )


def _remake(task: TrainingTask, given: ModelParams, parts: Sequence[Parts], seed: int) -> None:
    with redirect_stdout(io.StringIO()):  # what it prints the log has already
        for part in parts:
            build(task, given, part, seed)


def witnesses(members: Sequence[Member]) -> set[int]:
    """Members to be tried alone beside their lanes: together they have two values of every param that differs."""
    chosen = {0, len(members) - 1}
    for name, value in members[0].active.params.items():
        others = [k for k, member in enumerate(members) if member.active.params.get(name) != value]
        if others and not chosen.intersection(others):
            chosen.add(others[0])
    return chosen
