"""How a study went: the rounds of its strategy, its workers over time, what was decided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from hpsearch import shapes
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, answer, shaped
from hpsearch.dashboard.api.conclusions import (
    Decisions,
    Round,
    Rounds,
    Worker,
    WorkerRun,
    Workers,
)
from hpsearch.dashboard.api.models import BestTrial
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheView
from hpsearch.errors import UsageError
from hpsearch.parameter import Categorical
from hpsearch.strategy import Decision
from hpsearch.trial import Run, State, Trial, best_trials

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["studies"], responses=UNCHANGED)
#: runs in one answer
MOST_RUNS = 2000


@router.get("/rounds", response_model=Rounds)
@role(Role.READ)
def rounds(request: Request, view: TheView) -> Response:
    """The trials by round, with the windows that coarse-to-fine drew them from and why."""
    return answer(request, view, lambda: rounds_of(view))


def rounds_of(view: View) -> Rounds:
    """The rounds of a study, from the first to the last that has a trial."""
    own = [trial for trial in view.trials if not trial.baseline]
    zooms: dict[int, dict[str, Decision]] = defaultdict(dict)
    for decision in view.decisions:
        if decision.kind == "zoom":
            zooms[decision.batch + 1][decision.subject] = decision
    windows: dict[str, Sequence[float]] = {}
    if zooms or view.subject.strategy == "coarse_to_fine":
        numeric = {n: p for n, p in view.subject.space.searched.items() if not isinstance(p, Categorical)}
        windows = {name: [p.low, p.high] for name, p in numeric.items()}
    by_round: dict[int, list[Trial]] = defaultdict(list)
    for trial in own:
        by_round[trial.batch].append(trial)
    made: list[Round] = []
    top: list[Trial] = []
    for k in range(max(by_round, default=-1) + 1):
        windows = windows | {n: z.details["new"] for n, z in zooms[k].items() if z.details.get("new")}
        top = best_trials([*top, *by_round[k]], view.direction, 1)
        made.append(
            Round(
                round=k,
                trials=len(by_round[k]),
                complete=_count(by_round[k], State.COMPLETE),
                diverged=_count(by_round[k], State.DIVERGED),
                failed=_count(by_round[k], State.FAILED),
                best=_best(top[0]) if top else None,
                windows=windows,
                reasons=[zoom.reason for zoom in zooms[k].values()],
            )
        )
    return Rounds(study=view.name, strategy=view.subject.strategy, rounds=made)


def _best(trial: Trial) -> BestTrial:
    assert trial.value is not None
    return BestTrial(trial=trial.number, value=trial.value, sd=trial.sd)


def _count(trials: Sequence[Trial], state: State) -> int:
    return sum(trial.state is state for trial in trials)


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
    return answer(request, view, lambda: workers_of(view, first, last))


def workers_of(view: View, start: float | None, end: float | None) -> Workers:
    """The runs that were trained between two moments (seconds since 1970), by worker."""
    runs = [
        run
        for trial in view.trials
        for run in trial.runs
        if run.started is not None
        and (end is None or _whole(run.started) < end)
        and (start is None or run.ended is None or _whole(run.ended) > start)
    ]
    kept = {run.key for run in sorted(runs, key=lambda run: (run.started, run.key))[-MOST_RUNS:]}
    spans = [_span(run, view.summary.updated) for run in runs]
    first = max(min((a for a, _ in spans), default=0.0), start or 0.0)
    last = min(max((b for _, b in spans), default=0.0), math.inf if end is None else end)
    by_worker: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_worker[run.worker or "unknown"].append(run)
    return Workers(
        study=view.name,
        workers=[
            Worker(
                worker=name,
                runs=[_told(run) for run in own if run.key in kept],
                total=len(own),
                busy=_busy([_span(run, view.summary.updated) for run in own], first, last),
            )
            for name, own in sorted(by_worker.items())
        ],
        note=f"the latest {len(kept):,} of {len(runs):,} runs shown" if len(kept) < len(runs) else "",
    )


def _whole(seconds: float) -> float:
    """A time as it is told, to the microsecond: `from` may be the end of a run, which is then not in the answer."""
    return datetime.fromtimestamp(seconds, UTC).timestamp()


def _span(run: Run, now: float) -> tuple[float, float]:
    start = run.started or 0.0
    return start, run.ended if run.ended is not None else max(start, now)


def _busy(spans: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """The share of a time in which one of the spans was."""
    covered, reached = 0.0, start
    for a, b in sorted(spans):
        covered += max(0.0, min(b, end) - max(a, reached))
        reached = max(reached, min(b, end))
    return covered / (end - start) if end > start else 0.0


def _told(run: Run) -> WorkerRun:
    assert run.started is not None
    return WorkerRun(
        trial=run.key.trial,
        seed=run.key.seed,
        repeat=run.key.repeat,
        state=run.state,
        started=datetime.fromtimestamp(run.started, UTC),
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
