"""Grid or random: what the trials of this study have seen of its hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, ranked, study_page
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheFilter, TheOthers, TheRecord, TheSource, TheView
from hpsearch.errors import UsageError
from hpsearch.figures import grid_or_random
from hpsearch.figures.subject import Subject
from hpsearch.pictures import axes_of
from hpsearch.trial import LONGEST_NAME

router = APIRouter(include_in_schema=False)
#: studies in the form
LISTED = 100
#: the share of the trials that the sentence on the budget is about
TOP = 0.05


def counted(subjects: Sequence[Subject], x: str, y: str) -> list[str]:
    """``digits-grid (grid): 4 distinct lr in 64 trials``, a study each."""
    return [
        f"{p.study} ({p.strategy.replace('_', ' ')}): {p.distinct:,} distinct {x} in {p.trials:,} trials"
        for p in grid_or_random.data(subjects, x, y).panels
    ]


def budget(view: View) -> str:
    """What so many random trials are worth; empty for a strategy whose trials are not independent."""
    spec = view.summary.spec["strategy"]
    if spec["name"] != "random":
        return ""
    n = sum(not trial.baseline and trial.state.final for trial in view.trials)
    if not n:
        return ""
    chance = 1 - (1 - TOP) ** n
    percent = f"{100 * chance:.0f} %" if chance < 0.995 else "more than 99 %"
    hit = f"hit the best 5 % of the search space with probability 1 - 0.95^{n} = {percent}"
    return f"{n:,} independent random trials {hit}."


@router.get("/s/{study}/grid-vs-random", response_class=HTMLResponse)
@role(Role.READ)
def grid_vs_random(
    request: Request,
    view: TheView,
    record: TheRecord,
    source: TheSource,
    wanted: TheFilter,
    others: TheOthers,
    x: Annotated[str, Query(max_length=LONGEST_NAME)] = "",
    y: Annotated[str, Query(max_length=LONGEST_NAME)] = "",
) -> HTMLResponse:
    """The trials projected on one hyperparameter; with another study's beside them."""
    names = list(view.subject.space.searched)
    keep = [(field, name) for field, name in (("x", x), ("y", y)) if name in names]
    source = ranked(source)
    second = next(iter(others), None)
    # Beside another study, what both of them search says most.
    both = [name for name in source.order if second is not None and name in second.subject.space.searched]
    x, y = (one if one in names else "" for one in (x, y))
    if len(both) > 1 and not (x and y):
        x = x or next(name for name in both if name != y)
        y = y or next(name for name in both if name != x)
    axes = axes_of(source, x or None, y or None)
    if second is not None and axes and not {*axes} <= second.subject.space.searched.keys():
        raise UsageError(
            f"{second.name} does not search {' and '.join(axes)}",
            hint=f"it searches {', '.join(second.subject.space.searched)}",
        )
    views = [view, second] if second else [view]
    keep += [("with", second.name)] if second else []
    picture = None
    if axes:
        chosen = {"x": axes[0], "y": axes[1], "with": second.name if second else None}
        picture = card("grid_or_random", f"Seen through {axes[0]}", wide=True, **chosen)
    return study_page(
        request,
        "grid_or_random.html",
        view,
        "grid-vs-random",
        wanted,
        names=names,
        axes=axes,
        second=second.name if second else "",
        studies=[summary.name for summary in record.studies() if summary.name != view.name][:LISTED],
        picture_card=picture,
        keep=keep,
        shown=len(source.subject.trials),
        distinct=counted([source.subject, *([second.subject] if second else [])], *axes) if axes else [],
        budgets=[(one.name, words) for one in views if (words := budget(one))],
    )
