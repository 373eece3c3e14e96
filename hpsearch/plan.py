"""What a study will run, and what it will cost: plain data, from the study alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from hpsearch.declaration import is_function
from hpsearch.pruner import Bracket, Pruner, Rung
from hpsearch.space import Float, Params, SearchSpace, Value
from hpsearch.strategy import History
from hpsearch.study import Study, cohort_of, epochs_of, warnings_of
from hpsearch.trial import Direction, Grouped

#: hyperparameters of the loop that lanes of a group have in common; where data is streamed the run's seed as well
_PARTING, _SEED = ("optimizer", "batch_size"), "seed"


@final
@dataclass(frozen=True, kw_only=True)
class MeasuredGroup:
    """Runs that a worker trains in one way: together, or each alone for the same reason."""

    #: as the worker said it; its runs are those that it trains in this way in the end
    said: Grouped
    #: seconds of one epoch of all its lanes; None where fewer than two were seen
    epoch_s: float | None
    #: hyperparameters that its runs have in common and by which its group differs from the others; {} where none tells
    shared: Params = field(default_factory=dict)
    #: which of the workers, from 0
    worker: int = 0

    @property
    def full(self) -> bool:
        """True where all its runs have a lane; else fewer lanes are as fast, or all that fit."""
        return self.said.lanes >= len(self.said.runs)


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """The runs that workers take first, timed in worker processes: one, or as many as would be in all lanes."""

    #: seconds from the start of the worker process to the first report
    first_s: float
    #: seconds of one epoch of a run; in a group its part of the group's epoch, which is that divided by its lanes.
    #: The mean over the runs; None where none reported two epochs
    epoch_s: float | None
    #: how many epochs a run has at most; None where the training code does not say
    epochs: int | None
    #: seconds of the whole run, in a group its part, where it ended while it was watched
    run_s: float | None
    #: the most runs that trained together
    lanes: int = 1
    #: how many runs the workers were given
    runs: int = 1
    #: how many workers were given runs
    workers: int = 1
    #: seconds in which the worker that takes longest trains an epoch of all its runs; None where nothing tells
    slowest_s: float | None = None
    #: in the order of their first runs; [] where each run trains alone without being tried
    groups: Sequence[MeasuredGroup] = ()
    #: runs that failed, and what the first of them said
    failed: int = 0
    failure: str = ""
    #: runs whose way of training was not seen when the time was up
    unseen: int = 0

    @property
    def fused(self) -> list[MeasuredGroup]:
        """The groups whose runs train together."""
        return [group for group in self.groups if group.said.engine != "solo"]

    @property
    def estimate_s(self) -> float | None:
        """Seconds of a whole run in a warm worker; None where nothing tells."""
        if self.run_s is not None:
            return self.run_s
        if self.epoch_s is None or self.epochs is None:
            return None
        return self.epoch_s * self.epochs


@final
@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What the pruner leaves to train where it stops as few as it can: where all trials are equal at every rung."""

    #: trials that are compared with each other
    cohort: int
    #: how many cohorts there are, the last of which may be smaller; None where only the time budget ends it
    cohorts: int | None
    #: of the first cohort
    brackets: Sequence[Bracket]
    #: for each bracket how many trials come to each of its rungs, and last to the end
    come: Sequence[Sequence[int]]
    #: of all runs, baselines included, or of one cohort where ``cohorts`` is None; None where nobody knows the epochs
    #: of a run
    epochs: int | None
    #: the same without pruning
    full_epochs: int | None
    #: what the user should know of it
    notes: Sequence[str]

    @property
    def share(self) -> float:
        """The part of the epochs that is left; 1 where nobody knows."""
        return 1.0 if self.epochs is None or not self.full_epochs else self.epochs / self.full_epochs


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study will run."""

    #: baselines included; None where only the time budget ends it
    trials: int | None
    #: trials x seeds
    runs: int | None
    baselines: Sequence[Params]
    #: the first settings that the strategy chooses
    first: Sequence[Params]
    #: what the user should know before the start
    notes: Sequence[str]
    #: None without a pruner
    pruning: Pruning | None = None

    def seconds(self, measured: Measured, workers: int) -> float | None:
        """How long it will take on so many workers, by the measured runs; None where nothing tells.

        With r seconds for a run (in a group its part of the group's time, as measured), K lanes, R runs of which
        pruning leaves the part s, W workers, and T seconds for the first runs of the slowest worker:

            first_s + max(r * K, s * T, r * s * R / W)

        so the study takes at least as long as the measured group does for all its epochs and as the slowest worker
        does for what it gets first, and no run is taken to be faster than it was in its group. K = 1 where runs
        train alone. What comes after the first runs goes to whoever is free.
        """
        run_s = measured.estimate_s
        if run_s is None or self.runs is None:
            return None
        share = 1.0 if self.pruning is None else self.pruning.share
        slowest = share * (measured.slowest_s or 0.0) * (measured.epochs or 0)
        return measured.first_s + max(run_s * max(measured.lanes, share * self.runs / workers), slowest)


@final
@dataclass(frozen=True, kw_only=True)
class Filling:
    """How far a batch of the strategy fills the lanes of all workers."""

    #: trials of a batch
    batch: int
    #: its trials x seeds
    runs: int
    #: that all workers have together
    lanes: int

    @property
    def filled_by(self) -> int:
        """Trials of the smallest batch that would fill the lanes."""
        return -(-self.lanes * self.batch // self.runs)


def filling(study: Study, measured: Measured, lanes: int, workers: int) -> Filling | None:
    """How far a batch fills the lanes of so many workers; None where it fills them, there are no batches or no groups.

    Args:
        study: whose strategy and seeds make the batch.
        measured: says what was fused, and where fewer lanes than there were runs for are as fast.
        lanes: of each worker.
        workers: how many.
    """
    batch, fused = batch_of(study), measured.fused
    if batch is None or not fused:
        return None
    each = max(lanes if group.full else group.said.lanes for group in fused)
    runs = batch * len(study.seeds)
    return Filling(batch=batch, runs=runs, lanes=each * workers) if runs < each * workers else None


def batch_of(study: Study) -> int | None:
    """How many trials the strategy chooses together; None where it needs no results to choose all of them."""
    sizes = (study.strategy.batch_size, study.n_trials, study.strategy.size(study.search_space))
    return None if sizes[0] is None else min(size for size in sizes if size is not None)


def parted_by(
    space: SearchSpace, groups: Sequence[Sequence[Params]], workers: Sequence[int] = ()
) -> list[dict[str, Value]]:
    """By which hyperparameters a worker's groups of runs can be told apart, a dict a group; all {} where none tell.

    Those of the loop that part groups, where they are enough; else every one that is no Float (which could be equal
    in a group by chance alone: that of a single run). ``seed``, where groups have it, counts as one of them.

    Args:
        workers: of each group which worker's it is; none: all are one's. Groups of two may have the same in common.
    """
    others = tuple(name for name, parameter in space.parameters.items() if not isinstance(parameter, Float))
    for names in (_PARTING, (*_PARTING, _SEED), others, (*others, _SEED)):
        shared = [name for name in names if all(len({p.get(name) for p in group}) == 1 for group in groups)]
        telling = [name for name in shared if len({group[0].get(name) for group in groups}) > 1]
        tags = [{name: group[0].get(name) for name in telling} for group in groups]
        told = {(worker, *tag.values()) for worker, tag in zip(workers or [0] * len(tags), tags, strict=True)}
        if telling and len(told) == len(groups):
            return tags
    return [{} for _ in groups]


def plan(study: Study, show: int = 5) -> Plan:
    """What the study will run. Asks the strategy for its first ``show`` settings; runs and records nothing."""
    size = study.strategy.size(study.search_space)
    ends = [n for n in (study.n_trials, size) if n is not None]
    trials = min(ends) + len(study.baselines) if ends else None
    history = History(search_space=study.search_space, direction=study.direction, seed=study.seed)
    first = study.strategy.ask(history, min([show, *ends])) if show > 0 else []
    return Plan(
        trials=trials,
        runs=None if trials is None else trials * len(study.seeds),
        baselines=study.baselines,
        first=first,
        notes=warnings_of(study),
        pruning=_pruning(study, min(ends) if ends else None),
    )


def _pruning(study: Study, trials: int | None) -> Pruning | None:
    """``trials``: those that the strategy chooses; None where nobody knows how many."""
    cohort, epochs = cohort_of(study), epochs_of(study)
    if study.pruner is None or cohort is None:
        return None
    cohort = cohort if trials is None else min(cohort, trials)
    sizes = [cohort] if trials is None else [min(cohort, trials - start) for start in range(0, trials, cohort)]
    brackets = study.pruner.brackets(cohort, epochs)
    counted = full = None
    if epochs is not None:
        whole = 0 if trials is None else len(study.baselines) * epochs
        by_size = {size: _epochs(study.pruner, size, epochs) for size in set(sizes)}
        counted = len(study.seeds) * (whole + sum(by_size[size] for size in sizes))
        full = len(study.seeds) * (whole + sum(sizes) * epochs)
    return Pruning(
        cohort=cohort,
        cohorts=None if trials is None else len(sizes),
        brackets=brackets,
        come=[_come(study.pruner, bracket) for bracket in brackets],
        epochs=counted,
        full_epochs=full,
        notes=_pruning_notes(study, study.pruner),
    )


def _epochs(pruner: Pruner, trials: int, epochs: int) -> int:
    """How many epochs a cohort trains at most, with one seed."""
    return sum(
        n * (epoch - before)
        for bracket in pruner.brackets(trials, epochs)
        for n, epoch, before in zip(_come(pruner, bracket), (*bracket.rungs, epochs), (0, *bracket.rungs), strict=True)
    )


def _come(pruner: Pruner, bracket: Bracket) -> list[int]:
    """How many trials come to each rung, and to the end, where none is better than another: no pruner stops fewer."""
    alive, counts = frozenset(range(bracket.trials)), [bracket.trials]
    for epoch in bracket.rungs:
        equal = dict.fromkeys(sorted(alive), (0.0,))
        rung = Rung(epoch=epoch, direction=Direction.MINIMIZE, values=equal, waiting=alive, expected=0)
        alive = pruner.decide(rung).go
        counts.append(len(alive))
    return counts


def _pruning_notes(study: Study, pruner: Pruner) -> list[str]:
    notes = []
    if is_function(study.objective):
        notes.append(
            f"a run goes on after a rung from what {study.objective.name} has saved in run.checkpoint_dir; one that "
            "saves nothing there starts over"
        )
    if pruner.asynchronous:
        notes.append(
            f"{pruner.name} is asynchronous: which trials go on depends on which were faster, so another number "
            "of workers may prune others"
        )
    return notes
