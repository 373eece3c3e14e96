"""A study at a glance."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.wanted import TheFilter, TheSource, TheView
from hpsearch.trial import best_trials
from hpsearch.verdict import spread

router = APIRouter(include_in_schema=False)
#: trials in the table
TOP = 10


@router.get("/s/{study}", response_class=HTMLResponse)
@role(Role.READ)
def overview(request: Request, view: TheView, source: TheSource, wanted: TheFilter) -> HTMLResponse:
    """The best so far, the pictures that say most, the first trials."""
    top = best_trials(source.subject.trials, view.direction, TOP)
    cards = [card("history", "Best so far"), card("rounds", "Coarse to fine")]
    if view.summary.spec["strategy"]["name"] != "coarse_to_fine":
        cards[1] = card("curves", "Learning curves")
    cards += [card("lr_curve", "Where the best values lie"), card("grid_or_random", "Grid or random?")]
    cards += [card("importances", "Importance, with uncertainty"), card("parallel", "All hyperparameters")]
    return study_page(
        request,
        "overview.html",
        view,
        "",
        wanted,
        cards=cards,
        best=spread(list(top[0].values().values())) if top else None,
        top=[(trial, spread(list(trial.values().values()))) for trial in top],
        shown=len(source.subject.trials),
    )
