"""What went wrong: failures by message, divergence, layers that vanish or explode, lost attempts."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.diagnosis import diagnosis_of
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.wanted import TheFilter, TheSource, TheView
from hpsearch.dashboard.workers import losses_of

router = APIRouter(include_in_schema=False)
#: rows of a table
MOST = 30


@router.get("/s/{study}/diagnostics", response_class=HTMLResponse)
@role(Role.READ)
def diagnostics(request: Request, view: TheView, source: TheSource, wanted: TheFilter) -> HTMLResponse:
    """What went wrong, grouped."""
    subject = source.subject
    found = diagnosis_of(view, source, wanted)
    fitting = {trial.number for trial in subject.trials}
    diverged, flagged = found.diverged, found.flagged
    lost = [one for one in losses_of(view) if one.run.trial in fitting]
    return study_page(
        request,
        "diagnostics.html",
        view,
        "diagnostics",
        wanted,
        names=list(subject.space.searched),
        shown=len(subject.trials),
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
