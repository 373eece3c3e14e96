"""What a Ray actor does: it keeps one local worker on its node, and passes on what it is told and what that says.

So a run on a cluster is trained as it would be here: by a worker process with a guard, its log, its limits.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import shutil
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, final

from hpsearch.executor import Assignment
from hpsearch.executors import _wire as wire
from hpsearch.executors.local import LocalExecutor
from hpsearch.objective import Workload
from hpsearch.trial import EpochReport, Grouped, Lost, Report, RunKey

#: packages whose versions must be the coordinator's
PACKAGES = ("hpsearch", "torch")

#: seconds for which reports of epochs are gathered
GATHER_S = 0.05
#: training code has no business with the cluster's token
CREDENTIALS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def versions() -> dict[str, str]:
    """Of this process: what must agree between the coordinator and its workers. Without torch's ``+cpu``."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found[package] = "none"
    return found


def _own_folder() -> Path:
    """The study's folder, which Ray has made the current one, by names of its own, and now the current one.

    Where several nodes are on one machine, Ray replaces the folder under a worker's feet when another node joins.
    """
    theirs = Path.cwd()
    ours = theirs.with_name(f"{theirs.name}-{os.getpid()}")
    shutil.copytree(theirs, ours, copy_function=os.link)  # no copy: the same files
    os.chdir(ours)
    sys.path[:] = [str(ours) if path == str(theirs) else path for path in sys.path]
    return ours


@final
class RayWorker:
    """What an actor has. ``order`` and ``listen`` have a thread each; only the latter uses the local executor.

    Args:
        name: as the coordinator knows it.
        device: of its local worker; Ray says which GPU it may see.
        lanes: how many runs it takes at once.
    """

    def __init__(self, name: str, device: str, lanes: int) -> None:
        for name_of_secret in CREDENTIALS:
            os.environ.pop(name_of_secret, None)
        self._name = name
        self._folder = _own_folder()
        bell, self._button = socket.socketpair()
        self._executor = LocalExecutor(1, device=device, lanes=lanes, bell=bell)
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting: deque[tuple[list[Assignment], Workload]] = deque()

    def hello(self, files: str, token: str) -> dict[str, Any]:
        """Who and where it is, what it runs, and whether it sees the file of this name in the study's files."""
        try:
            sees = (Path(files) / token).exists() and os.access(files, os.W_OK)
        except OSError:
            sees = False
        return {"versions": versions(), "host": socket.gethostname(), "pid": os.getpid(), "sees": sees}

    def order(self, message: bytes) -> None:
        """Take an order, a JSON object; ``listen`` carries it out."""
        self._orders.put(json.loads(message))
        self._button.send(b"r")

    def listen(self, timeout_s: float) -> bytes:
        """The next reports as a message for the coordinator; empty where nothing was said for so long.

        Raises:
            ExecutorError: the local worker cannot be started.
        """
        end, said = time.monotonic() + timeout_s, list[Report]()
        while not said:
            while not self._orders.empty():
                said += self._obey(self._orders.get())
                self._start()  # an order to stop what came with the order before must find it at work
            self._start()
            patience = end - time.monotonic()
            if patience <= 0 and not said:
                return b""
            said += self._executor.poll(0.0 if said else patience)
        # Epochs are in no hurry, and travel together; an end is what somebody waits for.
        end = time.monotonic() + GATHER_S
        while all(isinstance(report, EpochReport | Grouped) for report in said) and self._orders.empty():
            if (patience := end - time.monotonic()) <= 0:
                break
            said += self._executor.poll(patience)
        return wire.frame({"is": "reports", "worker": self._name, "reports": wire.pack_reports(said)})

    def _obey(self, order: dict[str, Any]) -> Sequence[Report]:
        """Keep what is given; stop what is to stop, and say so of what had not begun."""
        if order["is"] == "give":
            workload = wire.unpack_workload(order["workload"])
            workload = replace(workload, objective=replace(workload.objective, folder=self._folder))
            self._waiting.append(([wire.unpack_assignment(packed) for packed in order["assignments"]], workload))
            return []
        runs = {RunKey(*run) for run in order["runs"]}
        said = []
        for assignments, _ in self._waiting:
            for assignment in [a for a in assignments if a.run in runs]:
                assignments.remove(assignment)
                said.append(Lost(run=assignment.run, attempt=assignment.attempt, cause="stopped"))
        self._executor.stop(runs, now=order["now"])
        return said

    def _start(self) -> None:
        """Begin what was given, where there is room; a local worker that is leaving has none for a moment."""
        while self._waiting:
            assignments, workload = self._waiting[0]
            alone = any(assignment.group is not None for assignment in assignments)
            if assignments and (len(assignments) > self._executor.capacity() or (alone and not self._executor.idle())):
                return
            self._waiting.popleft()
            if assignments:
                self._executor.start(assignments, workload)
