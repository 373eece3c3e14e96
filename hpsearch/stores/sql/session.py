"""A connection to PostgreSQL that waits for an answer for a while, not for ever."""

from __future__ import annotations

import time
from typing import Any, final

import psycopg
from psycopg.pq import TransactionStatus

#: longer than the server lets a statement take (``postgres.SESSION``), so a server that lives has spoken by then
SILENT_S = 45.0
SILENT = "the server has not answered for"


@final
class Session(psycopg.Connection[Any]):
    """As psycopg's own; what is waited for longer than the limit closes the connection and fails.

    libpq's timeouts see a network that is lost. The kernel of a server whose processes are stopped, and a proxy that
    swallows everything, acknowledge each packet all the same.
    """

    #: seconds that one statement, COMMIT included, may be waited for; None: for ever
    limit: float | None = None
    #: the rest of the transaction may take its time
    unhurried = False

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's own.

        Raises:
            psycopg.OperationalError: without a SQLSTATE, where there was no answer in time.
        """
        limit = timeout if self.unhurried or timeout is not None else self.limit
        start = time.monotonic()
        try:
            return super().wait(gen, interval=interval, timeout=limit)
        except psycopg.OperationalError as error:
            if timeout is not None or limit is None or error.sqlstate or time.monotonic() - start < limit:
                raise
            self.pgconn.finish()  # nobody knows what the server will say yet, or to what
            raise psycopg.OperationalError(f"{SILENT} {limit:g} s") from error
        finally:
            if self.pgconn.transaction_status == TransactionStatus.IDLE:
                self.unhurried = False


def connect(*args: Any, limit: float | None, **options: Any) -> Session:
    """Connect as ``psycopg.connect`` does."""
    session = Session.connect(*args, **options)
    session.limit = limit
    return session
