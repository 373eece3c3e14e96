"""Two lanes in this process: cheap, and the same statements in the same order at every start.

What they train is trained by the code of a real worker (``training.worker.execute``); only the workers are no processes
of their own. Each start is written down outside the database before anything else happens: a worker would know of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.objective import Workload
from hpsearch.training.worker import execute
from hpsearch.trial import Finished, Lost, Report, RunKey, State

#: the run whose first worker is killed
LOST = RunKey(2, 1)
#: what a late report says: no run is as good
LATE = -1000.0


@dataclass
class Lane:
    """One run in hand: all that is still to be heard of it."""

    run: RunKey
    attempt: int
    said: list[Report] = field(default_factory=list)


@final
class LaneExecutor(Executor):
    """The first lane says all it has at once, the second one report at a time.

    A run that begins again has lost a worker before: that one's report comes late, and must not count.

    Args:
        log: the file that starts are appended to, a line of JSON each.
    """

    def __init__(self, log: Path) -> None:
        self._lanes: list[Lane | None] = [None, None]
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._began: set[tuple[RunKey, int]] = set()
        #: late reports that were handed out
        self.late = 0

    def note(self, **what: Any) -> None:
        """A line of the log."""
        os.write(self._log, (json.dumps(what) + "\n").encode())

    def capacity(self) -> int:
        return self._lanes.count(None)

    def idle(self) -> int:
        return self._lanes.count(None)

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        if len(assignments) > self.capacity():
            raise ExecutorError(f"{len(assignments)} runs for {self.capacity()} lanes")
        for assignment in assignments:
            self.note(started=list(assignment.run), attempt=assignment.attempt, params=dict(assignment.params))
            lane = Lane(assignment.run, assignment.attempt, self._train(assignment, workload))
            self._lanes[self._lanes.index(None)] = lane

    def poll(self, timeout_s: float) -> list[Report]:
        heard: list[Report] = []
        for place, lane in enumerate(self._lanes):
            if lane is None:
                continue
            count = len(lane.said) if place == 0 else 1
            heard += lane.said[:count]
            del lane.said[:count]
            if not lane.said:
                self._lanes[place] = None
        self.late += sum(isinstance(report, Finished) and report.value == LATE for report in heard)
        return heard

    def stop(self, runs: Collection[RunKey], *, now: bool = False) -> None:
        for lane in self._lanes:
            if lane is not None and lane.run in runs:
                lane.said = [Lost(run=lane.run, attempt=lane.attempt, cause="stopped")]

    def close(self) -> None:
        self._lanes = [None, None]
        os.close(self._log)

    def _train(self, assignment: Assignment, workload: Workload) -> list[Report]:
        key, attempt, said = assignment.run, assignment.attempt, list[Report]()
        if attempt > 1 and (key, attempt) not in self._began:
            said.append(Finished(run=key, attempt=attempt - 1, state=State.COMPLETE, value=LATE, last_epoch=0))
        self._began.add((key, attempt))
        if key == LOST and attempt == 1:
            return [Lost(run=key, attempt=1, cause="signal:9", worker="lane")]
        execute(assignment, workload, send=said.append, stopped=lambda: False, device="cpu")
        return said
