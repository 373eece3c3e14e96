"""The guard of one worker: a small process between the coordinator and the process that trains.

Whatever training code does (hang in C with the interpreter's lock held, ignore SIGTERM, flood its output, leave
children, kill itself), the guard is another process and goes on. It writes the worker's output to the log of the run
or the group, ends a worker that takes too long, ends everything that it started, and tells the coordinator how it
died. When the coordinator is gone, for whatever reason, its socket closes, and the guard ends the worker and itself.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import final

#: bytes that one log may have
LOG_LIMIT = 10_000_000
MARKER = "\n--- the log ends here: it has reached 10 MB; training goes on ---\n"
#: seconds between SIGTERM and SIGKILL
GRACE_S = 2.0
#: bytes of output that are shown with the reason of a crash
_TAIL = 4096
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process with its parent; at once where the parent is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def children(parent: int) -> list[int]:
    """Process ids of the living children of a process, from /proc."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # The name, in brackets, may hold anything; state and parent follow the last bracket.
                state, its_parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if int(its_parent) == parent and state != "Z":
                    found.append(int(folder.name))
    return found


@final
class RunLog:
    """What a worker prints, into the log of what it trains; capped, and valid UTF-8 whatever comes."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._room = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._tail = b""

    @property
    def tail(self) -> str:
        """The last lines of output since the log was opened."""
        return self._tail.decode("utf-8", "backslashreplace").strip()

    def open(self, path: str, header: str) -> None:
        """Further output belongs to this log; a header line is written first."""
        self.close()
        self._tail = b""
        # A log that cannot be written (a full disk) must not cost the run.
        with contextlib.suppress(OSError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._room = LOG_LIMIT - os.fstat(self._file).st_size
            self._put(header.encode())

    def write(self, data: bytes) -> None:
        """Append output."""
        self._tail = (self._tail + data)[-_TAIL:]
        if self._file is None or self._room <= 0:
            return
        text = self._decoder.decode(data).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            self._put(text[: self._room])
            self._room -= len(text)
            if self._room <= 0:
                self._put(MARKER.encode())

    def close(self) -> None:
        """What comes now belongs to no run."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._put(self._decoder.decode(b"", final=True).encode())
            os.close(self._file)
        self._decoder.reset()
        self._file = None

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        while data:
            data = data[os.write(self._file, data) :]


@final
class Guard:
    """Watches one worker from its fork to its end.

    Args:
        boss: socket of the coordinator; ``k`` means "kill now", its end "all is over".
        control: of the worker, each message answered by ``a``: a JSON object where training begins, or goes on with
            another log; ``p`` for progress: what was printed is written, and the seconds behind it begin (null: no
            limit); ``e`` where nothing is trained any more.
        output: reading end of the worker's stdout and stderr, not blocking.
        worker: its process id and that of its group.
    """

    def __init__(self, boss: socket.socket, control: socket.socket, output: int, worker: int) -> None:
        self._boss, self._control, self._output, self._worker = boss, control, output, worker
        self._log = RunLog()
        self._training = False
        self._timeout_s: float | None = None
        self._deadline: float | None = None
        self._timed_out = False
        self._swept = 0.0

    def watch(self) -> None:
        """Until the worker is dead and everything that it started; then say how it died."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        coordinator = os.getppid()
        wake, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        selector = selectors.PollSelector()
        for source in (self._boss, self._control, self._output, wake):
            selector.register(source, selectors.EVENT_READ)
        while (status := self._reap()) is None:
            ready = [key.fileobj for key, _ in selector.select(self._patience())]
            if self._output in ready:
                self._read_output()
            if self._control in ready and not self._hear():
                selector.unregister(self._control)
            if (self._boss in ready and not self._obey()) or os.getppid() != coordinator:
                self._finish()
                return
            if wake in ready:
                os.read(wake, 4096)
            self._enforce()
            if not self._training:
                self._end_strays()
        self._finish()
        self._tell(status)

    def _obey(self) -> bool:
        """Kill the worker where that is asked. False where nobody is left to ask."""
        try:
            asked = self._boss.recv(1)
        except OSError:
            return False
        if asked:
            self._kill(signal.SIGKILL)
        return bool(asked)

    def _patience(self) -> float:
        """Seconds to wait at most; a second, because a forked copy of the coordinator may hold its socket open."""
        if self._deadline is None:
            return 1.0
        return min(1.0, max(0.0, self._deadline - time.monotonic()))

    def _reap(self) -> int | None:
        """The worker's wait status once it has died. Strays that have become ours are reaped on the way."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._worker:
                    return found[1]
        return None

    def _read_output(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):  # a flood must not keep the guard from its other duties
                data = os.read(self._output, 1 << 20)
                if not data:
                    return
                self._log.write(data)

    def _hear(self) -> bool:
        """The worker begins, goes on or ends. False when it will say nothing more."""
        try:
            message = self._control.recv(1 << 16)
        except OSError:
            return False
        if not message:
            return False
        self._read_output()  # what was printed before belongs to the log before
        if message == b"e":
            self._log.close()
            self._training, self._timeout_s, self._timed_out = False, None, False
        elif message.startswith(b"p"):
            self._timeout_s = json.loads(message[1:])
        else:
            begin = json.loads(message)
            self._log.open(begin["log"], begin["header"])
            self._training, self._timeout_s = True, begin["timeout_s"]
        if not self._timed_out:
            self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        with contextlib.suppress(OSError):
            self._control.send(b"a")
        return True

    def _enforce(self) -> None:
        if self._deadline is None or time.monotonic() < self._deadline:
            return
        self._kill(signal.SIGKILL if self._timed_out else signal.SIGTERM)
        self._timed_out = True
        self._deadline = time.monotonic() + GRACE_S

    def _kill(self, number: int) -> None:
        """Signal the worker, not yet reaped, and its group, which it may not have made yet."""
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(self._worker, number)

    def _finish(self) -> None:
        """End the worker's group, then whatever left the group: as its parents die, it becomes our child."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._worker, signal.SIGKILL)
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end:
            for child in children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            time.sleep(0.005)
        self._read_output()

    def _end_strays(self) -> None:
        """Kill the processes whose parents are dead. At most once a second: reading /proc costs a millisecond."""
        if self._swept + 1.0 > time.monotonic():
            return
        for child in children(os.getpid()):
            if child != self._worker:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        self._swept = time.monotonic()

    def _tell(self, status: int) -> None:
        ending = {
            "status": status,
            "timed_out": self._timed_out,
            "output": self._log.tail,
        }
        with contextlib.suppress(OSError):
            self._boss.sendall(json.dumps(ending).encode())
