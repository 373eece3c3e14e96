"""What went wrong: failures by message, divergence, layers that vanish or explode, lost attempts."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.diagnosis import diagnosis_of
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.wanted import TheView
from hpsearch.dashboard.workers import losses_of

router = APIRouter(include_in_schema=False)
#: rows of a table
MOST = 30


@router.get("/s/{study}/diagnostics", response_class=HTMLResponse)
@role(Role.READ)
def diagnostics(request: Request, view: TheView) -> HTMLResponse:
    """What went wrong, grouped."""
    found = diagnosis_of(view)
    diverged, flagged, lost = found.diverged, found.flagged, losses_of(view)
    return study_page(
        request,
        "diagnostics.html",
        view,
        "diagnostics",
        failures=found.failures[:MOST],
        failed=found.failed,
        kinds=len(found.failures),
        diverged=diverged,
        curve=card("lr_curve", f"{view.summary.spec['metric']} over {diverged.name}", wide=True, x=diverged.name)
        if diverged.name
        else None,
        flagged=flagged[:MOST],
        unhealthy=len(flagged),
        seen=found.looked,
        layers=card("layers", f"Layers of {flagged[0].run}", wide=True, run=str(flagged[0].run)) if flagged else None,
        lost=list(reversed(lost))[:MOST],
        lost_total=len(lost),
        causes=Counter(one.cause for one in lost).most_common(),
    )
