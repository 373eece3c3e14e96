"""What the answers of the API look like, continued: how a study went, what went wrong, what speaks for a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import final

from hpsearch.dashboard.api.models import BestTrial, Setting
from hpsearch.trial import State
from hpsearch.verdict import Spread


@final
@dataclass(frozen=True, kw_only=True)
class RoundTold:
    """Trials that the strategy chose together."""

    #: from 1; its trials' `batch` + 1
    round: int
    trials: int
    complete: int
    diverged: int
    failed: int
    #: of this round alone
    best: BestTrial | None
    #: of `best`, over its seeds
    interval: Spread | None
    #: of this round and all before
    best_so_far: BestTrial | None
    #: hyperparameter: [low, high] that it was drawn from; only what narrows
    windows: Mapping[str, Sequence[float]]
    #: hyperparameter: why its window moves or narrows after this round
    reasons: Mapping[str, str]


@final
@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The rounds (batches) of a study's strategy; baselines aside."""

    study: str
    strategy: str
    rounds: Sequence[RoundTold]


@final
@dataclass(frozen=True, kw_only=True)
class WorkerRun:
    """A run as a worker had it."""

    trial: int
    seed: int
    repeat: int
    state: State
    #: null where nobody said
    started: datetime | None
    #: null while it runs
    ended: datetime | None


@final
@dataclass(frozen=True, kw_only=True)
class WorkerTold:
    """What one worker did between `from` and `to`."""

    worker: str
    runs: Sequence[WorkerRun]
    #: runs that it had, those that are not shown among them
    total: int
    #: that it has in hand now
    running: int
    #: of training; of runs that train together, each has its share
    seconds: float
    #: share of the time between its first and its last run of these in which it had one; null until one has ended
    busy: float | None
    engines: Sequence[str]
    devices: Sequence[str]
    #: attempts that were lost with it, whenever that was
    lost: int


@final
@dataclass(frozen=True, kw_only=True)
class Workers:
    """Which worker trained what, and when it waited; those with most runs first."""

    study: str
    workers: Sequence[WorkerTold]
    #: what was left out, in words
    note: str


@final
@dataclass(frozen=True, kw_only=True)
class LostTold:
    """An attempt whose worker is gone, for no fault of the run that anyone could see."""

    trial: int
    seed: int
    repeat: int
    attempt: int
    #: `signal:9`, `oom`, `connection`, `silent`, `drained`
    cause: str
    #: after which it was lost
    seconds: float
    worker: str


@final
@dataclass(frozen=True, kw_only=True)
class Losses:
    """Lost attempts, the latest first."""

    study: str
    #: all that there are
    total: int
    #: cause: attempts, the most frequent first
    causes: Mapping[str, int]
    losses: Sequence[LostTold]


@final
@dataclass(frozen=True, kw_only=True)
class FailureTold:
    """Runs that failed with one message, numbers in it aside."""

    #: the last line of the example's error
    message: str
    reason: str
    runs: int
    trials: int
    #: `trial/seed` of one of them
    example: str
    #: of the example: a traceback or a message, its end
    error: str


@final
@dataclass(frozen=True, kw_only=True)
class EpochTold:
    """How many runs diverged after an epoch."""

    #: the last that they told of, from 0; null: none
    epoch: int | None
    runs: int


@final
@dataclass(frozen=True, kw_only=True)
class ShareTold:
    """How many trials of a part of a range diverged."""

    low: float
    high: float
    trials: int
    diverged: int


@final
@dataclass(frozen=True, kw_only=True)
class DivergedTold:
    """When, and where in the range, runs diverged: an observation, not a failure."""

    runs: int
    trials: int
    epochs: Sequence[EpochTold]
    #: the hyperparameter that the shares are over; empty where none is numeric
    parameter: str
    shares: Sequence[ShareTold]


@final
@dataclass(frozen=True, kw_only=True)
class SickRun:
    """A run whose layers vanish or explode."""

    #: `trial/seed`
    run: str
    #: layer: what is wrong, in words
    flags: Mapping[str, str]


@final
@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """What went wrong in a study."""

    study: str
    #: runs
    failed: int
    #: kinds of failures, those that are not shown among them
    kinds: int
    #: the most frequent first
    failures: Sequence[FailureTold]
    diverged: DivergedTold
    #: first runs of the best trials that have norms
    looked: int
    sick: Sequence[SickRun]


@final
@dataclass(frozen=True, kw_only=True)
class CheckTold:
    """One line of the checklist."""

    name: str
    #: null: it cannot be said
    holds: bool | None
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class LookSeen:
    """A look at the test set, and what was seen."""

    study: str
    trial: int
    #: of the study's looks, counted from 1: a value chosen among several is optimistic
    number: int
    who: str
    when: datetime
    reason: str
    #: test metrics, each over the race's runs
    metrics: Mapping[str, Spread]
    #: the study's metric over the same runs
    metric: str
    validation: Spread


@final
@dataclass(frozen=True, kw_only=True)
class KeptWeights:
    """The weights of a run's best epoch, as a file below the study's files."""

    #: `trial/seed`
    run: str
    path: str
    sha256: str
    bytes: int


@final
@dataclass(frozen=True, kw_only=True)
class ShippingTold:
    """What speaks for a trial, and what does not."""

    schema: int
    #: `study/trial`
    trial: str
    params: Mapping[str, Setting]
    checks: Sequence[CheckTold]
    #: how often the study's test set was looked at
    looks: int
    #: of a look that this answer is about, as `hpsearch ship --reveal-test` gives; here always null
    revealed: LookSeen | None
    #: all looks, oldest first
    seen: Sequence[LookSeen]
    #: number of the trial that the last race has chosen; null where none has
    confirmed: int | None
    weights: Sequence[KeptWeights]


@final
@dataclass(frozen=True, kw_only=True)
class RunLog:
    """The last lines of what a run has printed, or the group that it trained in."""

    study: str
    trial: int
    seed: int
    repeat: int
    lines: Sequence[str]
    #: below the study's files
    files: Sequence[str]
    #: there is more above
    cut: bool
    #: why there is none; empty where there is one
    note: str
