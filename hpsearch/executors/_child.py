"""A worker process of the local executor: its guard, and the process that trains, which the guard forks.

Started as ``python -c``, with the coordinator's ``sys.path``: so neither the user's ``__main__`` (a notebook, a
script without a main guard) nor a file in the current folder is imported by mistake.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO, final

from hpsearch.executor import Assignment
from hpsearch.executors import _wire as wire
from hpsearch.executors._guard import Guard, children, die_with_parent
from hpsearch.executors._logs import GroupLog, opening
from hpsearch.objective import Workload
from hpsearch.settings import log_file
from hpsearch.trial import Finished, Grouped, Lost, PausedReport, Report, RunKey, State

#: children and threads of libraries that may live on between runs
_KEPT_CHILDREN = (b"multiprocessing.resource_tracker", b"torch/_inductor/compile_worker")
_KEPT_THREADS = ("hpsearch.", "torch.", "tqdm.", "concurrent.futures.")


def main(reports: int, boss: int, device: str) -> None:
    """Fork the worker and guard it.

    Args:
        reports: file descriptor of the socket for assignments and reports.
        boss: file descriptor of the guard's socket to the coordinator.
        device: ``auto``, ``cpu``, ``cuda:0`` ...
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the coordinator decides what an interruption means
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output, printed = os.pipe2(os.O_CLOEXEC)
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        die_with_parent(guard)
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        for fd in (boss, ours.detach(), output):
            os.close(fd)
        _Worker(socket.socket(fileno=reports), theirs, printed, device).serve()
        # Not sys.exit: a thread or an exit handler of the user's must not hold the process.
        os._exit(0)
    theirs.close()
    os.close(printed)
    os.close(reports)
    os.set_blocking(output, False)
    Guard(socket.socket(fileno=boss), ours, output, worker).watch()
    os._exit(0)


@final
class _Worker:
    """Takes assignments, trains all that it has in hand, and leaves the process as it found it."""

    def __init__(self, link: socket.socket, control: socket.socket, printed: int, device: str) -> None:
        self._link, self._control, self._printed, self._device = link, control, printed, device
        #: training code may report from a thread of its own
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._streams: dict[int, TextIO] = {}
        #: given and not begun, each with its workload as it came
        self._waiting: deque[tuple[Assignment, dict[str, Any]]] = deque()
        #: run -> attempt, of those that are begun and have not ended
        self._hand: dict[RunKey, int] = {}
        self._stops: set[tuple[RunKey, int]] = set()
        self._hung_up = False
        #: of those in hand, where they are or were several
        self._log: GroupLog | None = None
        self._limit: float | None = None
        self._alone = False
        self._littered = False

    def serve(self) -> None:
        """Until the coordinator hangs up."""
        self._claim_output()
        faulthandler.enable()
        gc.disable()  # between the imports it takes a fifth of their time, and finds nothing
        from hpsearch.training.groups import Trainer

        gc.freeze()  # they stay: to look through them again would take a sixth of a second at the end of each group
        gc.enable()
        self._home, self._environment = Path.cwd(), dict(os.environ)
        trainer = Trainer(self._device)
        self._send({"is": "ready", "pid": os.getpid()})
        while self._wait():
            packed = self._waiting[0][1]
            workload = wire.unpack_workload(packed)
            self._threads = set(threading.enumerate())
            assignments = self._take(packed)
            self._begin(assignments, workload)
            try:
                trainer.train(
                    assignments,
                    workload,
                    send=self._pass_on,
                    stopped=self._stopped,
                    more=partial(self._more, packed, workload),
                    alone=self._train_alone,
                )
                if self._hand:
                    raise RuntimeError("the training ended without a result")
            except BaseException as error:  # noqa: BLE001 - whatever a run raises, the worker must not die of it
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """An exception that no run is to blame for, unless it is alone: then it is that one's end."""
        if len(self._hand) > 1:
            # Nobody knows whose it is: they are all lost, and tried again in smaller groups.
            self._tidy()
            sys.stderr.write("".join(traceback.format_exception(error)))
            os._exit(os.EX_SOFTWARE)
        self._pass_on([_failure(run, attempt, error) for run, attempt in self._hand.items()])

    def _pass_on(self, reports: Sequence[Report]) -> None:
        # A report of no run in hand is of a thread that a former run has left.
        mine = [report for report in reports if self._is_mine(report)]
        if not mine:
            return
        together = len(self._hand) > 1
        for report in mine:
            if isinstance(report, Finished | PausedReport):
                self._hand.pop(report.run, None)
                self._stops.discard((report.run, report.attempt))
        message: dict[str, Any] = {"reports": wire.pack_reports(mine)}
        if any(isinstance(report, Finished | PausedReport) for report in mine):
            # Whoever hears of the end finds the log whole.
            self._tidy()
            self._alone = False
            self._tell_guard(self._progress() if self._hand else b"e")
            message["retire"] = self._littered = self._littered or (not self._hand and _littered(self._threads))
        elif together and self._limit is not None:
            self._tell_guard(self._progress())
        self._send(message)

    def _train_alone(self) -> None:
        """The next one trains alone, until it ends."""
        self._alone = True
        if len(self._hand) > 1 and self._limit is not None:
            self._tell_guard(self._progress())

    def _progress(self) -> bytes:
        return b"p" + json.dumps(self._patience()).encode()

    def _patience(self) -> float | None:
        """How long the guard hears nothing: of those that train together each has its own time, and all are silent."""
        return None if self._limit is None else self._limit * (1 if self._alone else len(self._hand))

    def _is_mine(self, report: Report) -> bool:
        if isinstance(report, Grouped):
            return any(run in self._hand for run in report.runs)
        return self._hand.get(report.run) == report.attempt and not isinstance(report, Lost)

    def _stopped(self, run: RunKey) -> bool:
        self._drain()
        return self._hung_up or (run, self._hand.get(run)) in self._stops

    def _more(self, packed: dict[str, Any], workload: Workload) -> list[Assignment]:
        """Runs that have been given meanwhile; none where none is left in hand, so that the process is tidied."""
        if not self._hand:
            return []
        self._drain()
        assignments = self._take(packed)
        if assignments:
            self._begin(assignments, workload)
        return assignments

    def _take(self, packed: dict[str, Any]) -> list[Assignment]:
        """The next assignments of this workload off the queue."""
        taken = []
        while self._waiting and self._waiting[0][1] == packed:
            taken.append(self._waiting.popleft()[0])
        return taken

    def _begin(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        at = time.monotonic()
        self._limit = workload.timeout_s
        begun = {assignment.run: assignment.attempt for assignment in assignments}
        if not self._hand:
            self._log = None
        joining, self._hand = begun, self._hand | begun
        if self._log is None and len(self._hand) > 1:
            self._log, joining = GroupLog(workload.files), self._hand  # one that began alone may get company
        if self._log is None:
            ((run, attempt),) = begun.items()
            log, header = log_file(workload.files, run), f"--- {opening(attempt)} ---\n"
        else:
            log, header = self._log.file, self._log.add(joining)
        timeout_s = self._patience()
        self._tell_guard(json.dumps({"log": str(log), "header": header, "timeout_s": timeout_s}).encode())
        self._send({"is": "begun", "runs": [[*run, attempt] for run, attempt in begun.items()], "at": at})

    def _tidy(self) -> None:
        """Put back what training code may have changed of the process, and what it has printed into the pipe."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os.chdir(self._home)
        _restore(self._environment)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._claim_output()

    def _claim_output(self) -> None:
        """Python's and the process's own standard output go to the guard, whatever a run did to them."""
        for fd in (1, 2):
            os.dup2(self._printed, fd)
        # By lines: what was printed before a crash is what explains it. Streams that are whole are kept, because
        # a logger may hold them.
        for name, fd in (("stdout", 1), ("stderr", 2)):
            stream = self._streams.get(fd)
            if stream is None or stream.closed:
                stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                self._streams[fd] = stream
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def _tell_guard(self, message: bytes) -> None:
        self._control.send(message)
        if self._control.recv(1) != b"a":
            os._exit(1)

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self._link.sendall(wire.frame(message))

    def _wait(self) -> bool:
        """Wait for an assignment, and take what else has come; False when the coordinator has hung up."""
        while not self._waiting and not self._hung_up:
            self._receive()
        self._drain()
        return not self._hung_up

    def _drain(self) -> None:
        while not self._hung_up and select.select([self._link], [], [], 0)[0]:
            self._receive()

    def _receive(self) -> None:
        data = self._link.recv(1 << 18)
        self._hung_up = not data
        self._buffer += data
        for message in wire.unframe(self._buffer):
            if message["is"] == "stop":
                self._stops.update(wire.run_keys(message["runs"]))
            else:
                assignments = [wire.unpack_assignment(packed) for packed in message["assignments"]]
                self._waiting.extend((assignment, message["workload"]) for assignment in assignments)
                # A stop that came too late for its attempt must not meet the same attempt after a pause.
                self._stops.difference_update((assignment.run, assignment.attempt) for assignment in assignments)


def _failure(run: RunKey, attempt: int, error: BaseException) -> Finished:
    return Finished(
        run=run,
        attempt=attempt,
        state=State.FAILED,
        reason=f"exit:{error.code}" if isinstance(error, SystemExit) else "exception",
        error="".join(traceback.format_exception(error)),
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )


def _restore(environment: dict[str, str]) -> None:
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)


def _littered(threads: set[threading.Thread]) -> bool:
    """Whether the run has left threads or children at work: then the process is no clean place for another run."""
    if any(_is_litter(thread) for thread in threading.enumerate() if thread not in threads):
        return True
    if not _has_children():
        return False
    gc.collect()  # ends the workers of a DataLoader that nobody holds any more
    return any(not _kept(child) for child in children(os.getpid()))


def _is_litter(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)  # a thread's class or its function tells whose it is
    makers = (type(thread).__module__, getattr(target, "__module__", "") or "")
    return not any(f"{maker}.".startswith(_KEPT_THREADS) for maker in makers)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _kept(child: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{child}/cmdline", "rb") as file:  # noqa: PTH123
        command = file.read()
        return any(name in command for name in _KEPT_CHILDREN)
    return True
