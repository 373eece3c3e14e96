"""Who trained what, and when."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.wanted import TheView
from hpsearch.dashboard.workers import losses_of, workers_of

router = APIRouter(include_in_schema=False)
#: rows of a table
MOST = 50


@router.get("/s/{study}/workers", response_class=HTMLResponse)
@role(Role.READ)
def workers(request: Request, view: TheView) -> HTMLResponse:
    """A lane each, a row each; what was lost."""
    found, lost = workers_of(view), losses_of(view)
    return study_page(
        request,
        "workers.html",
        view,
        "workers",
        timeline=card("timeline", "Workers over time", wide=True),
        workers=found[:MOST],
        total=len(found),
        lost=list(reversed(lost))[:MOST],
        lost_total=len(lost),
        causes=Counter(one.cause for one in lost).most_common(),
    )
