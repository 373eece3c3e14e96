"""What went wrong in a study, and whether a trial of it is one to ship."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from hpsearch import shapes
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, answer, shaped
from hpsearch.dashboard.api.courses import (
    Diagnostics,
    DivergedTold,
    EpochTold,
    FailureTold,
    ShareTold,
    ShippingTold,
    SickRun,
)
from hpsearch.dashboard.diagnosis import Diagnosis, diagnosis_of
from hpsearch.dashboard.record import View
from hpsearch.dashboard.shipping import chosen, shipping
from hpsearch.dashboard.wanted import TheFilter, TheSource, TheView
from hpsearch.errors import NotFoundError
from hpsearch.trial import LARGEST

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["studies"], responses=UNCHANGED)
#: failures, and sick runs, in one answer
MOST = 30


@router.get("/diagnostics", response_model=Diagnostics)
@role(Role.READ)
def diagnostics(request: Request, view: TheView, source: TheSource, wanted: TheFilter) -> Response:
    """What went wrong: failures by message, where and when runs diverged, layers that vanish or explode."""
    return answer(request, view, lambda: _diagnostics(view.name, diagnosis_of(view, source, wanted)))


def _diagnostics(study: str, found: Diagnosis) -> Diagnostics:
    diverged = found.diverged
    return Diagnostics(
        study=study,
        failed=found.failed,
        kinds=len(found.failures),
        failures=[
            FailureTold(
                message=one.message,
                reason=one.reason,
                runs=one.runs,
                trials=one.trials,
                example=str(one.example),
                error=one.error,
            )
            for one in found.failures[:MOST]
        ],
        diverged=DivergedTold(
            runs=diverged.runs,
            trials=diverged.trials,
            epochs=[EpochTold(epoch=epoch, runs=n) for epoch, n in diverged.epochs],
            parameter=diverged.name,
            shares=[ShareTold(low=low, high=high, trials=n, diverged=bad) for low, high, n, bad in diverged.shares],
        ),
        looked=found.looked,
        sick=[SickRun(run=str(one.run), flags=dict(one.flags)) for one in found.flagged[:MOST]],
    )


@router.get("/ship", response_model=ShippingTold)
@role(Role.READ)
def ship(
    request: Request,
    view: TheView,
    trial: Annotated[
        int | None, Query(description="without one, that which the race has chosen, else the best", ge=0, le=LARGEST)
    ] = None,
) -> Response:
    """The checklist of a trial, the looks at the test set, the weights that are kept: as `hpsearch ship --json`."""
    number = chosen(view) if trial is None else view.trial(trial).number
    if number is None:
        raise NotFoundError(f"no trial of {view.name} is complete yet", hint=f"hpsearch status {view.name}")
    return shaped(request, view, lambda: _shipping(view, number))


def _shipping(view: View, number: int) -> dict[str, Any]:
    found, metric = shipping(view, number), view.subject.metric
    kept = [
        {"run": str(key), "path": one.path, "sha256": one.sha256, "bytes": one.bytes} for key, one in found.kept.items()
    ]
    return shapes.shipping(view.name, metric, found.trial, found.checks, found.looks, None) | {
        "seen": [shapes.look(view.name, metric, look) for look in found.looks],
        "confirmed": None if found.race is None else found.race.chosen,
        "weights": kept,
    }
