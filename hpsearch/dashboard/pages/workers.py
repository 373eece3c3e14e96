"""Who trained what, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheView
from hpsearch.figures import timeline
from hpsearch.trial import Lost, Run, State

router = APIRouter(include_in_schema=False)
#: rows of a table
MOST = 50


@final
@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker, by what it has in the record."""

    #: ``host:pid``; empty where nobody said
    name: str
    runs: int
    #: that it has in hand now
    running: int
    #: of training; of runs that train together, each has its share
    seconds: float
    #: share of the time between its first and last run that it had one, 0 to 1; None without an ended run
    busy: float | None
    engines: Sequence[str]
    devices: Sequence[str]
    lost: int


def workers_of(view: View) -> list[Worker]:
    """The workers that had runs or lost some, those with most runs first."""
    by_name: dict[str, list[Run]] = {}
    for trial in view.trials:
        for run in trial.runs:
            if run.worker or run.state.final:
                by_name.setdefault(run.worker, []).append(run)
    lost = Counter(one.worker for one in view.archive.losses(view.name))
    found = [
        Worker(
            name=name,
            runs=len(runs),
            running=sum(run.state is State.RUNNING for run in runs),
            seconds=sum(run.seconds for run in runs),
            busy=timeline.busy([run for run in runs if run.started is not None and run.ended is not None]),
            engines=list(dict.fromkeys(run.engine for run in runs if run.engine)),
            devices=list(dict.fromkeys(run.environment.device for run in runs if run.environment)),
            lost=lost[name],
        )
        for name, runs in ((name, by_name.get(name, [])) for name in dict.fromkeys([*by_name, *lost]))
    ]
    return sorted(found, key=lambda worker: -worker.runs)


@router.get("/s/{study}/workers", response_class=HTMLResponse)
@role(Role.READ)
def workers(request: Request, view: TheView) -> HTMLResponse:
    """A lane each, a row each; what was lost."""
    found: Sequence[Worker] = view.once("workers", lambda: workers_of(view))
    lost: Sequence[Lost] = view.once("losses", lambda: view.archive.losses(view.name))
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
