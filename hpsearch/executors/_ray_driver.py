"""The process that talks to Ray: makes actors, gives them their orders, and passes on what they say.

Started by ``_ray_cluster.py``; knows no runs. A thread each reads the coordinator's socket and looks at the cluster's
nodes; Ray's own thread says when an actor has answered; all of it meets in one queue.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import queue
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, final

import ray
from ray import exceptions

from hpsearch.errors import ExecutorError
from hpsearch.executors import _wire as wire
from hpsearch.executors._ray_cluster import ADDRESSES
from hpsearch.executors._ray_worker import RayWorker

#: seconds between two looks at the nodes
LOOK_S = 2.0
#: seconds that an actor waits for something to say; then it says that there is nothing
LISTEN_S = 20.0
#: workers in a row that may die before they can train
FAILED_STARTS = 2
#: bytes of shared memory for objects, of a cluster that is started here: orders and reports are small
OBJECT_STORE = 128 * 2**20
#: Ray's client proxy starts a server for each client on a port from 23000 on, which it found free a moment before.
#: Two clusters of one machine that do so at the same time take the same one; this is how the loser hears of it
COLLIDED = (
    "Starting Ray client server failed",
    "Proxy failed to Connect to backend",
    "Attempted to reconnect a session that has already been cleaned up",
    "Maybe you called ray.init twice by accident",
    "psutil.ZombieProcess",  # it looked at the client's server when that had just ended
    "psutil.NoSuchProcess",
)
#: how often a client is tried to be let in; each that has collided takes Ray 30 s and more
TRIES = 3
#: never travels with the study's folder
EXCLUDES = [".git", ".venv", "__pycache__", "hpsearch-files", "*.db", "*.db-journal", "*.db-wal", "*.db-shm"]


def main(fd: int) -> None:
    """Until the coordinator hangs up."""
    parent, link = os.getppid(), socket.socket(fileno=fd)
    _Driver(link, parent).serve()
    with contextlib.suppress(Exception):
        ray.shutdown()
    os._exit(0)


@final
class Actor:
    """A ``RayWorker`` as an actor: orders and reports have a thread each."""

    def __init__(self, name: str, device: str, lanes: int) -> None:
        self._worker = RayWorker(name, device, lanes)

    def hello(self, files: str, token: str) -> dict[str, Any]:
        return self._worker.hello(files, token)

    @ray.method(concurrency_group="orders")
    def order(self, message: bytes) -> None:
        self._worker.order(message)

    @ray.method(concurrency_group="listen")
    def listen(self, timeout_s: float) -> bytes:
        return self._worker.listen(timeout_s)


@final
class _Driver:
    def __init__(self, link: socket.socket, parent: int) -> None:
        self._link, self._parent = link, parent
        self._events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._actors: dict[str, Any] = {}
        #: those that have said hello
        self._joined: set[str] = set()
        #: looks since each has said something
        self._silence: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._failed = 0
        self._wanted = 0
        self._terms: dict[str, Any] = {}
        self._connection: dict[str, Any] = {}

    def serve(self) -> None:
        """Take one event after the other; the coordinator's end is the last."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            try:
                kind, what, more = self._events.get(timeout=1.0)
            except queue.Empty:
                if os.getppid() != self._parent:
                    return
                continue
            if kind == "gone":
                self._release()
                return
            try:
                getattr(self, f"_on_{kind}")(what, more)
            except ExecutorError as error:
                self._say({"is": "fatal", "message": str(error), "hint": error.hint})

    def _read(self) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while data := self._link.recv(1 << 20):
                buffer += data
                for message in wire.unframe(buffer):
                    self._events.put((message["is"], message, None))
        self._events.put(("gone", None, None))

    def _say(self, message: Mapping[str, Any]) -> None:
        self._pass_on(wire.frame(message))

    def _pass_on(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the reader sees that the coordinator is gone
            self._link.sendall(data)

    # What the coordinator says

    def _on_connect(self, message: dict[str, Any], _: object) -> None:
        self._connection = message
        connect(message)
        nodes = _nodes()
        gpus, found = message["gpus"], sum(node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"])
        if gpus is None:
            gpus = 1.0 if found else 0.0
        elif gpus and not found:
            raise ExecutorError(
                f"each worker is to have {gpus:g} GPU, and the cluster has none",
                hint="--gpus-per-worker 0 trains on its CPUs",
            )
        self._connection["gpus"] = gpus
        self._say({"is": "connected", "gpus": gpus})

    def _on_hire(self, message: dict[str, Any], _: object) -> None:
        self._terms = message
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        """In a thread: with a dead head it waits, and what workers say must go on."""
        while True:
            with contextlib.suppress(Exception):
                self._events.put(("nodes", _nodes(), None))
            time.sleep(LOOK_S)

    def _on_order(self, message: dict[str, Any], _: object) -> None:
        actor = self._actors.get(message["worker"])
        if actor is not None:  # it has left meanwhile, and the coordinator will hear of it
            actor.order.remote(json.dumps(message["order"]).encode())

    def _on_kill(self, message: dict[str, Any], _: object) -> None:
        self._dismiss(message["worker"])

    # What Ray says

    def _on_nodes(self, nodes: list[dict[str, Any]], _: object) -> None:
        """As many workers as are wanted; where the cluster says how many, as many as its living nodes hold."""
        self._count_silence()
        alive = [node for node in nodes if node["Alive"]]
        wanted = self._terms["workers"] or sum(map(self._places, alive))
        if wanted != self._wanted:
            self._wanted = wanted
            self._say({"is": "wanted", "count": wanted})
        while len(self._actors) < wanted:
            self._engage()
        for name in [name for name in self._actors if name not in self._joined][: len(self._actors) - wanted]:
            self._dismiss(name)

    def _count_silence(self) -> None:
        """Name those that do not even say that there is nothing to say, and end those that go on so.

        Counted in looks, which stand in line with what workers say: a pause of this process is no silence of theirs.
        """
        limit = math.ceil(self._terms["silent_s"] / LOOK_S)
        for name in list(self._joined):
            self._silence[name] += 1
            if self._silence[name] == limit:
                self._say({"is": "silent", "worker": name})
            elif self._silence[name] == 2 * limit:
                self._dismiss(name)  # Ray kills its process where the machine still answers
                self._say({"is": "left", "worker": name, "cause": "silent"})

    def _places(self, node: dict[str, Any]) -> int:
        cpus, gpus = self._connection["cpus"], self._connection["gpus"]
        places = math.floor(node["Resources"].get("CPU", 0.0) / cpus)
        if gpus:
            there = math.floor(node["Resources"].get("GPU", 0.0))
            # Parts of a GPU are parts of one: three of 0.3 on each.
            places = min(places, there * math.floor(1 / gpus) if gpus < 1 else math.floor(there / gpus))
        return int(places)

    def _engage(self) -> None:
        """One more actor. Ray restarts nothing and tries nothing again: that is the coordinator's."""
        name = f"worker-{next(self._numbers)}"
        threads: dict[str, Any] = {"concurrency_groups": {"orders": 1, "listen": 1}}
        made: Any = (
            ray.remote(**threads)(Actor)
            .options(
                num_cpus=self._connection["cpus"],
                num_gpus=self._connection["gpus"],
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
            .remote(name, self._terms["device"], self._terms["lanes"])
        )
        self._actors[name] = made
        self._await("hello", name, made.hello.remote(self._connection["files"], self._connection["token"]))

    def _await(self, kind: str, name: str, reference: Any) -> None:
        reference.future().add_done_callback(lambda future: self._events.put((kind, name, future)))

    def _on_hello(self, name: str, future: Any) -> None:
        if name not in self._actors:
            return
        if (error := future.exception()) is not None:
            self._bury(name, error)
            return
        said = future.result()
        self._compare(said)
        self._failed = 0
        self._joined.add(name)
        self._say({"is": "joined", "worker": name, "place": f"{said['host']}:{said['pid']}"})
        self._listen(name)

    def _compare(self, said: Mapping[str, Any]) -> None:
        """Refuse a worker that would give other numbers, or would leave its files where nobody finds them."""
        where, ours = f"the worker on {said['host']}", self._connection["versions"]
        for package, version in ours.items():
            if said["versions"].get(package) != version:
                raise ExecutorError(
                    f"{where} has {package} {said['versions'].get(package)}, this process has {package} {version}",
                    hint="install the same versions on every machine of the cluster",
                )
        if not said["sees"]:
            raise ExecutorError(
                f"{where} does not see the study's files, {self._connection['files']}: logs and paused runs go there",
                hint="--files names a folder that every machine of the cluster shares",
            )

    def _listen(self, name: str) -> None:
        actor = self._actors[name]
        self._await("said", name, actor.listen.remote(min(LISTEN_S, self._terms["silent_s"] / 3)))

    def _on_said(self, name: str, future: Any) -> None:
        if name not in self._actors:
            return
        if (error := future.exception()) is not None:
            self._bury(name, error)
            return
        if self._silence.pop(name, 0) * LOOK_S >= self._terms["silent_s"]:
            self._say({"is": "heard", "worker": name})
        self._pass_on(future.result())
        self._listen(name)

    def _bury(self, name: str, error: BaseException) -> None:
        """An actor has died, or could not be made."""
        joined = self._dismiss(name)
        if joined:
            self._say({"is": "left", "worker": name, "cause": _cause(error)})
        text = _gist(error)
        if isinstance(error, exceptions.RuntimeEnvSetupError):
            raise ExecutorError(f"Ray cannot bring the study's folder to its workers: {text}")
        if isinstance(error, ExecutorError | exceptions.RayTaskError):  # of the local worker, or of ours
            raise ExecutorError(text)
        if not joined and "creation task" in str(error):
            self._failed += 1
            if self._failed >= FAILED_STARTS:
                raise ExecutorError(f"{self._failed} workers in a row could not start: {text}")

    def _dismiss(self, name: str) -> bool:
        """End an actor; True where it had begun its work."""
        actor = self._actors.pop(name, None)
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor, no_restart=True)
        joined = name in self._joined
        self._joined.discard(name)
        self._silence.pop(name, None)
        return joined

    def _release(self) -> None:
        for name in list(self._actors):
            self._dismiss(name)


def _nodes() -> list[dict[str, Any]]:
    return list(ray.nodes())  # type: ignore[no-untyped-call]


def connect(message: Mapping[str, Any]) -> None:
    """Connect to the cluster, or start one on this machine that nobody else reaches.

    Raises:
        ExecutorError: in words, with the way out.
    """
    address, runtime = message["address"], {"working_dir": message["folder"], "excludes": EXCLUDES}
    if message["py_modules"]:
        runtime["py_modules"] = message["py_modules"]
    options: dict[str, Any] = {"runtime_env": runtime, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    for left in reversed(range(TRIES)):
        try:
            ray.init(address, **options)
            return
        except Exception as error:
            if not (left and address.startswith("ray://") and any(text in str(error) for text in COLLIDED)):
                raise _in_words(error, address) from error
            with contextlib.suppress(Exception):
                ray.shutdown()
            # Random: the other cluster's client must not come again at the same moment.
            time.sleep(random.uniform(0.5, 3.0))


def _in_words(error: Exception, address: str) -> ExecutorError:
    text = _gist(error)
    if "exceeds the maximum size" in str(error):
        return ExecutorError(
            f"the study's folder is too large to travel: {text}",
            hint="put data elsewhere and name it by an absolute path, or list it in the folder's .gitignore",
        )
    if isinstance(error, exceptions.AuthenticationError):
        return ExecutorError(
            f"the Ray cluster at {address} takes no one without its token, and there is none",
            hint="RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE (ray get-auth-token prints the cluster's)",
        )
    if "Version mismatch" in str(error):
        return ExecutorError(
            f"the Ray cluster at {address} is of other versions: {' '.join(str(error).split())}",
            hint="install the same versions of Python and Ray on both sides",
        )
    if isinstance(error, ImportError):
        return ExecutorError(f"Ray cannot be used: {text}", hint="pip install 'hpsearch[ray]'")
    return ExecutorError(f"there is no Ray cluster at {address}: {text}", hint=ADDRESSES)


def _cause(error: BaseException) -> str:
    """Why an actor is gone, as a ``Lost`` report says it."""
    if isinstance(error, exceptions.OutOfMemoryError):
        return "oom"
    # Ray has no class for it; every other text speaks of nodes and of the OOM killer, too, as what may have been.
    return "node" if "node has died" in str(error) else "connection"


def _gist(error: BaseException) -> str:
    """What an error of Ray's says, without tracebacks and advertisement: its last line that is one."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
