"""Studies and trials side by side: plain data, no drawing.

A comparison says what is there: values, spreads, counts. It does not say that one beats the other; that takes paired
seeds and an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from hpsearch.archive import StudySummary
from hpsearch.trial import Direction, State, Trial, best_trials


@final
@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One study in a comparison."""

    study: str
    strategy: str
    metric: str
    direction: str
    state: str
    #: the best complete trial; None while there is none
    best: Trial | None
    #: seeds of the search
    n_seeds: int
    #: mean of the values of all complete trials: what the search spent its time on
    mean: float | None
    trials: int
    complete: int
    diverged: int
    failed: int
    #: of coordinator's time
    seconds: float
    #: the number of the trial, counted from 1, that gave the best value
    found_after: int | None
    #: the best baseline's value; None where there is none
    baseline: float | None


@final
@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial in a comparison."""

    address: str
    trial: Trial
    #: seed -> value of the run that counts
    values: Mapping[int, float]
    seconds: float


@final
@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting in which what is compared differs."""

    name: str
    #: one value for each of the compared, None where it has none
    values: Sequence[Any]


def study_row(summary: StudySummary, trials: Sequence[Trial]) -> StudyRow:
    """One study's row."""
    direction = Direction(summary.spec["direction"])
    complete = [t for t in trials if t.state is State.COMPLETE and t.value is not None]
    values = [t.value for t in complete if t.value is not None]
    best = next(iter(best_trials(trials, direction, 1)), None)
    baseline = next(iter(best_trials([t for t in trials if t.baseline], direction, 1)), None)
    return StudyRow(
        study=summary.name,
        strategy=summary.spec["strategy"]["name"],
        metric=summary.spec["metric"],
        direction=str(direction),
        state=summary.state,
        best=best,
        n_seeds=len(summary.spec["seeds"]),
        mean=sum(values) / len(values) if values else None,
        trials=len(trials),
        complete=len(complete),
        diverged=sum(t.state is State.DIVERGED for t in trials),
        failed=sum(t.state is State.FAILED for t in trials),
        seconds=summary.seconds,
        found_after=best.number + 1 if best else None,
        baseline=baseline.value if baseline else None,
    )


def trial_row(study: str, trial: Trial) -> TrialRow:
    """One trial's row."""
    return TrialRow(
        address=f"{study}/{trial.number}",
        trial=trial,
        values={run.key.seed: run.value for run in trial.runs if run.value is not None},
        seconds=sum(run.seconds for run in trial.runs),
    )


def param_differences(trials: Sequence[Trial]) -> list[Difference]:
    """The params in which these trials differ, in the order of the first trial that has them."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    rows = [Difference(name=name, values=[trial.params.get(name) for trial in trials]) for name in names]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]
