"""What PostgreSQL needs: how it is reached, which of its errors pass by themselves, and all of them in our words."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar, final

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, OperationalError

T = TypeVar("T")

#: libpq's settings: nobody waits for ever for a server that has gone silent, and none of our locks outlives us
CONNECT = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "hpsearch",
    "client_encoding": "utf8",
}
#: the server's settings for our sessions, in milliseconds
SESSION = {"statement_timeout": 30_000, "lock_timeout": 10_000, "idle_in_transaction_session_timeout": 30_000}
#: how long a command waits for a server that has gone
SHORT_S = 10.0
#: after how long an outage is worth a word
TELL_S = 1.0

ON = "the study goes on where it stopped: run the same command again"
#: what a failed connection says (it has no SQLSTATE) -> our words and the way out
REFUSALS = {
    "password authentication failed": ("the server refuses the user or the password", "postgresql://USER:PASSWORD@..."),
    "no password supplied": (
        "the server wants a password",
        "postgresql://USER:PASSWORD@..., PGPASSWORD or ~/.pgpass",
    ),
    "no pg_hba.conf entry": ("the server lets no such user in from here", "ask its administrator (pg_hba.conf)"),
    "failed to resolve host": ("there is no such host", "check the host in --db"),
    "could not translate host name": ("there is no such host", "check the host in --db"),
    "Connection refused": ("no server answers there", "check host and port, and that PostgreSQL runs"),
    "No such file or directory": ("no server answers on this machine", "name its host in --db, or start PostgreSQL"),
    "the server has not answered for": (
        "the server is frozen, or the network swallows what it says",
        f"look after the server; {ON}",
    ),
    "timeout expired": ("no server answers there", "check host and port, and the network between"),
    "too many clients": ("the server has no connection left", "try again, or raise its max_connections"),
    "starting up": ("the server is starting", "try again in a moment"),
    "shutting down": ("the server is shutting down", ON),
}
#: SQLSTATE or its class -> our words and the way out
STATES = {
    "28": REFUSALS["password authentication failed"],
    "42501": ("the user may not do that there", "GRANT it, or make a database of its owner: CREATE DATABASE ... OWNER"),
    "25006": ("it takes no writes (a standby, or set to read only)", "name the primary server"),
    "53100": ("the server's disk is full", f"make room; {ON}"),
    "53300": REFUSALS["too many clients"],
    "57014": ("a statement took too long and was ended", ON),
    "57P03": REFUSALS["starting up"],
    "57P": ("the server was stopped", ON),
    "55P03": ("another session has locked it for too long", "hpsearch list shows who runs"),
    "40": ("other sessions were in the way each time", ON),
    "25P03": ("the server has ended our session, which was silent for too long", ON),
    "08": ("the connection was lost", ON),
    "23": ("the record refused a row", "nothing of it was written"),
    "22": ("the record cannot hold a value", "nothing of it was written"),
    "54": ("the record cannot hold a value of that length", "nothing of it was written"),
}
#: what passes by itself: lost connections, a server that stops or starts, transactions in each other's way
PASSING = ("08", "40001", "40P01", "57P0", "53300", "55P03", "25P03")


def connect_args(url: URL, *, read_only: bool) -> Mapping[str, str]:
    """What to connect with, where the address does not say it itself."""
    session = {**SESSION, "default_transaction_read_only": "on" if read_only else "off"}
    said = url.query.get("options", "")
    # The address's own options come last, which is what counts.
    options = [*(f"-c {name}={value}" for name, value in session.items()), *([said] if isinstance(said, str) else said)]
    return {name: value for name, value in CONNECT.items() if name not in url.query} | {"options": " ".join(options)}


def state_of(error: BaseException | None) -> str:
    """The SQLSTATE of a driver's error; empty where there is none."""
    return str(getattr(error, "sqlstate", None) or "")


def passes(error: DBAPIError) -> bool:
    """True where the whole transaction may succeed if it is tried again."""
    state = state_of(error.orig)
    if state:
        return state.startswith(PASSING)
    # Without a SQLSTATE it was no answer of the server: the connection broke, or there was none.
    ours = type(error.orig).__module__.startswith("psycopg")
    return ours and (error.connection_invalidated or isinstance(error, OperationalError))


def in_words(error: BaseException | None) -> tuple[str, str]:
    """What has happened, and the way out."""
    state, text = state_of(error), first_line(error)
    if state == "3D000" or (not state and 'database "' in text and "does not exist" in text):
        return f"there is no such database ({text})", "createdb NAME makes it; its tables come by themselves"
    if not state and 'role "' in text:
        return f"{REFUSALS['password authentication failed'][0]} ({text})", "postgresql://USER:PASSWORD@HOST/NAME"
    for key, (words, hint) in (STATES if state else REFUSALS).items():
        if state.startswith(key) if state else key in str(error):
            return f"{words} ({text})", hint
    return text, f"check that the server is there and reachable; {ON}"


def first_line(error: BaseException | None) -> str:
    """The server's own words, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # A connection's error repeats the address in front of what the server says.
    return lines[0].rpartition("FATAL: ")[2].strip()


@final
class Patience:
    """Whole transactions, tried again with growing pauses while their error passes by itself.

    Args:
        seconds: how long after the first error it is raised; asked again while it waits.
        tell: hears, in words, of an outage of more than a second and of its end.
    """

    def __init__(self, seconds: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._seconds, self._tell = seconds, tell
        #: the database has answered once: before, an error is a mistake in its address more often than an outage
        self.reached = False

    def attempt(self, work: Callable[[], T]) -> T:
        """Do one transaction. What an earlier try of ``work`` did may be committed all the same: its answer was lost.

        Raises:
            DBAPIError: it does not pass, or has not in time.
        """
        began, start, told, pause = time.monotonic(), 0.0, False, 0.1
        while True:
            try:
                done = work()
            except DBAPIError as error:
                start = start or time.monotonic()
                if not told and time.monotonic() - began > TELL_S:
                    told = True
                    self._tell(f"{in_words(error.orig)[0]}; trying again for up to {self._seconds():.0f} s")
                self._wait(error, start, pause)
                pause = min(2 * pause, 5.0)
            else:
                if told:
                    self._tell(f"the database is back after {time.monotonic() - began:.0f} s")
                return done

    def _wait(self, error: DBAPIError, start: float, pause: float) -> None:
        # Jitter: two that were in each other's way must not meet again.
        end = time.monotonic() + pause * random.uniform(0.5, 1.0)
        while (now := time.monotonic()) < end:
            if not (self.reached and passes(error)) or now - start >= self._seconds():
                raise error
            time.sleep(min(0.1, end - now))
