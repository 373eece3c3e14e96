"""How a study went: the rounds of its strategy, its workers over time, what they lost, what was decided."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from hpsearch import shapes
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, answer, shaped
from hpsearch.dashboard.api.conclusions import Decisions
from hpsearch.dashboard.api.courses import Losses, LostTold, Rounds, RoundTold, WorkerRun, Workers, WorkerTold
from hpsearch.dashboard.api.models import BestTrial
from hpsearch.dashboard.record import View
from hpsearch.dashboard.rounds import Round, rounds_of
from hpsearch.dashboard.wanted import TheView
from hpsearch.dashboard.workers import losses_of, workers_of
from hpsearch.errors import UsageError
from hpsearch.trial import Run, State, Trial

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["studies"], responses=UNCHANGED)
#: runs in one answer
MOST_RUNS = 2000


@router.get("/rounds", response_model=Rounds)
@role(Role.READ)
def rounds(request: Request, view: TheView) -> Response:
    """The trials by round, with the windows that coarse-to-fine drew them from and why these moved."""

    def make() -> Rounds:
        told = [_round(one) for one in rounds_of(view)]
        return Rounds(study=view.name, strategy=view.subject.strategy, rounds=told)

    return answer(request, view, make)


def _round(found: Round) -> RoundTold:
    return RoundTold(
        round=found.number,
        trials=found.trials,
        complete=found.states.get(State.COMPLETE, 0),
        diverged=found.states.get(State.DIVERGED, 0),
        failed=found.states.get(State.FAILED, 0),
        best=_best(found.best),
        interval=found.spread,
        best_so_far=_best(found.best_so_far),
        windows=found.windows,
        reasons=found.reasons,
    )


def _best(trial: Trial | None) -> BestTrial | None:
    if trial is None or trial.value is None:
        return None
    return BestTrial(trial=trial.number, value=trial.value, sd=trial.sd)


@router.get("/workers", response_model=Workers)
@role(Role.READ)
def workers(
    request: Request,
    view: TheView,
    start: Annotated[datetime | None, Query(alias="from", description="ISO 8601; UTC where it does not say")] = None,
    end: Annotated[datetime | None, Query(alias="to", description="ISO 8601; UTC where it does not say")] = None,
) -> Response:
    """Which worker trained what in a time, and how busy it was. Of more than 2,000 runs, the latest."""
    first, last = _seconds(start), _seconds(end)
    if first is not None and last is not None and first >= last:
        raise UsageError("from must be before to", hint="from=2026-01-31T12:00:00Z&to=2026-01-31T13:00:00Z")
    return answer(request, view, lambda: _workers(view, first, last))


def _workers(view: View, start: float | None, end: float | None) -> Workers:
    found = workers_of(view, start, end)
    runs = sorted((run for one in found for run in one.trained), key=lambda run: (run.started or 0.0, run.key))
    kept = {run.key for run in runs[-MOST_RUNS:]}
    return Workers(
        study=view.name,
        workers=[
            WorkerTold(
                worker=one.name or "unknown",
                runs=[_told(run) for run in one.trained if run.key in kept],
                total=one.runs,
                running=one.running,
                seconds=one.seconds,
                busy=one.busy,
                engines=one.engines,
                devices=one.devices,
                lost=one.lost,
            )
            for one in found
        ],
        note=f"the latest {len(kept):,} of {len(runs):,} runs shown" if len(kept) < len(runs) else "",
    )


@router.get("/losses", response_model=Losses)
@role(Role.READ)
def losses(
    request: Request,
    view: TheView,
    limit: Annotated[int, Query(description="attempts in the answer", ge=1, le=MOST_RUNS)] = 100,
) -> Response:
    """The attempts that were lost with their workers, the latest first; they are tried again."""

    def make() -> Losses:
        found = losses_of(view)
        return Losses(
            study=view.name,
            total=len(found),
            causes=dict(Counter(one.cause for one in found).most_common()),
            losses=[
                LostTold(
                    trial=one.run.trial,
                    seed=one.run.seed,
                    repeat=one.run.repeat,
                    attempt=one.attempt,
                    cause=one.cause,
                    seconds=one.seconds,
                    worker=one.worker,
                )
                for one in list(reversed(found))[:limit]
            ],
        )

    return answer(request, view, make)


def _told(run: Run) -> WorkerRun:
    return WorkerRun(
        trial=run.key.trial,
        seed=run.key.seed,
        repeat=run.key.repeat,
        state=run.state,
        started=None if run.started is None else datetime.fromtimestamp(run.started, UTC),
        ended=None if run.ended is None else datetime.fromtimestamp(run.ended, UTC),
    )


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        raise UsageError(f"{moment} is no time that a record has", hint="2026-01-31T12:00:00Z") from None


@router.get("/decisions", response_model=Decisions)
@role(Role.READ)
def decisions(
    request: Request,
    view: TheView,
    kind: Annotated[str | None, Query(description="only these: `zoom`, `prune`, `race` ...", max_length=40)] = None,
) -> Response:
    """What was decided and why, oldest first."""
    return shaped(request, view, lambda: decisions_of(view, kind))


def decisions_of(view: View, kind: str | None = None) -> dict[str, Any]:
    """The decisions; of a look at the test set that it was, by whom and why, and not what was seen."""
    found = [decision for decision in view.decisions if kind is None or decision.kind == kind]
    return {"study": view.name, "decisions": [shapes.decision(decision) for decision in found]}
