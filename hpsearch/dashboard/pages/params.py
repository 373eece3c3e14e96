"""How the value depends on the hyperparameters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, ranked, study_page
from hpsearch.dashboard.wanted import TheFilter, TheSource, TheView
from hpsearch.pictures import axes_of
from hpsearch.profile import edges_of
from hpsearch.trial import LONGEST_NAME

router = APIRouter(include_in_schema=False)
#: hyperparameters that are drawn, each alone, unless all are asked for
FIRST = 12


@router.get("/s/{study}/params", response_class=HTMLResponse)
@role(Role.READ)
def params(
    request: Request,
    view: TheView,
    source: TheSource,
    wanted: TheFilter,
    x: Annotated[str, Query(max_length=LONGEST_NAME)] = "",
    y: Annotated[str, Query(max_length=LONGEST_NAME)] = "",
    all: Annotated[bool, Query(description="draw every hyperparameter alone")] = False,
) -> HTMLResponse:
    """A picture a hyperparameter, their importances, all at once, two together; edges to look beyond."""
    source = ranked(source)
    names = source.order
    known = [name if name in names else None for name in (x, y)]
    axes = axes_of(source, known[0], known[1])
    edges = edges_of(source.subject.space, source.subject.trials, view.direction)
    shown = names if all else names[:FIRST]
    return study_page(
        request,
        "params.html",
        view,
        "params",
        wanted,
        names=names,
        edges=edges,
        together=[
            card("importances", "Importance, with uncertainty", wide=True),
            card("parallel", "All hyperparameters", wide=True),
        ],
        alone=[card("lr_curve", name, x=name) for name in shown],
        hidden=len(names) - len(shown),
        axes=axes,
        two=card("interaction", f"{axes[0]} with {axes[1]}", wide=True, x=axes[0], y=axes[1]) if axes else None,
        shown=len(source.subject.trials),
    )
