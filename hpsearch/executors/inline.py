"""Runs in this process, one after the other or fused: for debugging, with a debugger or a print."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, final

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.objective import Workload
from hpsearch.trial import Lost, Report, RunKey

if TYPE_CHECKING:
    from hpsearch.training.groups import Trainer


@final
class InlineExecutor(Executor):
    """This process is the only worker.

    ``poll`` trains the assignments that wait, from beginning to end. What a process of its own gives is missing here:
    ``timeout_s`` cannot be enforced, a crash takes the coordinator with it, and what the training code prints goes to
    the terminal instead of the run's log.

    Args:
        device: ``cpu``, ``cuda:0`` ...; ``auto`` is the first GPU there is, else the CPU.
        lanes: how many runs it takes at once.

    Raises:
        ExecutorError: ``lanes`` below 1.
    """

    def __init__(self, device: str = "auto", lanes: int = 1) -> None:
        if lanes < 1:
            raise ExecutorError(f"lanes must be at least 1, not {lanes}")
        self._device, self._lanes = device, lanes
        self._waiting: list[tuple[Assignment, Workload]] = []
        self._stopped: set[RunKey] = set()
        self._said: list[Report] = []
        self._closed = False
        self._trainer: Trainer | None = None

    def capacity(self) -> int:
        grouped = any(assignment.group is not None for assignment, _ in self._waiting)
        return 0 if self._closed or grouped else self._lanes - len(self._waiting)

    def idle(self) -> int:
        return 0 if self._closed or self._waiting else 1

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Keep them for the next ``poll``.

        Raises:
            ExecutorError: the executor is closed, or has no room; a group is not alone.
        """
        if self._closed or len(assignments) > self.capacity():
            why = "is closed" if self._closed else f"has room for {self.capacity()}"
            raise ExecutorError(f"{len(assignments)} runs were started on an inline executor that {why}")
        groups = {assignment.group for assignment in assignments}
        if groups - {None} and len(groups) > self.idle():
            raise ExecutorError("a group was started on an inline executor beside other runs")
        for assignment in assignments:
            self._stopped.discard(assignment.run)
            self._waiting.append((assignment, workload))

    def poll(self, timeout_s: float) -> list[Report]:
        """Train what waits and give all its reports; ``timeout_s`` bounds nothing here."""
        waiting, self._waiting = self._waiting, []
        for workload, share in groupby(waiting, lambda job: job[1]):
            from hpsearch.training.groups import Trainer  # torch: seconds, so only where something is trained

            self._trainer = self._trainer or Trainer(self._device)
            self._trainer.train(
                [assignment for assignment, _ in share],
                workload,
                send=self._said.extend,
                stopped=self._stopped.__contains__,
                more=tuple,
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
        self._closed, self._trainer = True, None
        self._waiting.clear()
