"""Who may do what: roles of routes, the token, one-time codes, sessions. Knows no web framework.

On a loopback address without a token everyone may read, and who has opened the printed address may act. Anywhere else
nothing is said to strangers: a caller shows the token itself (``Authorization: Bearer``), or a session's cookie, which
is given for the token or for a one-time code. The token is kept as its SHA-256 alone.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypeVar, final

from hpsearch.errors import UsageError, shown

F = TypeVar("F", bound=Callable[..., Any])

#: so many characters a token has at least; ours have 64 (256 bits)
SHORTEST_TOKEN = 16
MAKE_TOKEN = "openssl rand -hex 32 > token"  # noqa: S105 (a command)
#: how long a session, and a code that nobody has used, are good for
SESSION_S, CODE_S = 7 * 24 * 3600.0, 3600.0
#: wrong tokens and codes of one address within so many seconds, before it must wait
TRIES, TRIES_S = 10, 60.0
#: addresses whose wrong tries are remembered
ADDRESSES = 4096
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


class Role(StrEnum):
    """What a route needs."""

    #: nothing: it says nothing of the record
    OPEN = "open"
    READ = "read"
    ACT = "act"


def role(needed: Role, *, command: str = "") -> Callable[[F], F]:
    """Mark an endpoint with what it needs; one that is not marked is refused.

    Args:
        needed: what it needs.
        command: of an action: the command that does the same, told where actions are not allowed. Names in braces are
            parameters of the path: ``hpsearch stop {study}``.
    """

    def mark(endpoint: F) -> F:
        endpoint.hpsearch_role = needed  # type: ignore[attr-defined]
        endpoint.hpsearch_command = command  # type: ignore[attr-defined]
        return endpoint

    return mark


def role_of(endpoint: Any) -> Role | None:
    """What an endpoint needs; None where nobody has said."""
    found: Role | None = getattr(endpoint, "hpsearch_role", None)
    return found


def command_of(endpoint: Any) -> str:
    """The command that does what an endpoint does, with names in braces; empty where nobody has said."""
    return str(getattr(endpoint, "hpsearch_command", ""))


def is_loopback(address: str) -> bool:
    """Whether an address, or ``localhost``, is of this machine alone."""
    try:
        return address == "localhost" or ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def name_of(host: str) -> str:
    """The name in a Host header: without port, brackets and a last dot, in small letters; empty where it is none."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+))(?::\d{1,5})?", host.strip(), re.ASCII)
    return (found[1] or found[2]).lower().rstrip(".") if found else ""


def cookie_of(host: str) -> str:
    """The name of the session's cookie: cookies know no port, and two dashboards of one machine are two."""
    port = re.search(r":(\d{1,5})$", host)
    return f"hpsearch-session-{port[1]}" if port else "hpsearch-session"


@final
class Access:
    """The policy of one server, and its secrets.

    Args:
        token: who knows it may do all that is allowed; None: reading is free.
        hosts: names by which it may be called, beside those of the loopback address.
        allow_actions: whether anything may be changed at all.
        tell: hears of a new one-time code when one was used.
        clock: seconds since 1970.

    Raises:
        UsageError: the token is too short.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        hosts: Sequence[str] = (),
        allow_actions: bool = False,
        tell: Callable[[str], None] = lambda code: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise UsageError(f"the token has fewer than {SHORTEST_TOKEN} characters", hint=MAKE_TOKEN)
        self.allow_actions = allow_actions
        self.free_reading = token is None
        self.hosts = frozenset([*LOOPBACK_NAMES, *(name_of(host) for host in hosts)]) - {""}
        self.tries = Tries(clock)
        self._tell = tell
        self._clock = clock
        self._token = None if token is None else _digest(token)
        # Derived from the token, so that sessions outlive a restart; without one they end with the process.
        secret = secrets.token_bytes(32) if token is None else token.encode()
        self._key = hmac.digest(secret, b"hpsearch session", sha256)
        self._code: tuple[bytes, float] | None = None
        self._lock = threading.Lock()

    def allows_host(self, header: str) -> bool:
        """Whether a Host header names this server; a foreign name that is pointed here (DNS rebinding) does not."""
        return name_of(header) in self.hosts

    def is_token(self, text: str) -> bool:
        """Whether this is the token; compared in constant time."""
        return self._token is not None and hmac.compare_digest(self._token, _digest(text))

    def granted(self, *, known: bool) -> frozenset[Role]:
        """What a caller may do who has shown a token or a session (``known``), or nothing."""
        may = {Role.OPEN}
        if known or self.free_reading:
            may.add(Role.READ)
        if known and self.allow_actions:
            may.add(Role.ACT)
        return frozenset(may)

    def new_code(self) -> str:
        """A new one-time code; the last one is void."""
        code = secrets.token_urlsafe(32)
        with self._lock:
            self._code = (_digest(code), self._clock() + CODE_S)
        return code

    def redeem(self, code: str) -> bool:
        """Whether this is the one-time code, which is void from now on; the next one is told to who runs the server."""
        with self._lock:
            if self._code is None or not hmac.compare_digest(self._code[0], _digest(code)):
                return False
            good = self._clock() < self._code[1]
            self._code = None
        self._tell(self.new_code())
        return good

    def new_session(self) -> str:
        """The value of a session's cookie: its end, a nonce, and a code that only this server can make."""
        text = f"{int(self._clock() + SESSION_S)}.{secrets.token_urlsafe(16)}"
        return f"{text}.{self._signature(text)}"

    def is_session(self, value: str) -> bool:
        """Whether a cookie's value is of a session that has not ended."""
        text, _, signature = value.rpartition(".")
        if not hmac.compare_digest(self._signature(text).encode(), signature.encode("utf-8", "replace")):
            return False
        return self._clock() < int(text.partition(".")[0])

    def _signature(self, text: str) -> str:
        return hmac.digest(self._key, text.encode("utf-8", "replace"), sha256).hex()


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


@final
class Tries:
    """Counts wrong tokens and codes by address: so many within a while, then the address must wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How many seconds an address must wait; 0 where it need not."""
        times = self._failed.get(address)
        if times is None or len(times) < TRIES:
            return 0.0
        return max(0.0, times[0] + TRIES_S - self._clock())

    def failed(self, address: str) -> None:
        """One more wrong try."""
        self._failed.setdefault(address, deque(maxlen=TRIES)).append(self._clock())
        self._failed.move_to_end(address)
        while len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a server was asked to be reached."""

    #: its address is of this machine alone
    loopback: bool
    token: str | None = None
    #: other names by which it may be called
    hosts: Sequence[str] = ()
    allow_actions: bool = False


def make_access(asked: Asked, tell: Callable[[str], None] = lambda code: None) -> Access:
    """The policy that fits an address: beyond this machine nothing without a token and names.

    Raises:
        UsageError: it does not fit.
    """
    for host in asked.hosts:
        if not name_of(host) or "*" in host:
            hint = "--allowed-hosts hpsearch.example.org,10.0.0.5"
            raise UsageError(f"--allowed-hosts: {shown(host)} is no name of a host", hint=hint)
    abroad = [host for host in asked.hosts if not is_loopback(name_of(host))]
    make = f"{MAKE_TOKEN}; HPSEARCH_TOKEN_FILE=token hpsearch dashboard ..."
    if asked.token is None and not asked.loopback:
        raise UsageError("other machines would reach it: that needs a token", hint=make)
    if asked.token is None and abroad:
        raise UsageError(f"{abroad[0]} is not this machine alone: that needs a token", hint=make)
    if not asked.loopback and not asked.hosts:
        hint = "--allowed-hosts NAME,NAME: what browsers will have in their address bar"
        raise UsageError("other machines would reach it: that needs --allowed-hosts", hint=hint)
    return Access(token=asked.token, hosts=asked.hosts, allow_actions=asked.allow_actions, tell=tell)
