"""What the answers of the API look like: the OpenAPI schema is made of these, and tests hold the answers to them.

Where the record's own dataclasses say it (``verdict.Spread``, ``trial.Environment`` ...), they are used.
Numbers that are not finite are null; times are UTC, ISO 8601.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, final

from hpsearch.trial import Direction, Environment, Stage, State
from hpsearch.verdict import Spread

#: a hyperparameter's value
Setting = float | int | str | bool | None


@final
@dataclass(frozen=True, kw_only=True)
class Said:
    """What somebody wrote of a study, a trial or a run: a note or a tag."""

    address: str
    text: str


@final
@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The best complete trial. Its value is optimistic: it is the best of many."""

    trial: int
    value: float
    sd: float | None


@final
@dataclass(frozen=True, kw_only=True)
class StudyTold:
    """A study in a list."""

    study: str
    #: `running`, `complete`, `stopped`, `interrupted` or `failed`
    state: str
    reason: str
    strategy: str
    pruner: str | None
    metric: str
    direction: Direction
    seeds: Sequence[int]
    n_trials: int | None
    #: trials by state
    trials: Mapping[State, int]
    best: BestTrial | None
    created: datetime
    updated: datetime
    #: of coordinator's time, over all restarts
    seconds: float
    holder: str
    file: str
    fenced: int
    tags: Sequence[str]
    #: of its trials and runs
    trial_tags: Sequence[Said]
    notes: Sequence[Said]


@final
@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """Studies, the latest changed first."""

    schema: int
    studies: Sequence[StudyTold]
    #: that fit, on all pages
    total: int
    #: for `cursor` of the next page; null on the last one
    next: str | None


@final
@dataclass(frozen=True, kw_only=True)
class WholeStudy:
    """A study by itself."""

    schema: int
    study: str
    #: `running`, `complete`, `stopped`, `interrupted` or `failed`
    state: str
    reason: str
    strategy: str
    pruner: str | None
    metric: str
    direction: Direction
    seeds: Sequence[int]
    n_trials: int | None
    #: trials by state
    trials: Mapping[State, int]
    best: BestTrial | None
    created: datetime
    updated: datetime
    #: of coordinator's time, over all restarts
    seconds: float
    holder: str
    file: str
    fenced: int
    tags: Sequence[str]
    #: of its trials and runs
    trial_tags: Sequence[Said]
    notes: Sequence[Said]
    #: changes with anything that can be seen of the study; the `ETag`
    revision: str
    #: of the best trial, over the search's seeds
    interval: Spread | None
    #: what the study file says
    spec: Mapping[str, Any]


@final
@dataclass(frozen=True, kw_only=True)
class RunTold:
    """One training of a trial with one seed."""

    seed: int
    repeat: int
    stage: Stage
    state: State
    diverged: bool
    attempt: int
    value: float | None
    best_epoch: int | None
    last_epoch: int | None
    #: why it is not complete, and the traceback or message behind that
    reason: str
    error: str
    started: datetime | None
    ended: datetime | None
    seconds: float
    worker: str
    engine: str
    environment: Environment | None


@final
@dataclass(frozen=True, kw_only=True)
class Commands:
    """What to type to see a trial, and to train it again."""

    show: str
    study_file: str
    #: compares each epoch with the record; null while none of it has ended
    rerun: str | None
    ship: str
    #: a program that trains it without the record
    python: str


@final
@dataclass(frozen=True, kw_only=True)
class WholeTrial:
    """A trial with its runs."""

    schema: int
    study: str
    trial: int
    state: State
    value: float | None
    sd: float | None
    diverged: bool
    batch: int
    baseline: bool
    params: Mapping[str, Setting]
    #: over the search's seeds; all but the study's own at each run's best epoch
    metrics: Mapping[str, Spread]
    runs: Sequence[RunTold]
    #: of it and its runs
    notes: Sequence[Said]
    tags: Sequence[Said]
    commands: Commands


@final
@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial in a list; of `fields`, only what was asked for is there."""

    number: int
    state: State
    #: mean of the metric over the search's seeds; null where a run diverged or failed, and before the end
    value: float | None
    #: of a sample (n - 1); null below two seeds
    sd: float | None
    #: seeds with a value
    n: int
    #: 95 % interval for the mean, of a complete trial; null below two seeds
    low: float | None
    high: float | None
    #: a run's loss was not finite, or it said so
    diverged: bool
    baseline: bool
    #: round of the strategy, from 0
    batch: int
    #: of training, over all runs
    seconds: float
    params: Mapping[str, Setting]


@final
@dataclass(frozen=True, kw_only=True)
class TrialPage:
    """Trials in an order, a page at a time."""

    trials: Sequence[TrialRow]
    #: trials that fit the filter, on all pages
    total: int
    #: for `cursor` of the next page; null on the last one
    next: str | None


@final
@dataclass(frozen=True, kw_only=True)
class TrialColumns:
    """Trials as columns of equal length: what plots and frames take."""

    columns: Mapping[str, Sequence[Any]]
    #: trials that fit the filter
    total: int
    #: trials in the columns
    shown: int
    #: what was left out, in words; empty where nothing was
    note: str
    #: significant digits of the numbers
    digits: int


@final
@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """One metric of one run over its epochs (from 0). What was not finite is not there."""

    seed: int
    repeat: int
    stage: Stage
    state: State
    diverged: bool
    epochs: Sequence[int]
    values: Sequence[float]


@final
@dataclass(frozen=True, kw_only=True)
class Band:
    """Mean and band over the search's seeds, at the epochs that all of them have reached."""

    kind: Literal["interval", "range"]
    #: seeds
    n: int
    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@final
@dataclass(frozen=True, kw_only=True)
class TrialCurves:
    """How the runs of a trial went, epoch by epoch."""

    study: str
    trial: int
    metric: str
    #: all that were reported
    metrics: Sequence[str]
    runs: Sequence[RunCurve]
    #: null with one seed: then there is no spread
    band: Band | None
    #: points in the curves, of all that there are
    shown: int
    total: int


@final
@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Norms of each layer over the epochs of a run, as log10: rows are layers, columns epochs."""

    study: str
    trial: int
    seed: int
    repeat: int
    layers: Sequence[str]
    epochs: Sequence[int]
    #: null where the norm was 0 or not finite
    gradients: Sequence[Sequence[float | None]]
    weights: Sequence[Sequence[float | None]]
    #: layer: what is wrong with it, in words
    flags: Mapping[str, str]
    note: str
