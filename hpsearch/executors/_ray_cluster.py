"""The coordinator's side of a Ray cluster: the process that talks to Ray, and what it is told.

Ray's client lives in a process of its own (``_ray_driver.py``). When the head of a cluster dies, Ray ends the process
that is connected to it; that must not be the one that records.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from hpsearch.errors import ExecutorError
from hpsearch.executors import _wire as wire
from hpsearch.executors._ray_worker import versions

#: seconds to connect to a cluster, or to start one here
CONNECT_S = 120.0
#: seconds for a connection to its address, before Ray is started; those that a head may take to open its ports
REACH_S, OPENING_S = 10.0, 10.0
#: seconds that close waits for the driver to end the workers
CLOSE_S = 8.0
#: what Ray is told where the user's environment says nothing: no statistics to its makers, seconds until a silent
#: head is given up, no change of CUDA_VISIBLE_DEVICES for workers without a GPU
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
ADDRESSES = "--ray-address auto (one that runs here), HOST:PORT (6379) or ray://HOST:10001; without it one is started"
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from hpsearch.executors._ray_driver import main;"
    " main(int(sys.argv[2]))"
)
#: characters of what the driver has printed that an error shows
_TAIL = 2000
#: characters of the line that an error shows
_LINE = 200
#: what stands in front of a line of Ray's logs: ``[2026-11-25 21:26:28,193 E 1 1] file.cc:1: `` or
#: ``2026-11-25 21:26:28,193<tab>INFO file.py:1 -- ``
_STAMP = r"^(\[[^]]*\] \S+ |\d{4}-\d\d-\d\d \S+ [A-Z]+ \S+ -- )"


@final
@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which cluster, and how much of it each worker has."""

    #: ``auto`` (the cluster that runs here), ``HOST:PORT``, ``ray://HOST:PORT``; None: RAY_ADDRESS, else start one here
    address: str | None = None
    #: 1, 0.25 ...; None: one where the cluster has GPUs, else none
    gpus_per_worker: float | None = None
    #: CPUs that a worker takes
    cpus_per_worker: float = 1.0
    #: folders of packages that travel to the workers beside the study's folder
    py_modules: tuple[Path, ...] = field(default=())

    def __post_init__(self) -> None:
        gpus, cpus = self.gpus_per_worker, self.cpus_per_worker
        if gpus is not None and not (0 <= gpus < 1 or (float(gpus).is_integer() and gpus >= 1)):
            raise ExecutorError(f"gpus per worker must be a whole number or a part of one GPU, not {gpus:g}")
        if not 0 < cpus < float("inf"):
            raise ExecutorError(f"cpus per worker must be above 0, not {cpus:g}")
        for folder in self.py_modules:
            if not folder.is_dir():
                raise ExecutorError(f"py_modules: there is no folder {folder}")


def refuse_deaf(address: str) -> None:
    """Look whether anybody listens at an address that names a host and a port, or soon does: Ray asks for minutes.

    Raises:
        ExecutorError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():  # ``auto``, or what Ray alone understands
        return
    end = time.monotonic() + OPENING_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
        except (OSError, OverflowError) as error:
            if isinstance(error, ConnectionRefusedError) and time.monotonic() < end:
                time.sleep(0.25)  # a head that is being started
                continue
            why = getattr(error, "strerror", "") or str(error)
            raise ExecutorError(f"there is no Ray cluster at {address}: {why}", hint=ADDRESSES) from None
        return


def is_open(address: str, environment: Mapping[str, str]) -> bool:
    """True where a cluster that we are connected to lets everybody in: it has let us in without a token.

    Of one that was shown a token nobody can tell: one without authentication does not look at it.
    """
    return address != "local" and environment.get("RAY_AUTH_MODE") != "token"


@final
class RayCluster:
    """A connection to a cluster, or a cluster of this machine that ends with it.

    Args:
        options: which cluster.
        folder: the study's: a copy of it travels to every worker.
        files: where logs and checkpoints go: every machine of the cluster must see it.

    Raises:
        ExecutorError: Ray is not installed, the cluster cannot be reached, or has not what is asked for.
    """

    def __init__(self, options: ClusterOptions, folder: Path, files: Path) -> None:
        if find_spec("ray") is None:
            raise ExecutorError("Ray is not installed", hint="pip install 'hpsearch[ray]'")
        self.options, self._files = options, files.absolute()
        refuse_deaf(options.address or os.environ.get("RAY_ADDRESS") or "local")
        self._token = self._files / f".hpsearch-{secrets.token_hex(8)}"
        try:
            self._files.mkdir(parents=True, exist_ok=True)
            self._token.touch()
        except OSError as error:
            raise ExecutorError(f"{self._files} cannot be written: {error.strerror}", hint="--files FOLDER") from None
        self._link, theirs = socket.socketpair()
        self._inbox, self._outbox = bytearray(), bytearray()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - what Ray prints, for the error if it ends
        self.lost = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(theirs.fileno(),),
                env=self._environment(),
                start_new_session=True,
            )
        #: GPUs that each worker has; negative before the cluster has answered
        self.gpus = -1.0
        try:
            self._connect(folder)
        except BaseException:
            self._process.kill()  # it may be trying still
            self.close()
            raise

    def _environment(self) -> dict[str, str]:
        environment = {**ENVIRONMENT, **os.environ}
        address = self.options.address or environment.get("RAY_ADDRESS") or "local"
        if address == "local":
            # A cluster that only this process knows: its token is in no file, and its ports are on 127.0.0.1 only,
            # which is what Ray does where it is told that clusters are not to be.
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        elif environment.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
            environment.setdefault("RAY_AUTH_MODE", "token")
        self.address = address
        self._open = is_open(address, environment)
        return environment

    def _connect(self, folder: Path) -> None:
        options = self.options
        self.send(
            {
                "is": "connect",
                "address": self.address,
                "folder": str(folder.absolute()),
                "py_modules": [str(module.absolute()) for module in options.py_modules],
                "files": str(self._files),
                "token": self._token.name,
                "gpus": options.gpus_per_worker,
                "cpus": options.cpus_per_worker,
                "versions": versions(),
            }
        )
        end = time.monotonic() + CONNECT_S
        while time.monotonic() < end:
            for message in self.receive(0.5):
                self.gpus = float(message["gpus"])
                return
            if "InvalidAuthToken" in self.printed():  # Ray would go on trying
                raise ExecutorError(
                    f"the Ray cluster at {self.address} takes no one without its token",
                    hint="RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE (ray get-auth-token prints the cluster's)",
                )
        raise ExecutorError(
            f"there is no Ray cluster at {self.address}: no answer within {CONNECT_S:g} s ({self._last_words()})",
            hint=ADDRESSES,
        )

    @property
    def device(self) -> str:
        """What its workers train on: ``cuda`` or ``cpu``."""
        return "cuda" if self.gpus else "cpu"

    @property
    def warning(self) -> str:
        """What its user should know; empty where there is nothing."""
        if not self._open:
            return ""
        return (
            f"the Ray cluster at {self.address} has no token: who reaches its ports can run code there; "
            "RAY_AUTH_MODE=token where it is started, and here, keeps strangers out"
        )

    def fileno(self) -> int:
        return self._link.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send it, or as much as the driver takes now; ``receive`` sends the rest."""
        self._outbox += wire.frame(message)
        self._push()

    def receive(self, timeout_s: float) -> list[dict[str, Any]]:
        """What the driver has said; waits so long at most for the first.

        Raises:
            ExecutorError: it says that the study cannot go on here; or it has ended, and with it the cluster.
        """
        if self.lost:
            raise self._why()
        try:
            wanted = [self._link] if self._outbox else []
            readable, writable, _ = select.select([self._link], wanted, [], max(0.0, timeout_s))
            if writable:
                self._push()
            while readable and (data := self._link.recv(1 << 20, socket.MSG_DONTWAIT)):
                self._inbox += data
            self.lost = bool(readable)  # the loop has ended with no data: the driver is gone
        except BlockingIOError:
            pass
        except ConnectionError:
            self.lost = True
        messages = list(wire.unframe(self._inbox))
        for message in messages:
            if message["is"] == "fatal":
                raise ExecutorError(message["message"], hint=message["hint"])
        return messages

    def _push(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._link.send(self._outbox, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            pass
        except OSError:  # it has just died: receive says so
            self._outbox.clear()

    def printed(self) -> str:
        """The end of what the driver has printed."""
        self._output.seek(0)
        return self._output.read().decode(errors="backslashreplace").strip()[-_TAIL:]

    def _last_words(self) -> str:
        """The last thing that Ray has printed, on one line, without the log's time, level and place."""
        lines = [" ".join(line.split()) for line in self.printed().splitlines() if line.strip()]
        bare = re.sub(_STAMP, "", lines[-1] if lines else "Ray says nothing").split(". ")[0]
        return bare if len(bare) <= _LINE else f"{bare[:_LINE]} ..."

    def _why(self) -> ExecutorError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        said = self._last_words()
        where = "of this machine" if self.address == "local" else f"at {self.address}"
        if self.gpus < 0:
            return ExecutorError(f"there is no Ray cluster at {self.address}: {said}", hint=ADDRESSES)
        return ExecutorError(
            f"the Ray cluster {where} is lost: {said}", hint="when it is there again, the same command goes on"
        )

    def close(self) -> None:
        """End the workers, and a cluster that was started here. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._token.unlink(missing_ok=True)
        self._link.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            # What it has started ends with it: actors when Ray sees that their driver is gone.
            self._process.kill()
            self._process.wait()
        self._output.close()
        self.lost = True
