"""What the answers of the API look like, continued: comparisons, importances, decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from hpsearch.compare import Difference, Search
from hpsearch.dashboard.api.models import Setting
from hpsearch.importance import Share
from hpsearch.profile import Profile
from hpsearch.trial import Direction, State
from hpsearch.verdict import Paired


@final
@dataclass(frozen=True, kw_only=True)
class ComparedTrial:
    """A trial in a comparison."""

    #: `study/trial`
    trial: str
    state: State
    value: float | None
    sd: float | None
    diverged: bool
    #: seed: value of the run that counts
    values: Mapping[int, float]
    seconds: float
    params: Mapping[str, Setting]


@final
@dataclass(frozen=True, kw_only=True)
class TrialComparison:
    """Two trials on their common seeds."""

    schema: int
    trials: Sequence[ComparedTrial]
    #: judged on fresh seeds, by which they were not chosen
    confirmed: bool
    verdicts: Sequence[Paired]
    #: settings, code and machine, where they differ
    differences: Sequence[Difference]


@final
@dataclass(frozen=True, kw_only=True)
class BestSettings:
    """The best trial of a compared study."""

    trial: int
    value: float | None
    sd: float | None
    params: Mapping[str, Setting]


@final
@dataclass(frozen=True, kw_only=True)
class GainTold:
    """What more trials would bring (`hpsearch importance` says it in words)."""

    trials: int
    more: int
    expected: float
    any_order: bool
    noise: float | None
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class ComparedStudy:
    """A study in a comparison (`compare.StudyRow`)."""

    study: str
    strategy: str
    metric: str
    direction: Direction
    state: str
    best: BestSettings | None
    n_seeds: int
    #: of the values of all complete trials
    mean: float | None
    trials: int
    complete: int
    diverged: int
    failed: int
    seconds: float
    #: number of the trial, counted from 1, that gave the best value
    found_after: int | None
    baseline: float | None
    #: null where it is too little to tell
    more: GainTold | None


@final
@dataclass(frozen=True, kw_only=True)
class Ahead:
    """How likely one search is ahead of another after n trials; null where one draw says nothing of it."""

    a: Sequence[str]
    b: Sequence[str]
    n: int
    probability: float | None


@final
@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """Studies at equal budget."""

    schema: int
    studies: Sequence[ComparedStudy]
    searches: Sequence[Search]
    ahead: Sequence[Ahead]
    #: their best trials on common seeds
    best: Sequence[Paired]


@final
@dataclass(frozen=True, kw_only=True)
class EdgeTold:
    """The best trial lies at an end of a range beyond which better values may be (`profile.Edge`)."""

    name: str
    value: float
    trial: int
    side: Literal["low", "high"]
    low: float
    high: float
    near: int
    top: int
    suggestion: str
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class ImportancesTold:
    """What mattered, by two methods, each with the largest first."""

    schema: int
    study: str
    ped_anova: Sequence[Share]
    #: empty where it was left out, as a server does with many trials
    fanova: Sequence[Share]
    #: trials that were looked at, and those that could be
    n: int
    n_usable: int
    n_fanova: int
    resamples: int
    #: why there are no shares; empty where there are
    reason: str
    profiles: Sequence[Profile]
    edges: Sequence[EdgeTold]
    gain: GainTold | None


@final
@dataclass(frozen=True, kw_only=True)
class DecisionTold:
    """Something that was decided from results. Of a look at the test set, what was seen is not here."""

    kind: str
    subject: str
    reason: str
    details: Mapping[str, Any]
    batch: int


@final
@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What was decided and why, oldest first."""

    schema: int
    study: str
    decisions: Sequence[DecisionTold]
