"""Who trained what and when, by what is in the record; what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import final

from hpsearch.dashboard.record import View
from hpsearch.figures import timeline
from hpsearch.trial import Lost, Run, State


@final
@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker, by the runs that it had."""

    #: ``host:pid``; empty where nobody said
    name: str
    #: by trial and seed
    trained: Sequence[Run]
    #: that it has in hand now
    running: int
    #: of training; of runs that train together, each has its share
    seconds: float
    #: share of the time between its first run's beginning and its last one's end in which it had one, 0 to 1; None
    #: without one that has ended
    busy: float | None
    engines: Sequence[str]
    devices: Sequence[str]
    #: attempts, whenever that was
    lost: int

    @property
    def runs(self) -> int:
        """How many it had."""
        return len(self.trained)


def losses_of(view: View) -> Sequence[Lost]:
    """The attempts that were lost with their workers, oldest first."""
    return view.once("losses", lambda: view.archive.losses(view.name))


def workers_of(view: View, start: float | None = None, end: float | None = None) -> Sequence[Worker]:
    """The workers that had runs or lost some, those with most runs first.

    Args:
        view: of the study.
        start, end: seconds since 1970: only the runs that were trained between them, and the workers that had some.
    """
    if start is None and end is None:
        return view.once("workers", lambda: _workers(view, None, None))
    return _workers(view, start, end)


def _workers(view: View, start: float | None, end: float | None) -> list[Worker]:
    by_name: dict[str, list[Run]] = {}
    for trial in view.trials:
        for run in trial.runs:
            if _is_within(run, start, end):
                by_name.setdefault(run.worker, []).append(run)
    lost = Counter(one.worker for one in losses_of(view))
    names = by_name if start is not None or end is not None else dict.fromkeys([*by_name, *lost])
    found = [_worker(name, by_name.get(name, []), lost[name]) for name in names]
    return sorted(found, key=lambda worker: (-worker.runs, worker.name))


def _worker(name: str, runs: Sequence[Run], lost: int) -> Worker:
    return Worker(
        name=name,
        trained=runs,
        running=sum(run.state is State.RUNNING for run in runs),
        seconds=sum(run.seconds for run in runs),
        busy=timeline.busy([run for run in runs if run.started is not None and run.ended is not None]),
        engines=list(dict.fromkeys(run.engine for run in runs if run.engine)),
        devices=list(dict.fromkeys(run.environment.device for run in runs if run.environment)),
        lost=lost,
    )


def _is_within(run: Run, start: float | None, end: float | None) -> bool:
    if run.started is None:
        return start is None and end is None and bool(run.worker or run.state.final)
    return (end is None or _whole(run.started) < end) and (
        start is None or run.ended is None or _whole(run.ended) > start
    )


def _whole(seconds: float) -> float:
    """A time as it is told, to the microsecond: a window may begin with the end of a run, which is then not in it."""
    return datetime.fromtimestamp(seconds, UTC).timestamp()
