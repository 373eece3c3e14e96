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
from functools import partial
from pathlib import Path
from typing import Any, TextIO, final

from hpsearch.executor import Assignment
from hpsearch.executors import _wire as wire
from hpsearch.executors._guard import Guard, children, die_with_parent
from hpsearch.objective import Workload
from hpsearch.trial import EpochReport, Finished, Grouped, PausedReport, Report, RunKey, State

#: children and threads of libraries that may live on between runs
_KEPT_CHILDREN = (b"multiprocessing.resource_tracker", b"torch/_inductor/compile_worker")
_KEPT_THREADS = ("torch.", "tqdm.", "concurrent.futures.")


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
    """Takes assignments one after the other, trains, and leaves the process as it found it."""

    def __init__(self, link: socket.socket, control: socket.socket, printed: int, device: str) -> None:
        self._link, self._control, self._printed, self._device = link, control, printed, device
        self._buffer = bytearray()
        self._pending: list[dict[str, Any]] = []
        self._streams: dict[int, TextIO] = {}
        self._stop = False
        #: of the attempt in hand; None between runs
        self._current: tuple[RunKey, int] | None = None

    def serve(self) -> None:
        """Until the coordinator hangs up."""
        self._claim_output()
        faulthandler.enable()
        from hpsearch.training import worker

        home, environment = Path.cwd(), dict(os.environ)
        self._send({"is": "ready", "pid": os.getpid()})
        while (message := self._receive()) is not None:
            if message["is"] != "assignment":
                continue  # a stop that came too late
            assignment = wire.unpack_assignment(message["assignment"])
            workload = wire.unpack_workload(message["workload"])
            self._begin(assignment, workload)
            threads = set(threading.enumerate())
            last: list[Report] = []
            try:
                worker.execute(
                    assignment,
                    workload,
                    send=partial(self._pass_on, last),
                    stopped=self._stopped,
                    device=self._device,
                )
            except BaseException as error:  # noqa: BLE001 - whatever a run raises, the worker must not die of it
                last = last or [_failure(assignment, error)]
            last = last or [_failure(assignment, RuntimeError("the run ended without a result"))]
            self._current = None
            os.chdir(home)
            _restore(environment)
            self._end()
            self._send({"report": wire.pack_report(last[0]), "retire": _littered(threads)})

    def _pass_on(self, last: list[Report], report: Report) -> None:
        # The last report waits until the output is in the log: whoever hears of the end finds the log whole.
        if isinstance(report, Grouped) or self._current != (report.run, report.attempt) or last:
            return  # of a thread that a former run has left
        if isinstance(report, EpochReport):
            self._send({"report": wire.pack_report(report)})
        elif isinstance(report, Finished | PausedReport):
            last.append(report)

    def _stopped(self) -> bool:
        while not self._stop and (self._pending or select.select([self._link], [], [], 0)[0]):
            message = self._receive()
            self._stop = message is None or (
                message["is"] == "stop" and (RunKey(*message["run"]), message["attempt"]) == self._current
            )
        return self._stop

    def _begin(self, assignment: Assignment, workload: Workload) -> None:
        key = assignment.run
        name = f"{key.seed}.{key.repeat}" if key.repeat else str(key.seed)
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        header = f"--- attempt {assignment.attempt}, {moment}, process {os.getpid()} ---\n"
        self._current, self._stop = (key, assignment.attempt), False
        log = str(workload.files / str(key.trial) / name / "log.txt")
        self._tell_guard(json.dumps({"log": log, "header": header, "timeout_s": workload.timeout_s}).encode())

    def _end(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._tell_guard(b"e")
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
        self._link.sendall(wire.frame(message))

    def _receive(self) -> dict[str, Any] | None:
        """The next message; None when the coordinator has hung up."""
        while True:
            if self._pending:
                return self._pending.pop(0)
            data = self._link.recv(1 << 16)
            if not data:
                return None
            self._buffer += data
            self._pending += wire.unframe(self._buffer)


def _failure(assignment: Assignment, error: BaseException) -> Finished:
    return Finished(
        run=assignment.run,
        attempt=assignment.attempt,
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
