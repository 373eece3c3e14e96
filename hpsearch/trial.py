"""A trial is one setting of the hyperparameters; a run is one training of it with one seed.

    queued ──> running ──> complete | pruned | diverged | failed | cancelled      (final: never changes again)
      ^          │  └───> paused ──> running                                     (waits at a rung)
      └──────────┘ a lost worker, a drain: costs an attempt, never a run

A trial is ``running`` as soon as one of its runs is, and final when all of them are:
any failed run makes it failed, else any diverged one diverged (the worst value there is),
else any pruned one pruned; ``complete`` means that every run is.
**Diverged is an observation** (the learning rate was too high), never a failure.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, final

from hpsearch.space import Params

#: what every store can hold: the length of a metric's name in characters, and a whole number (an epoch, an attempt)
LONGEST_NAME, LARGEST = 200, 2**31 - 1


class Direction(StrEnum):
    """Which way the metric gets better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    @property
    def worst(self) -> float:
        """The value that every other beats."""
        return math.inf if self is Direction.MINIMIZE else -math.inf

    def better(self, a: float, b: float) -> bool:
        """True where ``a`` beats ``b``."""
        return a < b if self is Direction.MINIMIZE else a > b


class State(StrEnum):
    """Where a trial or a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True for a state that never changes again."""
        return self not in (State.QUEUED, State.RUNNING, State.PAUSED)


class Stage(StrEnum):
    """Why a run was made. Strategies and pruners see ``search`` only."""

    SEARCH = "search"
    CONFIRM = "confirm"
    EXTRA = "extra"


class RunKey(NamedTuple):
    """What names a run within its study; written ``trial/seed`` (``trial/seed.repeat`` for a repetition)."""

    trial: int
    seed: int
    repeat: int = 0

    def __str__(self) -> str:
        return f"{self.trial}/{self.seed}" + (f".{self.repeat}" if self.repeat else "")

    @classmethod
    def of(cls, text: str) -> RunKey:
        """The inverse of ``str``."""
        trial, _, rest = text.partition("/")
        seed, _, repeat = rest.partition(".")
        return cls(int(trial), int(seed), int(repeat or 0))


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The weights of a run's best epoch, as a file."""

    #: below the study's files, with ``/``
    path: str
    sha256: str
    bytes: int


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Where a run was trained. No environment variables, no secrets."""

    python: str
    torch: str
    #: ``cpu`` or ``cuda:0 (NVIDIA H100)``
    device: str
    #: platform, CPU model
    machine: str
    #: the commit of the study's folder; empty where it is no git checkout
    git_commit: str = ""
    git_dirty: bool = False
    #: name -> version, of the packages that decide a result
    packages: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training of one trial with one seed, as it is recorded."""

    key: RunKey
    stage: Stage = Stage.SEARCH
    state: State = State.QUEUED
    #: tries so far; the running one's number, counted from 1. Fences its reports.
    attempt: int = 0
    #: the metric at the best epoch; None unless complete or pruned
    value: float | None = None
    best_epoch: int | None = None
    last_epoch: int | None = None
    #: why it is not complete: ``exception``, ``exit:3``, ``signal:11``, ``timeout``, ``nan loss at epoch 4`` ...
    reason: str = ""
    #: the traceback or message behind ``reason``
    error: str = ""
    #: seconds since 1970, UTC, by the coordinator's clock; None while not there yet
    started: float | None = None
    ended: float | None = None
    #: seconds of training, over all attempts that counted
    seconds: float = 0.0
    #: the worker that had it: ``host:pid``
    worker: str = ""
    #: how it was trained: ``vmap, cpu, 64 lanes``; empty where nobody said
    engine: str = ""
    environment: Environment | None = None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One setting of the hyperparameters, as it is recorded."""

    #: counts from 0 in its study; baselines come first
    number: int
    params: Params
    state: State = State.QUEUED
    #: mean of the metric over all search seeds; None unless complete or pruned
    value: float | None = None
    #: sample standard deviation over the search seeds; None below two
    sd: float | None = None
    #: tried because the user knows it, not because a strategy chose it
    baseline: bool = False
    #: the batch or round it was chosen in, from 0
    batch: int = 0
    #: how many trials had ended before its batch was chosen
    history_seq: int = 0
    #: its place among the ended trials, from 1; None while it is not final
    tell_seq: int | None = None
    runs: tuple[Run, ...] = ()

    @property
    def search_runs(self) -> tuple[Run, ...]:
        """Those that the search made, a seed each: what strategies and pruners see; ``value`` is their mean."""
        return tuple(run for run in self.runs if run.stage is Stage.SEARCH and run.key.repeat == 0)

    @property
    def seed_runs(self) -> tuple[Run, ...]:
        """One run a seed, of every stage: the first that has not failed, else the last. No state or value of a trial
        follows from a repetition: this is for what looks beyond the search.
        """
        found: dict[int, Run] = {}
        for run in sorted(self.runs, key=lambda run: run.key):
            if run.key.seed not in found or found[run.key.seed].state is State.FAILED:
                found[run.key.seed] = run
        return tuple(found.values())

    def values(self, stage: Stage = Stage.SEARCH) -> dict[int, float]:
        """Seed -> value of the complete runs of a stage; repetitions are left out."""
        runs = (run for run in self.runs if run.stage is stage and run.key.repeat == 0)
        return {run.key.seed: run.value for run in runs if run.state is State.COMPLETE and run.value is not None}


def score(runs: Sequence[Run]) -> tuple[State, float | None, float | None]:
    """A trial's state, value and standard deviation from its runs (all final), in the order of the seeds.

    The value is the mean over the seeds, the deviation that of a sample (n - 1; None below two runs).
    """
    states = {run.state for run in runs}
    for state in (State.FAILED, State.CANCELLED, State.DIVERGED):
        if state in states:
            return state, None, None
    values = [run.value for run in runs if run.value is not None]
    value = statistics.fmean(values) if values else None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return State.PRUNED if State.PRUNED in states else State.COMPLETE, value, sd


def best_trials(trials: Sequence[Trial], direction: Direction, k: int) -> list[Trial]:
    """The ``k`` best complete trials, best first; of equal values the lower number first."""
    sign = 1.0 if direction is Direction.MINIMIZE else -1.0
    ranked = [(sign * t.value, t.number, t) for t in trials if t.state is State.COMPLETE and t.value is not None]
    return [trial for _, _, trial in heapq.nsmallest(k, ranked, key=lambda item: item[:2])]


# Reports: what a worker says about a run. Each names the attempt, so that a late one can be told apart.


@final
@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """All metrics of one epoch of one run. Epochs increase within an attempt."""

    run: RunKey
    attempt: int
    #: from 0
    epoch: int
    #: finite or not; the store keeps no row for a non-finite one
    metrics: Mapping[str, float]
    #: how many epochs the run will take at most; None where nobody knows
    epochs: int | None = None
    #: layer name -> (gradient norm, weight norm); empty where nobody measured
    layers: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class PausedReport:
    """The run is saved at a rung and has left its worker."""

    run: RunKey
    attempt: int
    #: the last one it has trained, from 0
    epoch: int
    #: of training since it was started or went on last; then who trained it, and how, as ``Finished`` says it
    seconds: float = 0.0
    worker: str = ""
    engine: str = ""
    environment: Environment | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Finished:
    """The run has ended: ``state`` is complete, pruned, diverged, failed or cancelled."""

    run: RunKey
    attempt: int
    state: State
    #: finite where complete or pruned (None for one pruned before its first report), else None
    value: float | None = None
    best_epoch: int | None = None
    last_epoch: int | None = None
    reason: str = ""
    error: str = ""
    #: further numbers that the training function returned
    metrics: Mapping[str, float] = field(default_factory=dict)
    #: metrics of the test set (``test_*``): stored sealed, shown nowhere
    sealed: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    worker: str = ""
    #: how it was trained: ``vmap, cpu, 64 lanes``; ``solo, cpu``; ``solo, cuda:0, bfloat16``
    engine: str = ""
    environment: Environment | None = None
    #: None where nothing was kept
    checkpoint: Checkpoint | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Lost:
    """The worker is gone, for no fault of the run that anyone could see."""

    run: RunKey
    attempt: int
    #: ``signal:9``, ``oom``, ``connection``, ``silent``, ``drained``
    cause: str
    seconds: float = 0.0
    worker: str = ""
    #: the other runs that the worker had in hand
    company: tuple[RunKey, ...] = ()


#: said of a group whose lanes share each batch
STREAMED = "the data is streamed, one seed a group"


@final
@dataclass(frozen=True, kw_only=True)
class Grouped:
    """How a worker trains runs that it has in hand: said when a group begins, and when it steps down the ladder."""

    runs: tuple[RunKey, ...]
    #: ``compiled + graph``, ``vmap + graph``, ``vmap`` or ``solo``
    engine: str
    device: str
    #: how many train together
    lanes: int
    #: why not on a higher rung of the ladder, or with more others (``STREAMED``); empty where there is nothing to say
    reason: str = ""

    @property
    def how(self) -> str:
        """``64 lanes, vmap on cpu``; ``solo on cpu``."""
        many = f"{self.lanes} lanes, " if self.lanes > 1 else ""
        return f"{many}{self.engine} on {self.device}"


#: of a run
RunReport = EpochReport | PausedReport | Finished | Lost
Report = RunReport | Grouped
