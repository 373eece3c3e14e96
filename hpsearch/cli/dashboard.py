"""``hpsearch dashboard``, and the dashboard beside a study that runs."""

from __future__ import annotations

import importlib.util
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out, out_json, say
from hpsearch.errors import UsageError

PORT = 8787
LIBRARIES = ("fastapi", "uvicorn", "jinja2")
#: how long one that is started beside a study may take until it answers, and to end
START_S, END_S = 60.0, 5.0
REACH = Group("Beyond this machine", sort_key=1)


def dashboard(
    *,
    port: int = PORT,
    open_: Annotated[bool, Parameter(name="--open", negative="", show_default=False)] = False,
    allow_actions: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    access_log: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    host: Annotated[str, Parameter(group=REACH)] = "127.0.0.1",
    token: Annotated[str | None, Parameter(group=REACH)] = None,
    allowed_hosts: Annotated[list[str] | None, Parameter(negative="", group=REACH)] = None,
    beside: Annotated[bool, Parameter(negative="", show=False)] = False,
    common: Common = COMMON,
) -> None:
    """Show studies in a browser, also while they run. Ctrl-C ends it. The address is printed.

    It only reads, and only this machine can reach it, unless you say otherwise.

    Args:
        port: Where it listens; 0 picks a free one.
        open_: Open a browser.
        allow_actions: It may also change something: stop a study, notes, tags, reveal the test metric.
        access_log: Write a line a request to stderr.
        host: Another address of this machine; needs a token and --allowed-hosts.
        token: Who knows it may read. Better in HPSEARCH_TOKEN, or in the file HPSEARCH_TOKEN_FILE: others see commands.
        allowed_hosts: Names by which browsers reach it: NAME,NAME.
        beside: It ends when its input ends.
    """
    need()
    from hpsearch.dashboard.app import make_app
    from hpsearch.dashboard.record import Record
    from hpsearch.dashboard.server import Served, serve
    from hpsearch.stores.sql.engine import parse, redacted

    url = common.database
    shown = redacted(parse(url))
    if token is not None:
        say("note: --token is seen by whoever lists this machine's processes: better HPSEARCH_TOKEN", style="yellow")
    if beside:
        _end_with_input()

    def ready(address: str) -> None:
        if common.json:
            out_json({"url": address, "db": shown})
        else:
            out(address)
        sys.stdout.flush()
        if not common.quiet and not common.json:
            say(f"shows {shown}; Ctrl-C ends it", style="dim")
        if open_:
            threading.Thread(target=_browse, args=(address,), daemon=True).start()

    served = Served(
        host=host,
        port=port,
        token=token or _token(),
        allowed_hosts=[name for text in allowed_hosts or [] for name in text.replace(",", " ").split()],
        allow_actions=allow_actions,
        access_log=access_log,
    )
    serve(lambda access: make_app(Record(url), access), served, ready=ready, tell=say)


def need() -> None:
    """Raises UsageError where a library of the dashboard is missing."""
    for library in LIBRARIES:
        try:
            found = importlib.util.find_spec(library)
        except ValueError:  # it is marked as one that cannot be had
            found = None
        if found is None:
            raise UsageError(f"the dashboard needs {library}", hint="pip install 'hpsearch[dashboard]'")


def _token() -> str | None:
    """The token of the environment, or of the file that it names."""
    if text := os.environ.get("HPSEARCH_TOKEN"):
        return text
    if not (name := os.environ.get("HPSEARCH_TOKEN_FILE")):
        return None
    try:
        text = Path(name).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or "no text"
        raise UsageError(f"HPSEARCH_TOKEN_FILE: {name} cannot be read: {words}") from None
    if not text:
        raise UsageError(f"HPSEARCH_TOKEN_FILE: {name} is empty", hint=f"openssl rand -hex 32 > {name}")
    return text


def _browse(address: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        say("note: no browser could be opened", style="yellow")


def _end_with_input() -> None:
    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def beside(db: str) -> Iterator[str]:
    """A dashboard in a process of its own, which ends with the block, and with this process; its address.

    Raises:
        UsageError: it cannot be started.
    """
    need()
    command = [sys.executable, "-m", "hpsearch", "dashboard", "--beside", "--quiet", "--port", str(_usual_port())]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            env=os.environ | {"HPSEARCH_DB": db},  # not in the command: it may hold a password
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C is the study's, which drains first
        )
        assert process.stdin
        assert process.stdout
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                address = process.stdout.readline().strip() if selector.select(START_S) else ""
            if not address:
                errors.seek(0)
                said = errors.read(1000).strip() or f"it did not answer within {START_S:.0f} s"
                raise UsageError(f"the dashboard could not be started: {said.removeprefix('error: ')}")
            yield address
        finally:
            process.stdin.close()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _usual_port() -> int:
    """The usual one, or 0 where it is taken."""
    try:
        with socket.create_server(("127.0.0.1", PORT)):
            return PORT
    except OSError:
        return 0
