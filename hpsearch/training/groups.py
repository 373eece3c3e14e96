"""All runs that a worker has in hand: put into groups, trained together where they can be, else one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from hpsearch.executor import Assignment
from hpsearch.objective import Workload
from hpsearch.training import worker
from hpsearch.trial import Report, RunKey


def execute_all(
    assignments: Sequence[Assignment],
    workload: Workload,
    *,
    send: Callable[[Sequence[Report]], None],
    stopped: Callable[[RunKey], bool],
    more: Callable[[], Sequence[Assignment]],
    device: str,
) -> None:
    """Make an attempt at each: epoch reports as they come, and for each in the end one Finished or PausedReport.

    Args:
        assignments: the runs in hand, at most ``workload.lanes``.
        workload: what all runs of the study share.
        send: takes the reports of one moment: those of an epoch of a group go together.
        stopped: True when the run is to end at its next report (Finished, cancelled).
        more: runs that have been given meanwhile; asked between epochs, so that they fill lanes that are free.
        device: ``cpu``, ``cuda:0`` ...; ``auto`` is the first GPU there is, else the CPU.
    """
    waiting = deque(assignments)
    while waiting:
        assignment = waiting.popleft()
        worker.execute(
            assignment,
            workload,
            send=lambda report: send([report]),
            stopped=lambda run=assignment.run: stopped(run),  # type: ignore[misc]
            device=device,
        )
        waiting.extend(more())
