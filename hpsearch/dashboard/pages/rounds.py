"""How a coarse-to-fine search narrowed, round by round."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.rounds import narrows, rounds_of
from hpsearch.dashboard.wanted import TheView
from hpsearch.trial import LARGEST

router = APIRouter(include_in_schema=False)
#: rounds in the table: the first and the last ones of a longer search
MOST = 40


@router.get("/s/{study}/rounds", response_class=HTMLResponse)
@role(Role.READ)
def rounds(
    request: Request, view: TheView, round: Annotated[int | None, Query(ge=1, le=LARGEST)] = None
) -> HTMLResponse:
    """The windows, played or up to a round; a row a round."""
    found = rounds_of(view) if narrows(view) else []
    last = len(found)
    upto = None if round is None or round >= last else round
    shown = found if last <= MOST else [*found[: MOST // 2], *found[last - MOST // 2 :]]
    picture = card("rounds", "Windows" if upto is None else f"Windows up to round {upto}", wide=True, round=upto,
                   played=None if upto else 1)  # fmt: skip
    return study_page(
        request,
        "rounds.html",
        view,
        "rounds",
        picture_card=picture if found else None,
        rounds=shown,
        last=last,
        upto=upto,
        steps=sorted({1 + k * (last - 1) // 11 for k in range(12)}) if last > 1 else [],
    )
