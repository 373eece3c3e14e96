"""Worker processes on this machine: long-lived, each with as many runs as it has lanes, replaced when one breaks it."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, final

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.executors import _wire as wire
from hpsearch.executors._shares import spread
from hpsearch.executors._worker import Worker
from hpsearch.objective import Workload
from hpsearch.trial import Finished, Grouped, PausedReport, Report, RunKey, State

#: workers in a row that may die before they can train
FAILED_STARTS = 2
#: seconds that a poll goes on to listen when something has been said
GATHER_S = 0.1
#: seconds that close waits for a guard; it needs milliseconds
_CLOSE_S = 2.0


@final
class LocalExecutor(Executor):
    """Worker processes, started when there is work for them and no more than there is work for; one may come up ahead.

    Every worker has a guard (``_guard.py``), a small process that outlives whatever training code does: it enforces
    ``timeout_s`` (K runs in hand may be silent for K times as long: each takes its own time, and the worker ends those
    that have had it), writes what is printed to ``files/<trial>/<seed>[.<repeat>]/log.txt``, or to one log of the runs
    that train together (at most 10 MB each), and ends everything that the worker has started, also when the coordinator
    is killed.

    Args:
        workers: how many processes; None: one for each GPU, or one for each CPU core where there is none.
        device: ``auto`` and ``cuda`` spread the workers over the GPUs; ``cuda:1``, ``cpu`` ... is for all of them.
        lanes: how many runs a worker takes at once. Must be 1 for workloads that are ``isolate``.
        bell: what comes out of it ends the poll that waits: another thread has something to say.

    Raises:
        ExecutorError: ``workers`` or ``lanes`` below 1.
    """

    def __init__(
        self, workers: int | None = None, device: str = "auto", lanes: int = 1, bell: socket.socket | None = None
    ) -> None:
        for name, number in (("workers", workers), ("lanes", lanes)):
            if number is not None and number < 1:
                raise ExecutorError(f"{name} must be at least 1, not {number}")
        self._gpus = gpus() if device in ("auto", "cuda") else []
        self._device, self._lanes = device, lanes
        self._limit = processes(workers, device)
        self._workers: list[Worker | None] = [None] * self._limit
        self._leaving: list[Worker] = []
        self._selector = selectors.DefaultSelector()
        if bell is not None:
            self._selector.register(bell, selectors.EVENT_READ)
        self._said: list[Report] = []
        self._failed_starts = 0
        self._closed = False

    def capacity(self) -> int:
        return 0 if self._closed else sum(self._room(place) for place in range(self._limit))

    def idle(self) -> int:
        return 0 if self._closed else sum(self._room(place) == self._lanes for place in range(self._limit))

    def warm(self, workload: Workload) -> None:
        """Start a first worker ahead of its work: it imports torch, some seconds, while its coordinator does others."""
        if not self._closed and self._workers[0] is None:
            self._hire(0, workload)

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Make what workers have even, the warm ones first (``_shares``); a group goes to one that has none.

        Raises:
            ExecutorError: the executor is closed, there are more assignments than ``capacity()`` or more groups than
                ``idle()``, or one is larger than a worker's lanes.
        """
        if self._closed or len(assignments) > self.capacity():
            why = "is closed" if self._closed else f"has room for {self.capacity()}"
            raise ExecutorError(f"{len(assignments)} runs were started on a local executor that {why}")
        rooms = {place: self._room(place) for place in range(self._limit)}
        cold = {place for place, worker in enumerate(self._workers) if worker is None}
        for place, share in spread(assignments, rooms, self._lanes, cold, "a local executor").items():
            self._give(place, share, workload)

    def poll(self, timeout_s: float) -> list[Report]:
        """What has been said since the last poll.

        Raises:
            ExecutorError: workers cannot be started; the message holds what the last one printed.
        """
        began = time.monotonic()
        while not self._closed:
            wait = 0.0 if self._said else max(0.0, began + timeout_s - time.monotonic())
            events = self._selector.select(wait)
            rung = False
            for key, mask in events:
                if key.data is None:
                    rung = bool(os.read(key.fd, 4096))
                    continue
                place, worker = key.data
                if self._workers[place] is not worker:  # an earlier event of this round may have replaced it
                    continue
                if mask & selectors.EVENT_WRITE:
                    worker.push()
                    self._watch(place, worker)
                if mask & selectors.EVENT_READ:
                    self._listen(place, worker, ended=key.fileobj is worker.guard)
            end = began + (GATHER_S if self._said else timeout_s)
            if rung or (self._said and not events) or time.monotonic() >= end:
                break
        self._leaving = [worker for worker in self._leaving if not worker.gone()]
        said, self._said = self._said, []
        return said

    def stop(self, runs: Collection[RunKey], *, now: bool = False) -> None:
        """End these runs. ``now`` ends the workers that have them, and the other runs of these (``stopped`` too)."""
        wanted = set(runs)
        for place, worker in enumerate(self._workers):
            if worker is None or wanted.isdisjoint(worker.jobs):
                continue
            if now:
                worker.kill("stopped")
            else:
                worker.stop(wanted)
                self._watch(place, worker)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        workers = [*self._leaving, *(worker for worker in self._workers if worker is not None)]
        self._leaving, self._workers = [], [None] * self._limit
        self._selector.close()
        for worker in workers:
            worker.hang_up()
        end = time.monotonic() + _CLOSE_S
        for worker in workers:
            worker.bury(max(0.05, end - time.monotonic()))

    def _room(self, place: int) -> int:
        worker = self._workers[place]
        return self._lanes if worker is None else worker.room(self._lanes)

    def _give(self, place: int, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Give assignments to the worker of this place; a fresh one where there is none."""
        worker = self._workers[place] or self._hire(place, workload)
        worker.give(assignments, workload)
        self._watch(place, worker)

    def _hire(self, place: int, workload: Workload) -> Worker:
        worker = self._workers[place] = Worker(*self._home(place), workload.threads)
        self._selector.register(worker.link, selectors.EVENT_READ, (place, worker))
        self._selector.register(worker.guard, selectors.EVENT_READ, (place, worker))
        return worker

    def _watch(self, place: int, worker: Worker) -> None:
        """Wait for room in its socket exactly while there is something to send."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.sending else 0)
        with contextlib.suppress(KeyError):  # it is silent already
            self._selector.modify(worker.link, events, (place, worker))

    def _home(self, place: int) -> tuple[str, str | None]:
        """(device as the worker sees it, the only GPU that it sees)."""
        if not self._gpus:
            return self._device, None
        return ("cuda:0" if self._device == "cuda" else "auto"), self._gpus[place % len(self._gpus)]

    def _listen(self, place: int, worker: Worker, *, ended: bool) -> None:
        """Hear all that a worker has said; ``ended``: its guard has spoken, or is gone."""
        try:
            for message in worker.read():
                if worker.doom in ("", "stopped"):
                    self._hear(place, worker, message)
        except (ValueError, KeyError, TypeError) as error:
            # The training code has written into the socket. What the worker says cannot be trusted any more.
            worker.kill("protocol", str(error))
        if ended:
            self._bury(place, worker)
        elif worker.silent and self._workers[place] is worker:
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.link)

    def _hear(self, place: int, worker: Worker, message: Mapping[str, Any]) -> None:
        if message.get("is") == "ready":
            worker.pid, self._failed_starts = wire.whole(message["pid"]), 0
        elif message.get("is") == "begun":
            worker.begin(wire.run_keys(message["runs"]), message["at"])
        else:
            self._take(place, worker, wire.unpack_reports(message["reports"]), retire=bool(message.get("retire")))

    def _take(self, place: int, worker: Worker, reports: Sequence[Report], *, retire: bool) -> None:
        """Keep what it says of the runs that it has in hand."""
        failed = [report for report in reports if isinstance(report, Finished) and report.state is State.FAILED]
        if worker.together and any("CUDA error" in report.error for report in failed):
            # The context of the process is unusable, and nobody knows whose doing it was.
            worker.kill("cuda")
            return
        for report in reports:
            if isinstance(report, Grouped):
                if runs := tuple(run for run in report.runs if run in worker.jobs):
                    self._said.append(replace(report, runs=runs))
                continue
            if not worker.has_begun(report):
                continue
            self._said.append(report)
            if isinstance(report, Finished | PausedReport):
                isolate = worker.jobs.pop(report.run).workload.isolate
                retire = retire or isolate
        # After a CUDA error the context of the process is unusable, for every further run.
        cuda = any("CUDA" in report.reason + report.error for report in failed)
        worker.retiring = worker.retiring or retire or cuda
        if worker.retiring and not worker.jobs:
            self._dismiss(place, worker)

    def _dismiss(self, place: int, worker: Worker) -> None:
        for source in (worker.link, worker.guard):
            with contextlib.suppress(KeyError):
                self._selector.unregister(source)
        self._workers[place] = None
        self._leaving.append(worker)
        worker.hang_up()

    def _bury(self, place: int, worker: Worker) -> None:
        """A worker is dead: say what became of its runs, or give those that it had not begun to another worker."""
        worker.hear_end()
        self._dismiss(place, worker)
        if not worker.ready and not worker.doom:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise ExecutorError(f"{self._failed_starts} workers in a row could not start:\n{worker.printed()}")
        said, again = worker.last_words()
        self._said += said
        for workload, jobs in groupby(again, lambda job: job.workload):
            self._give(place, [job.assignment for job in jobs], workload)


def processes(workers: int | None, device: str) -> int:
    """How many worker processes there are: ``workers``, else one for each GPU of the device, else one for each core."""
    found = gpus() if device in ("auto", "cuda") else []
    return workers or len(found) or (1 if device.startswith("cuda") else len(os.sched_getaffinity(0)))


def gpus() -> list[str]:
    """The CUDA devices as CUDA_VISIBLE_DEVICES names them; torch is not imported, because that costs seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [] if "-1" in names else [name for name in names if name]
    return [str(k) for k in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
