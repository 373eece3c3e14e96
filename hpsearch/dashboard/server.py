"""Serve the dashboard from this process: bind, say the address, end within two seconds of being asked."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import final
from urllib.parse import quote, urlsplit

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from hpsearch.dashboard.access import Access, Asked, make_access, name_of
from hpsearch.dashboard.guard import Ending
from hpsearch.errors import UsageError
from hpsearch.written import redacted

#: requests get so long to end; then the process ends in any case, since it only reads
GRACE_S, LAST_S = 1, 1.8
#: how long a caller may take to say what it wants
HEADERS_S = 10.0
BACKLOG = 128


@final
@dataclass(frozen=True, kw_only=True)
class Listener:
    """A bound socket."""

    socket: socket.socket
    #: ``http://127.0.0.1:8787/``
    url: str
    #: of this machine alone
    loopback: bool

    def named(self, host: str) -> str:
        """Its URL by another name of this machine."""
        name = name_of(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{urlsplit(self.url).port}/"


def listen(host: str, port: int) -> Listener:
    """Take an address.

    Args:
        host: a name or an address of this machine.
        port: 0 picks a free one.

    Raises:
        UsageError: it cannot be had.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: {port} is no port", hint="--port 8787")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"--host: {host!r} is no address of this machine", hint="--host 127.0.0.1") from None
    # A name of both families means IPv4, which every client tries.
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    try:
        bound = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        words, hint = _words(error, host, port)
        raise UsageError(words, hint=hint) from None
    number, taken = bound.getsockname()[:2]
    shown = f"[{number}]" if ":" in number else number
    loopback = ipaddress.ip_address(number.partition("%")[0]).is_loopback
    return Listener(socket=bound, url=f"http://{shown}:{taken}/", loopback=loopback)


def _words(error: OSError, host: str, port: int) -> tuple[str, str]:
    words = {
        errno.EADDRINUSE: (f"port {port} of {host} is taken by another program", "--port 0 picks a free one"),
        errno.EACCES: (f"port {port} may not be used: those below 1024 are the system's", "--port 8787"),
        errno.EADDRNOTAVAIL: (f"{host} is no address of this machine", "--host 127.0.0.1"),
    }
    return words.get(error.errno or 0, (f"{host}:{port} cannot be had: {error.strerror}", ""))


@final
@dataclass(frozen=True, kw_only=True)
class Served:
    """How the dashboard is served."""

    host: str = "127.0.0.1"
    port: int = 8787
    token: str | None = None
    allowed_hosts: Sequence[str] = ()
    allow_actions: bool = False
    access_log: bool = False


def serve(
    make: Callable[[Access], FastAPI],
    served: Served,
    *,
    ready: Callable[[str], None],
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        make: makes the application, its guard installed.
        served: where and for whom.
        ready: hears the address to open, once it answers.
        tell: hears what else is to be said to who runs it.

    Raises:
        UsageError: the address cannot be had, or is not safe with this token and these names.
    """
    listener = listen(served.host, served.port)
    with listener.socket:
        asked = Asked(
            loopback=listener.loopback,
            token=served.token,
            hosts=served.allowed_hosts,
            allow_actions=served.allow_actions,
        )
        access = make_access(asked, lambda code: tell(f"for another browser: {_with_code(listener.url, code)}"))
        if not listener.loopback:
            tell("note: other machines can reach it, unencrypted: put TLS (a proxy) or an SSH tunnel before it")
        app = make(access)
        url = listener.url if listener.loopback else listener.named(served.allowed_hosts[0])
        # Only where what is printed is for this machine's user alone, and where there is something to log in for.
        if listener.loopback and (served.token or served.allow_actions):
            url = _with_code(url, access.new_code())
        ending: Ending = app.state.ending
        with _log(logging.INFO if served.access_log else logging.WARNING, ending):
            _Server(app, ending, lambda: ready(url)).run(sockets=[listener.socket])


def _with_code(url: str, code: str) -> str:
    return f"{url}login?code={quote(code)}"


@contextmanager
def _log(level: int, ending: Ending) -> Iterator[None]:
    """Our log on stderr, and uvicorn's errors until the end is begun; no password in either."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Redacted())
    ours, theirs = logging.getLogger("hpsearch.dashboard"), logging.getLogger("uvicorn")
    ours.setLevel(level)
    theirs.setLevel(logging.ERROR)
    # What is broken off at the end is not worth a line.
    handler.addFilter(lambda record: record.name == ours.name or not ending.event.is_set())
    for logger in (ours, theirs):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in (ours, theirs):
            logger.removeHandler(handler)


@final
class _Redacted(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


@final
class _Server(uvicorn.Server):
    """uvicorn, whose end is heard by the streams, and certain."""

    def __init__(self, app: FastAPI, ending: Ending, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,  # it would hold query strings: the guard writes one without
            server_header=False,
            proxy_headers=False,  # whoever reaches us directly could forge them
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._ending = ending
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending.event.set()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but to be ended by a signal is an end in good order."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._signalled) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            # A request that computes in a thread cannot be broken off otherwise.
            last = threading.Timer(LAST_S, _leave)
            last.daemon = True
            last.start()
        self.should_exit = True


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@final
class _Connection(H11Protocol):
    """A connection that is closed when its caller takes too long to say what it wants."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        waits = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if waits and self._timer is None:
            self._timer = self.loop.call_later(HEADERS_S, self.transport.close)
        elif not waits and self._timer is not None:
            self._timer.cancel()
            self._timer = None
