"""How far a study is, and what its trials are worth, as every page says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpsearch.archive import StudySummary
from hpsearch.ask import total_of
from hpsearch.errors import HpsearchError
from hpsearch.progress import Pace
from hpsearch.read import study_of
from hpsearch.trial import Run, Stage, State, Trial
from hpsearch.verdict import Spread, quantile, spread


@final
@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a study is."""

    #: trials that have ended, of all that there will be; None where nobody knows how many
    done: int
    total: int | None
    failed: int
    pruned: int
    diverged: int
    #: seconds until the end at the pace so far; None unless it runs, and where nobody knows
    eta_s: float | None


def standing(study: StudySummary) -> Standing:
    """How far a study is, from its line of the record alone."""
    counts = {state: study.counts.get(state, 0) for state in State}
    done, total = sum(n for state, n in counts.items() if state.final), planned(study.spec)
    eta = None
    if study.state == "running":
        pace = Pace(seconds=0, runs=0, epochs=None, curves={})
        eta = pace.eta_s(seconds=study.seconds, runs=done, total=total)
    return Standing(
        done=done,
        total=total,
        failed=counts[State.FAILED],
        pruned=counts[State.PRUNED],
        diverged=counts[State.DIVERGED],
        eta_s=eta,
    )


def round_of(study: StudySummary) -> str:
    """``round 2/3`` of a search that narrows round by round, without the end where nobody knows it; else empty."""
    if study.spec["strategy"]["name"] != "coarse_to_fine":
        return ""
    try:
        known = study_of(study.spec, Path())
    except HpsearchError:  # of another version
        return ""
    size, total = known.strategy.batch_size, total_of(known)
    if size is None:
        return ""
    fixed = len(known.baselines)
    now = max(1, math.ceil((sum(study.counts.values()) - fixed) / size))
    return f"round {now}" if total is None else f"round {now}/{math.ceil((total - fixed) / size)}"


def planned(spec: Mapping[str, Any]) -> int | None:
    """How many trials there will be at most, baselines included; None where nobody knows."""
    try:
        return total_of(study_of(spec, Path()))
    except HpsearchError:  # a strategy that this version does not know
        return None


def best_of(study: StudySummary) -> Spread | None:
    """The best trial's value with its interval, from the study's line of the record; None while there is none."""
    if study.best is None:
        return None
    _, value, sd = study.best
    n = len(study.spec["seeds"])
    known = sd is not None and n > 1 and math.isfinite(value)
    half = quantile(0.05, n - 1) * sd / math.sqrt(n) if known and sd is not None else None
    return Spread(
        mean=value,
        sd=sd,
        n=n,
        low=None if half is None else value - half,
        high=None if half is None else value + half,
        confidence=0.95,
        method="" if half is None else "t",
    )


def estimate(trial: Trial) -> Spread | None:
    """A trial's value over the search's seeds with its interval; None where it has no value.

    Of one that was pruned, over the values at its last rung.
    """
    if trial.state not in (State.COMPLETE, State.PRUNED):
        return None
    return over(run for run in trial.search_runs)


def stages(trial: Trial) -> dict[Stage, Spread | None]:
    """A trial's value by the reason for which its runs were made; stages without runs are left out."""
    found: dict[Stage, list[Run]] = {}
    for run in trial.runs:
        if not run.key.repeat:
            found.setdefault(run.stage, []).append(run)
    return {stage: over(runs) for stage, runs in sorted(found.items(), key=lambda item: list(Stage).index(item[0]))}


def over(runs: Any) -> Spread | None:
    """The value over these runs, with its interval; None where none has one."""
    values = [run.value for run in runs if run.value is not None]
    return spread(values) if values else None
