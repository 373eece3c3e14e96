"""Studies and trials side by side: plain data, no drawing.

Whether one beats the other is decided by ``verdict``, on common seeds; what a study gains by its trials, by ``gain``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, final

from hpsearch import gain
from hpsearch.archive import Curve, StudySummary
from hpsearch.trial import Direction, Run, Stage, State, Trial, best_trials
from hpsearch.verdict import Paired, pairs

#: of trials whose values are not compared, in words
_FATES = {State.PRUNED: "was pruned", State.FAILED: "has failed", State.CANCELLED: "was cancelled"} | dict.fromkeys(
    (State.QUEUED, State.RUNNING, State.PAUSED), "has not ended"
)


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
    #: whether the search was enough: what as many trials again would bring; None below eight
    more: gain.Gain | None


@final
@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial in a comparison."""

    address: str
    trial: Trial
    #: seed -> value of the run that counts
    values: Mapping[int, float]
    #: the same of the seeds that a verdict may use, NaN where a run diverged
    judged: Mapping[int, float]
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
    direction, strategy = Direction(summary.spec["direction"]), summary.spec["strategy"]["name"]
    complete = [t for t in trials if t.state is State.COMPLETE and t.value is not None]
    values = [t.value for t in complete if t.value is not None]
    best = next(iter(best_trials(trials, direction, 1)), None)
    baseline = next(iter(best_trials([t for t in trials if t.baseline], direction, 1)), None)
    return StudyRow(
        study=summary.name,
        strategy=strategy,
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
        more=gain.more_trials(trials, direction, independent=strategy in gain.INDEPENDENT),
    )


def trial_row(
    study: str, trial: Trial, *, confirmed: bool = False, value: Callable[[Run], float | None] = lambda run: run.value
) -> TrialRow:
    """One trial's row.

    Args:
        confirmed: judge it by runs beyond the search alone (of a race, and extra ones), by which it was not chosen.
        value: of a run; None where it has none.
    """
    searched = {run.key.seed for run in trial.search_runs}
    found = {run.key.seed: x for run in trial.seed_runs if (x := value(run)) is not None}
    judged = {
        run.key.seed: math.nan if run.state is State.DIVERGED else found[run.key.seed]
        for run in trial.seed_runs
        if (run.state is State.DIVERGED or (run.state is State.COMPLETE and run.key.seed in found))
        and not (confirmed and run.key.seed in searched)
    }
    return TrialRow(
        address=f"{study}/{trial.number}",
        trial=trial,
        values=found,
        judged=judged,
        seconds=sum(run.seconds for run in trial.runs),
    )


def confirmed(trials: Sequence[Trial]) -> bool:
    """True where each of them has confirmation runs."""
    return all(any(run.stage is Stage.CONFIRM for run in trial.runs) for trial in trials)


def at_best_epoch(curves: Sequence[Curve]) -> Callable[[Run], float | None]:
    """A run's value of another metric: at the epoch that was its best, else at its last."""
    by_run = {curve.run: dict(zip(curve.epochs, curve.values, strict=True)) for curve in curves}

    def value(run: Run) -> float | None:
        told = by_run.get(run.key, {})
        best = told.get(run.best_epoch) if run.best_epoch is not None else None
        return best if best is not None else next(reversed(told.values()), None)

    return value


def verdicts(rows: Sequence[TrialRow], direction: Direction, *, alpha: float = 0.05) -> tuple[Paired, ...]:
    """Every pair of these trials, corrected together."""
    found = pairs({row.address: row.judged for row in rows}, direction, alpha=alpha)
    # A table may show values of these: of runs that were not trained to their end, which no verdict is about.
    unfit = {row.address: f"{row.address} {_FATES[row.trial.state]}" for row in rows if _unfit(row)}
    return tuple(
        replace(pair, words=f"not shown: {' and '.join(unfit[name] for name in (pair.a, pair.b) if name in unfit)}")
        if not pair.n and unfit.keys() & {pair.a, pair.b}
        else pair
        for pair in found
    )


def _unfit(row: TrialRow) -> bool:
    return not row.judged and row.trial.state in _FATES


@final
@dataclass(frozen=True, kw_only=True)
class Search:
    """A strategy's studies (repetitions, which differ in nothing but their seed) at equal budget; baselines aside."""

    studies: tuple[str, ...]
    strategy: str
    #: the trials that every compared study has
    n: int
    #: best so far after 1, 2, ... n trials, one for each study
    curves: tuple[tuple[float | None, ...], ...]
    #: mean of each curve
    areas: tuple[float | None, ...]
    #: None for one study of a strategy that learns
    band: gain.Band | None
    #: the trials' values, where they may be resampled: one study of a strategy that does not learn
    draws: tuple[float | None, ...] | None


def searches(studies: Sequence[tuple[StudySummary, Sequence[Trial]]]) -> list[Search]:
    """The studies by strategy, at the budget that all have."""
    chosen = [(s, [t.value if t.state is State.COMPLETE else None for t in ts if not t.baseline]) for s, ts in studies]
    n = min(len(values) for _, values in chosen)
    groups: dict[str, list[tuple[StudySummary, list[float | None]]]] = {}
    for summary, values in chosen:
        same = {key: value for key, value in summary.spec.items() if key not in ("name", "seed", "description", "tags")}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append((summary, values))
    return [_search(group, n) for group in groups.values()]


def _search(group: Sequence[tuple[StudySummary, list[float | None]]], n: int) -> Search:
    spec = group[0][0].spec
    direction, strategy = Direction(spec["direction"]), spec["strategy"]["name"]
    curves = tuple(gain.best_so_far(values[:n], direction) for _, values in group)
    band, draws = None, None
    if len(group) > 1:
        band = gain.repeated(curves, direction)
    elif strategy in gain.INDEPENDENT and n and any(value is not None for value in group[0][1]):
        draws = tuple(group[0][1])
        band = gain.resampled(draws, direction, n)
    return Search(
        studies=tuple(summary.name for summary, _ in group),
        strategy=strategy,
        n=n,
        curves=curves,
        areas=tuple(gain.area(curve, n) for curve in curves),
        band=band,
        draws=draws,
    )


def chances(found: Sequence[Search], direction: Direction) -> list[tuple[Search, Search, float | None]]:
    """For each two: the probability that the first is ahead after n trials; None where one draw says nothing of it."""
    rows: list[tuple[Search, Search, float | None]] = []
    for a, b in combinations(found, 2):
        ours, theirs = ([curve[-1] for curve in x.curves if curve and curve[-1] is not None] for x in (a, b))
        chance = None
        if a.draws is not None and b.draws is not None:
            chance = gain.ahead(a.draws, b.draws, direction, a.n)
        elif len(ours) > 1 and len(theirs) > 1:
            chance = gain.ahead_of([x for x in ours if x is not None], [x for x in theirs if x is not None], direction)
        rows.append((a, b, chance))
    return rows


def origin_differences(studies: Sequence[StudySummary], trials: Sequence[Trial]) -> list[Difference]:
    """Code, data, commit, seed of the data's split, machine and versions in which these trials differ, as recorded."""
    columns = []
    for summary, trial in zip(studies, trials, strict=True):
        stored = [run.environment for run in trial.runs if run.environment is not None]
        seen = {"code": summary.code_hash[:12], "split seed": str(summary.spec.get("seed", ""))}
        seen["data"] = ", ".join(dict.fromkeys(e.data for e in stored if e.data))
        for name in ("git_commit", "python", "torch", "device", "machine"):
            seen[name.replace("_", " ")] = ", ".join(dict.fromkeys(str(getattr(e, name)) for e in stored))
        seen |= {name: version for e in stored for name, version in e.packages.items()}
        seen["engine"] = ", ".join(dict.fromkeys(run.engine for run in trial.runs if run.engine))
        columns.append(seen)
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [Difference(name=name, values=[column.get(name) or None for column in columns]) for name in names]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def param_differences(trials: Sequence[Trial]) -> list[Difference]:
    """The params in which these trials differ, in the order of the first trial that has them."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    rows = [Difference(name=name, values=[trial.params.get(name) for trial in trials]) for name in names]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]
