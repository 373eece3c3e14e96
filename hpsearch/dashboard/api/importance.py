"""Which hyperparameters mattered, how sure that is, and whether the search went far enough."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from hpsearch import shapes
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, answer, unfinished
from hpsearch.dashboard.api.conclusions import ImportancesTold
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheSource, TheView
from hpsearch.gain import INDEPENDENT, more_trials
from hpsearch.importance import Importances
from hpsearch.pictures import BeingMade, Source
from hpsearch.profile import edges_of, profile_of

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["studies"], responses=UNCHANGED)


@router.get("/importance", response_model=ImportancesTold)
@role(Role.READ)
def importance(request: Request, view: TheView, source: TheSource) -> Response:
    """Shares by PED-ANOVA and fANOVA with intervals, profiles, edges of ranges, and what more trials would bring.

    Finding out what mattered takes seconds: meanwhile `reason` says so, and `Retry-After` when to ask again.
    """
    try:
        return answer(request, view, lambda: importances_of(view, source, source.importances))
    except BeingMade:
        early = Importances(reason="being found out; ask again in some seconds")
        return unfinished(importances_of(view, source, early))


def importances_of(view: View, source: Source, found: Importances) -> dict[str, Any]:
    """As ``hpsearch importance STUDY --json``."""
    seen = source.subject
    profiles = [profile_of(name, p, seen.trials, seen.direction) for name, p in seen.space.searched.items()]
    edges = edges_of(seen.space, seen.trials, seen.direction)
    gain = more_trials(seen.trials, seen.direction, independent=seen.strategy in INDEPENDENT)
    return shapes.numbered(shapes.importance(view.name, found, profiles, edges, gain))
