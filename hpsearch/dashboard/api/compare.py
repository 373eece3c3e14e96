"""Two trials, or studies, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from hpsearch import compare as comparing
from hpsearch import shapes
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, shaped, told
from hpsearch.dashboard.api.conclusions import StudyComparison, TrialComparison
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheRecord, TheView, view_of
from hpsearch.errors import NotFoundError, UsageError, shown
from hpsearch.trial import LARGEST, LONGEST_NAME, Direction, Trial
from hpsearch.verdict import Paired

router = APIRouter(prefix="/api/v1", tags=["comparison"])
Number = Annotated[int, Query(description="a trial's number", ge=0, le=LARGEST)]
Alpha = Annotated[float, Query(description='how often "beats" may be said of two that are alike', gt=0, lt=1)]
METRIC = "another metric than the study's, at each run's best epoch; needs `direction`"


@router.get("/studies/{study}/compare", response_model=TrialComparison, responses=UNCHANGED)
@role(Role.READ)
def trials(
    request: Request,
    view: TheView,
    a: Number,
    b: Number,
    metric: Annotated[str | None, Query(description=METRIC, max_length=LONGEST_NAME)] = None,
    direction: Annotated[Direction | None, Query(description="which way that metric gets better")] = None,
    alpha: Alpha = 0.05,
) -> Response:
    """Whether one trial beats another: their differences on common seeds, with interval, p and the verdict in words."""
    if a == b:
        raise UsageError(f"a and b are both {a}", hint="name two trials: a=3&b=7")
    if metric not in (None, view.subject.metric) and direction is None:
        raise UsageError(f"metric {shown(metric)} does not say which way is better", hint="direction=maximize")
    pair = [view.trial(a), view.trial(b)]
    _check_alpha(alpha)
    return shaped(request, view, lambda: compared(view, pair, metric, direction, alpha))


def compared(
    view: View, trials: list[Trial], metric: str | None, direction: Direction | None, alpha: float
) -> dict[str, Any]:
    """As ``hpsearch compare A B --json``.

    Raises:
        NotFoundError: a trial has not reported this metric.
    """
    fresh = comparing.confirmed(trials)
    rows = []
    for trial in trials:
        if metric is None or metric == view.subject.metric:
            rows.append(comparing.trial_row(view.name, trial, confirmed=fresh))
            continue
        curves = view.archive.curves(view.name, [trial.number])
        own = [curve for curve in curves if curve.metric == metric]
        if not own:
            names = sorted({curve.metric for curve in curves})
            hint = f"it has {', '.join(names[:8])}" if names else "it has none"
            raise NotFoundError(f"{view.name}/{trial.number} has no metric {shown(metric)}", hint=hint)
        value = comparing.at_best_epoch(own)
        rows.append(comparing.trial_row(view.name, trial, confirmed=fresh, value=value))
    differences = [*comparing.param_differences(trials), *comparing.origin_differences([view.summary] * 2, trials)]
    verdicts = comparing.verdicts(rows, direction or view.direction, alpha=alpha)
    return shapes.trials_compared(rows, verdicts, differences, confirmed=fresh)


def _check_alpha(alpha: float) -> None:
    if not math.isfinite(alpha) or alpha < 1e-6:
        raise UsageError(f"alpha {alpha:g} is too small", hint="alpha=0.05")


@router.get("/compare", response_model=StudyComparison)
@role(Role.READ)
def studies(
    request: Request,
    record: TheRecord,
    s: Annotated[list[str], Query(description="names of studies", min_length=2, max_length=6)],
    alpha: Alpha = 0.05,
) -> Response:
    """Studies at equal budget: best so far, who is ahead, and their best trials on common seeds."""
    names = list(dict.fromkeys(s))
    if len(names) < 2:
        raise UsageError("s names one study only", hint="s=digits-grid&s=digits-random")
    _check_alpha(alpha)
    views = [view_of(request, name) for name in names]
    return told(shapes.numbered(compared_studies(views, alpha)))


def compared_studies(views: list[View], alpha: float) -> dict[str, Any]:
    """As ``hpsearch compare S T --json``."""
    rows = [comparing.study_row(view.summary, view.trials) for view in views]
    best = [(row.study, row.best) for row in rows if row.best]
    found: list[comparing.Search] = []
    ahead: list[tuple[comparing.Search, comparing.Search, float | None]] = []
    judged: Sequence[Paired] = ()
    if len({(row.metric, row.direction) for row in rows}) == 1:
        way, fresh = Direction(rows[0].direction), comparing.confirmed([trial for _, trial in best])
        found = comparing.searches([(view.summary, view.trials) for view in views])
        ahead = comparing.chances(found, way)
        if len(best) == len(rows):
            sides = [comparing.trial_row(name, trial, confirmed=fresh) for name, trial in best]
            judged = comparing.verdicts(sides, way, alpha=alpha)
    return shapes.studies_compared(rows, found, ahead, judged)
