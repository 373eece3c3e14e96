"""Is this trial one to ship? The checklist, and the looks at the sealed test set."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import study_page
from hpsearch.dashboard.shipping import chosen, shipping
from hpsearch.dashboard.wanted import TheView
from hpsearch.trial import LARGEST

router = APIRouter(include_in_schema=False)


@router.get("/s/{study}/ship", response_class=HTMLResponse)
@role(Role.READ)
def ship(
    request: Request, view: TheView, t: Annotated[int | None, Query(description="a trial", ge=0, le=LARGEST)] = None
) -> HTMLResponse:
    """The checklist of a trial; without a number, of the one that the race chose, else of the best."""
    number = chosen(view) if t is None else view.trial(t).number
    found = None if number is None else shipping(view, number)
    return study_page(
        request,
        "ship.html",
        view,
        "ship",
        found=found,
        number=number,
        may_reveal=found is not None and found.race is not None and found.race.chosen == number,
    )
