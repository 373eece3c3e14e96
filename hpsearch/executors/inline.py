"""Runs in this process, one after the other: for debugging, with a debugger or a print."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import final

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.objective import Workload
from hpsearch.trial import Lost, Report, RunKey


@final
class InlineExecutor(Executor):
    """This process is the only worker.

    ``poll`` trains the assignment that waits, from beginning to end. What a process of its own gives is missing here:
    ``timeout_s`` cannot be enforced, a crash takes the coordinator with it, and what the training code prints goes to
    the terminal instead of the run's log.

    Args:
        device: ``cpu``, ``cuda:0`` ...; ``auto`` is the first GPU there is, else the CPU.
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._waiting: deque[tuple[Assignment, Workload]] = deque()
        self._stopped: set[RunKey] = set()
        self._said: list[Report] = []
        self._closed = False

    def capacity(self) -> int:
        return 0 if self._closed or self._waiting else 1

    def idle(self) -> int:
        return self.capacity()

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Keep it for the next ``poll``.

        Raises:
            ExecutorError: the executor is closed, or has no room.
        """
        if self._closed or len(assignments) > self.capacity():
            why = "is closed" if self._closed else f"has room for {self.capacity()}"
            raise ExecutorError(f"{len(assignments)} runs were started on an inline executor that {why}")
        for assignment in assignments:
            self._stopped.discard(assignment.run)
            self._waiting.append((assignment, workload))

    def poll(self, timeout_s: float) -> list[Report]:
        """Train what waits and give all its reports; ``timeout_s`` bounds nothing here."""
        if self._waiting:
            from hpsearch.training import worker  # torch: seconds, so only where something is trained

            assignment, workload = self._waiting.popleft()
            worker.execute(
                assignment,
                workload,
                send=self._said.append,
                stopped=lambda: assignment.run in self._stopped,
                device=self._device,
            )
        said, self._said = self._said, []
        return said

    def stop(self, runs: Collection[RunKey], *, now: bool = False) -> None:
        self._stopped.update(runs)
        if not now:
            return
        for waiting in [w for w in self._waiting if w[0].run in self._stopped]:
            self._waiting.remove(waiting)
            self._said.append(Lost(run=waiting[0].run, attempt=waiting[0].attempt, cause="stopped"))

    def close(self) -> None:
        self._closed = True
        self._waiting.clear()
