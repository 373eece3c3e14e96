"""Studies side by side, at equal budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.compare import (
    Difference,
    Search,
    StudyRow,
    chances,
    confirmed,
    param_differences,
    searches,
    study_row,
    trial_row,
    verdicts,
)
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, render
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheRecord
from hpsearch.verdict import Paired, Spread, spread

router = APIRouter(include_in_schema=False)
#: studies that are compared at once
MOST = 6
#: studies in the form
LISTED = 100


@final
@dataclass(frozen=True, kw_only=True)
class Beside:
    """What can be said of some studies together."""

    rows: Sequence[StudyRow]
    #: the best trial of each over its seeds; None without one
    bests: Sequence[Spread | None]
    #: whether all measure the same; otherwise there is no more than the rows
    alike: bool
    #: whether all trained with the same seeds
    same_seeds: bool
    searches: Sequence[Search]
    #: the budgets, in trials, of which the best is told
    marks: Sequence[int]
    #: who is ahead, in words
    ahead: Sequence[str]
    #: the best trials against each other, on common seeds
    pairs: Sequence[Paired]
    fresh: bool
    params: Sequence[Difference]


def beside(views: Sequence[View]) -> Beside:
    """The studies' rows, their searches at equal budget, and the verdict on their best trials."""
    rows = [study_row(view.summary, view.trials) for view in views]
    alike = len({(row.metric, row.direction) for row in rows}) == 1
    best = [row.best for row in rows if row.best]
    found, ahead, fresh = list[Search](), list[str](), confirmed(best)
    pairs: Sequence[Paired] = ()
    if alike:
        found = searches([(view.summary, view.trials) for view in views])
        n = found[0].n
        ahead = [_ahead(a, b, chance, n) for a, b, chance in chances(found, views[0].direction)] if n else []
        if len(best) == len(rows):
            judged = [trial_row(v.name, trial, confirmed=fresh) for v, trial in zip(views, best, strict=True)]
            pairs = verdicts(judged, views[0].direction)
    n = found[0].n if found else 0
    return Beside(
        rows=rows,
        bests=[None if row.best is None else spread(list(row.best.values().values())) for row in rows],
        alike=alike,
        same_seeds=len({tuple(view.summary.spec["seeds"]) for view in views}) == 1,
        searches=found if n else (),
        marks=sorted({max(1, n // 4), max(1, n // 2), n}) if n else (),
        ahead=ahead,
        pairs=pairs,
        fresh=fresh,
        params=param_differences(best) if len(best) == len(rows) else (),
    )


def _ahead(a: Search, b: Search, chance: float | None, n: int) -> str:
    one, two = " ".join(a.studies), " ".join(b.studies)
    if chance is None:
        return (
            f"{one} against {two}: one study of a strategy that learns is one draw; repeat it with other seeds "
            f"(seed: 1) for a probability."
        )
    return f"{one} is ahead of {two} after {n:,} trials with probability {chance:.2f}."


@router.get("/compare", response_class=HTMLResponse)
@role(Role.READ)
def compare(
    request: Request, record: TheRecord, s: Annotated[list[str] | None, Query(max_length=MOST)] = None
) -> HTMLResponse:
    """Studies side by side; with fewer than two, the form to choose them."""
    names = list(dict.fromkeys(name for name in s or () if name))
    views = [record.view(name) for name in names]
    studies = [summary.name for summary in record.studies()][:LISTED]
    found, cards = None, []
    if len(views) > 1:
        key = ("beside", tuple((view.name, view.revision) for view in views))
        found = views[0].once(key, lambda: beside(views))
        cards = [card("searches", "Best so far", wide=True, **{"with": names[1:]})] if found.alike else []
    return render(
        request, "studies_compare.html", found=found, cards=cards, names=names, studies=studies, views=views, most=MOST
    )
