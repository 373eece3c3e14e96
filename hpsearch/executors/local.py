"""Worker processes on this machine: long-lived, one run at a time each, replaced when a run breaks one."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.executors import _wire as wire
from hpsearch.objective import Workload
from hpsearch.trial import EpochReport, Finished, Grouped, Lost, Report, RunKey, State

#: workers in a row that may die before they can train
FAILED_STARTS = 2
#: seconds that close waits for a guard; it needs milliseconds
_CLOSE_S = 2.0
#: what kills from outside; every other deadly signal is the run's own doing
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from hpsearch.executors._child import main;"
    " main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)


@final
class LocalExecutor(Executor):
    """Worker processes, started when there is work for them and no more than there is work for.

    Every worker has a guard (``_guard.py``), a small process that outlives whatever training code does: it enforces
    ``timeout_s``, writes what the run prints to ``files/<trial>/<seed>[.<repeat>]/log.txt`` (at most 10 MB) and ends
    everything that the worker has started, also when the coordinator is killed.

    Args:
        workers: how many runs at once; None: one for each GPU, or one for each CPU core where there is none.
        device: ``auto`` and ``cuda`` spread the workers over the GPUs; ``cuda:1``, ``cpu`` ... is for all of them.

    Raises:
        ExecutorError: ``workers`` below 1.
    """

    def __init__(self, workers: int | None = None, device: str = "auto") -> None:
        if workers is not None and workers < 1:
            raise ExecutorError(f"workers must be at least 1, not {workers}")
        self._gpus = _gpus() if device in ("auto", "cuda") else []
        self._device = device
        cores = 1 if device.startswith("cuda") else len(os.sched_getaffinity(0))
        self._limit = workers or len(self._gpus) or cores
        self._workers: list[_Worker | None] = [None] * self._limit
        self._leaving: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._said: list[Report] = []
        self._failed_starts = 0
        self._closed = False

    def capacity(self) -> int:
        if self._closed:
            return 0
        return sum(worker is None or worker.job is None for worker in self._workers)

    def idle(self) -> int:
        return self.capacity()

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Give each to a worker that is free, the warm ones first.

        Raises:
            ExecutorError: the executor is closed, or there are more assignments than ``capacity()``.
        """
        if self._closed or len(assignments) > self.capacity():
            why = "is closed" if self._closed else f"has room for {self.capacity()}"
            raise ExecutorError(f"{len(assignments)} runs were started on a local executor that {why}")
        for assignment in assignments:
            free = [place for place, worker in enumerate(self._workers) if worker is None or worker.job is None]
            self._place(min(free, key=lambda place: self._workers[place] is None), assignment, workload)

    def poll(self, timeout_s: float) -> list[Report]:
        """What has been said since the last poll.

        Raises:
            ExecutorError: workers cannot be started; the message holds what the last one printed.
        """
        end = time.monotonic() + timeout_s
        while not self._closed:
            wait = 0.0 if self._said else max(0.0, end - time.monotonic())
            events = self._selector.select(wait)
            for key, _ in events:
                place, worker = key.data
                if self._workers[place] is worker:  # an earlier event of this round may have replaced it
                    self._listen(place, worker, ended=key.fileobj is worker.guard)
            if not events and (self._said or time.monotonic() >= end):
                break
        self._leaving = [worker for worker in self._leaving if not worker.gone()]
        said, self._said = self._said, []
        return said

    def stop(self, runs: Collection[RunKey], *, now: bool = False) -> None:
        for worker in self._workers:
            if worker is not None and worker.job is not None and worker.job[0].run in runs:
                worker.stop(now=now)

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

    def _place(self, place: int, assignment: Assignment, workload: Workload) -> None:
        """Give an assignment to the worker of this place; a fresh one where there is none."""
        worker = self._workers[place]
        if worker is None:
            worker = self._workers[place] = _Worker(*self._home(place), workload.threads)
            self._selector.register(worker.link, selectors.EVENT_READ, (place, worker))
            self._selector.register(worker.guard, selectors.EVENT_READ, (place, worker))
        worker.give(assignment, workload)

    def _home(self, place: int) -> tuple[str, str | None]:
        """(device as the worker sees it, the only GPU that it sees)."""
        if not self._gpus:
            return self._device, None
        return ("cuda:0" if self._device == "cuda" else "auto"), self._gpus[place % len(self._gpus)]

    def _listen(self, place: int, worker: _Worker, *, ended: bool) -> None:
        """Hear all that a worker has said; ``ended``: its guard has spoken, or is gone."""
        try:
            messages = worker.read()
            for message in messages:
                self._hear(place, worker, message)
        except (ValueError, KeyError, TypeError) as error:
            # The training code has written into the socket. The run's result cannot be trusted any more.
            worker.broken = str(error)
            worker.stop(now=True)
        if ended:
            self._bury(place, worker)
        elif worker.silent and self._workers[place] is worker:
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.link)

    def _hear(self, place: int, worker: _Worker, message: Mapping[str, Any]) -> None:
        if message.get("is") == "ready":
            worker.ready, worker.pid, self._failed_starts = True, int(message["pid"]), 0
            return
        report = wire.unpack_report(message["report"])
        if isinstance(report, Grouped):
            return
        if worker.job is None or (report.run, report.attempt) != (worker.job[0].run, worker.job[0].attempt):
            return
        self._said.append(report)
        if isinstance(report, EpochReport):
            return
        isolate = worker.job[1].isolate
        worker.job = None
        # After a CUDA error the context of the process is unusable, for every further run.
        cuda = isinstance(report, Finished) and report.state is State.FAILED and "CUDA" in report.reason + report.error
        if isolate or cuda or message.get("retire"):
            self._dismiss(place, worker)

    def _dismiss(self, place: int, worker: _Worker) -> None:
        for source in (worker.link, worker.guard):
            with contextlib.suppress(KeyError):
                self._selector.unregister(source)
        self._workers[place] = None
        self._leaving.append(worker)
        worker.hang_up()

    def _bury(self, place: int, worker: _Worker) -> None:
        """A worker is dead: say what became of its run, or give that to another worker if it had not begun."""
        ending, job = worker.ending(), worker.job
        self._dismiss(place, worker)
        if not worker.ready and not worker.stopped:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                output = ending.get("output") or worker.printed() or f"status {ending.get('status')}"
                raise ExecutorError(f"{self._failed_starts} workers in a row could not start:\n{output}")
        if job is None:
            return
        if worker.stopped or worker.broken or not ending or ending["begun"] == worker.given:
            self._said.append(_obituary(*job, ending, worker))
        else:
            self._place(place, *job)


@final
class _Worker:
    """The coordinator's side of one worker process and its guard."""

    def __init__(self, device: str, gpu: str | None, threads: int) -> None:
        self.link, theirs = socket.socketpair()
        self.guard, boss = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - what Python says if not even the guard starts
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        arguments = [json.dumps(sys.path), str(theirs.fileno()), str(boss.fileno()), device]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(theirs.fileno(), boss.fileno()),
            env=environment,
            start_new_session=True,
        )
        theirs.close()
        boss.close()
        self._buffer = bytearray()
        #: the assignment in hand and its workload; None while free
        self.job: tuple[Assignment, Workload] | None = None
        self.given = 0
        self.ready = False
        #: the other end of ``link`` is closed; the guard will say why
        self.silent = False
        self.pid: int | None = None
        self.stopped = False
        #: what was wrong with a message; empty while all is well
        self.broken = ""

    def give(self, assignment: Assignment, workload: Workload) -> None:
        self.job, self.stopped = (assignment, workload), False
        self.given += 1
        message = {"assignment": wire.pack_assignment(assignment), "workload": wire.pack_workload(workload)}
        # A worker that has just died is seen by its guard, and the assignment goes to another.
        with contextlib.suppress(OSError):
            self.link.sendall(wire.frame({"is": "assignment", **message}))

    def stop(self, *, now: bool) -> None:
        assert self.job is not None or now
        with contextlib.suppress(OSError):
            if now:
                self.stopped = True
                self.guard.sendall(b"k")
            elif self.job is not None:
                run, attempt = self.job[0].run, self.job[0].attempt
                # A worker that does not read (it hangs) must not hold the coordinator.
                self.link.send(wire.frame({"is": "stop", "run": run, "attempt": attempt}), socket.MSG_DONTWAIT)

    def read(self) -> list[dict[str, Any]]:
        """The messages that are there."""
        try:
            while data := self.link.recv(1 << 18, socket.MSG_DONTWAIT):
                self._buffer += data
            self.silent = True
        except BlockingIOError:
            pass
        except ConnectionResetError:  # it has died with something unread
            self.silent = True
        return wire.unframe(self._buffer)

    def ending(self) -> dict[str, Any]:
        """What the guard says of the worker's death; empty where the guard itself was killed."""
        text = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.guard.recv(1 << 16):
                text += data
        return dict(json.loads(text)) if text else {}

    def printed(self) -> str:
        """What the guard itself has printed: why Python could not start."""
        self._output.seek(0)
        return self._output.read().decode(errors="backslashreplace").strip()

    def hang_up(self) -> None:
        """Tell the guard that all is over."""
        self.link.close()
        self.guard.close()

    def gone(self) -> bool:
        """Reap the guard; True once it has ended."""
        if self._process.poll() is None:
            return False
        self._output.close()
        return True

    def bury(self, timeout_s: float) -> None:
        """Wait for the guard's end; force it after ``timeout_s``."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the worker dies with it
            self._process.wait()
        self._output.close()


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def _obituary(assignment: Assignment, workload: Workload, ending: Mapping[str, Any], worker: _Worker) -> Report:
    """The last report of a run whose worker is dead."""
    run, attempt = assignment.run, assignment.attempt
    who = f"{socket.gethostname()}:{worker.pid}"
    seconds = float(ending.get("seconds", 0.0))
    output = str(ending.get("output", ""))

    def failed(reason: str, error: str) -> Finished:
        return Finished(
            run=run,
            attempt=attempt,
            state=State.FAILED,
            reason=reason,
            error=f"{error}\n\n{output}".strip(),
            seconds=seconds,
            worker=who,
        )

    if worker.broken:
        return failed("protocol", f"the worker sent something that is no report: {worker.broken}")
    if worker.stopped:
        return Lost(run=run, attempt=attempt, cause="stopped", seconds=seconds, worker=who)
    if ending.get("timed_out"):
        return failed("timeout", f"ran longer than {workload.timeout_s:g} s")
    status = int(ending.get("status", signal.SIGKILL))
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        return failed(f"exit:{code}", f"the training code ended its process with exit code {code}")
    number = os.WTERMSIG(status)
    if number in _OUTSIDE:
        return Lost(run=run, attempt=attempt, cause=f"signal:{number}", seconds=seconds, worker=who)
    name = signal.strsignal(number) or "unknown signal"
    return failed(f"signal:{number}", f"the process was ended by signal {number} ({name})")


def _gpus() -> list[str]:
    """The CUDA devices as CUDA_VISIBLE_DEVICES names them, without importing torch: that costs seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [] if "-1" in names else [name for name in names if name]
    return [str(k) for k in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
