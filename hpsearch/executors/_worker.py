"""The coordinator's side of one worker process of the local executor: what it has in hand, and how it ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from hpsearch.executor import Assignment
from hpsearch.executors import _wire as wire
from hpsearch.objective import Workload
from hpsearch.trial import Finished, Lost, Report, RunKey, RunReport, State

#: what kills from outside; every other deadly signal is the run's own doing
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from hpsearch.executors._child import main;"
    " main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@final
@dataclass(kw_only=True)
class Job:
    """An assignment that a worker has in hand."""

    assignment: Assignment
    workload: Workload
    #: when the worker began it, by the monotonic clock that all processes of a machine share; None before
    begun: float | None = None


@final
class Worker:
    """One worker process and its guard.

    Args:
        device: as the worker sees it.
        gpu: the only GPU that it sees; None: all.
        threads: of the libraries that count them in the environment.
    """

    def __init__(self, device: str, gpu: str | None, threads: int) -> None:
        self.link, theirs = socket.socketpair()
        # A group says much at once: it goes on training while the coordinator writes what it said before.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
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
        self._inbox, self._outbox = bytearray(), bytearray()
        self.jobs: dict[RunKey, Job] = {}
        self.pid: int | None = None
        #: takes no more runs, and leaves when it has ended those in hand
        self.retiring = False
        #: the other end of ``link`` is closed; the guard will say why
        self.silent = False
        #: why it was killed from here: ``stopped``, ``protocol``, ``cuda``; empty while it was not
        self.doom = ""
        self._wrong = ""
        self._ending: dict[str, Any] = {}

    @property
    def ready(self) -> bool:
        """True once it could train."""
        return self.pid is not None

    @property
    def sending(self) -> bool:
        """True while there is more to send than it has taken."""
        return bool(self._outbox)

    def room(self, lanes: int) -> int:
        """How many more runs it takes: none beside a group that is to be alone."""
        alone = any(job.assignment.group is not None for job in self.jobs.values())
        return 0 if alone or self.retiring or self.doom else lanes - len(self.jobs)

    def give(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Hand these over, as one message."""
        self.jobs |= {a.run: Job(assignment=a, workload=workload) for a in assignments}
        packed = [wire.pack_assignment(assignment) for assignment in assignments]
        self._send({"is": "assignments", "assignments": packed, "workload": wire.pack_workload(workload)})

    def stop(self, runs: Collection[RunKey]) -> None:
        """Ask it to end those of these runs that it has at their next report."""
        mine = [[*run, job.assignment.attempt] for run, job in self.jobs.items() if run in runs]
        if mine:
            self._send({"is": "stop", "runs": mine})

    def kill(self, cause: str, wrong: str = "") -> None:
        """End it now; ``wrong``: what was wrong with a message of it."""
        self.doom, self._wrong = self.doom or cause, wrong
        with contextlib.suppress(OSError):
            self.guard.sendall(b"k")

    def push(self) -> None:
        """Send what it takes now. A worker that does not read (it trains, it hangs) must not hold the coordinator."""
        try:
            while self._outbox:
                del self._outbox[: self.link.send(self._outbox, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            pass
        except OSError:  # it has just died: its guard says so, and what it has not begun goes to another
            self._outbox.clear()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._outbox += wire.frame(message)
        self.push()

    def read(self) -> Iterator[dict[str, Any]]:
        """The messages that are there.

        Raises:
            ValueError: behind those that are whole, where something else was written.
        """
        try:
            while data := self.link.recv(1 << 18, socket.MSG_DONTWAIT):
                self._inbox += data
            self.silent = True
        except BlockingIOError:
            pass
        except ConnectionResetError:  # it has died with something unread
            self.silent = True
        return wire.unframe(self._inbox)

    def begin(self, keys: Sequence[tuple[RunKey, int]], at: object) -> None:
        """It says that it has begun these."""
        now = time.monotonic()
        true = isinstance(at, float) and math.isfinite(at) and at <= now
        for run, attempt in keys:
            job = self.jobs.get(run)
            if job is not None and job.assignment.attempt == attempt and job.begun is None:
                job.begun = float(at) if true else now  # type: ignore[arg-type]

    def has_begun(self, report: RunReport) -> bool:
        """Whether the report is of an attempt that it has in hand and has begun."""
        job = self.jobs.get(report.run)
        return job is not None and job.begun is not None and job.assignment.attempt == report.attempt

    @property
    def together(self) -> bool:
        """Whether it has begun several of those in hand."""
        return sum(job.begun is not None for job in self.jobs.values()) > 1

    def hear_end(self) -> None:
        """Take what the guard says of the worker's death: nothing where the guard itself was killed."""
        text = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.guard.recv(1 << 16):
                text += data
        self._ending = dict(json.loads(text)) if text else {}

    def printed(self) -> str:
        """What a dead worker has printed at last; what its guard has, where not even that could start."""
        self._output.seek(0)
        own = self._output.read().decode(errors="backslashreplace").strip()
        return str(self._ending.get("output") or own or f"status {self._ending.get('status')}")

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

    def last_words(self) -> tuple[list[Report], list[Job]]:
        """What became of the runs that a dead worker had in hand, and those that another worker can begin.

        A run that was alone has failed where it ended the process itself. Where there were several, nobody knows whose
        doing it was: all are ``Lost``, each with the others as its company.
        """
        jobs = list(self.jobs.values())
        lost = [job for job in jobs if job.begun is not None]
        if self.doom == "stopped" or (self.doom and not lost):
            lost = jobs
        runs = tuple(job.assignment.run for job in lost)
        return [self._obituary(job, runs) for job in lost], [job for job in jobs if job not in lost]

    def _obituary(self, job: Job, runs: Sequence[RunKey]) -> Finished | Lost:
        """The last report of one of the ``runs`` that are lost with it."""
        run, attempt = job.assignment.run, job.assignment.attempt
        seconds = 0.0 if job.begun is None else time.monotonic() - job.begun
        who = f"{socket.gethostname()}:{self.pid}"
        cause, error = self._cause(job.workload.timeout_s)
        if error and len(runs) == 1:
            return Finished(
                run=run,
                attempt=attempt,
                state=State.FAILED,
                reason=cause,
                error=f"{error}\n\n{self._ending.get('output', '')}".strip(),
                seconds=seconds,
                worker=who,
            )
        company = tuple(other for other in runs if other != run)
        return Lost(run=run, attempt=attempt, cause=cause, seconds=seconds, worker=who, company=company)

    def _cause(self, timeout_s: float | None) -> tuple[str, str]:
        """Why it has died, and the error of the run whose doing it is; empty where it is no run's doing."""
        if self.doom:
            return self.doom, f"the worker sent something that is no report: {self._wrong}" if self._wrong else ""
        if self._ending.get("timed_out"):
            return "timeout", f"ran longer than {timeout_s:g} s"
        status = int(self._ending.get("status", signal.SIGKILL))
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return f"exit:{code}", f"the training code ended its process with exit code {code}"
        number = os.WTERMSIG(status)
        if number in _OUTSIDE:
            return f"signal:{number}", ""
        name = signal.strsignal(number) or "unknown signal"
        return f"signal:{number}", f"the process was ended by signal {number} ({name})"
