"""Which schema a database has, and bringing it to ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy.engine import URL

from hpsearch.errors import StoreError
from hpsearch.store import held
from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.backup import back_up, default_copy
from hpsearch.stores.sql.engine import now, path_of, redacted, unhurried
from hpsearch.stores.sql.rows import holder_of

#: all schemas there were, oldest first, as the files in ``migrations/versions`` (tested)
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]
#: PostgreSQL's advisory lock for changing our tables: the letters "hpsearch" as a number
LOCK = int.from_bytes(b"hpsearch")
UPGRADE = "hpsearch db upgrade brings it to this release's"


def revision(connection: Connection, url: URL) -> str | None:
    """The database's schema; None for an empty database.

    Raises:
        StoreError: it is another program's, or of a newer hpsearch.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return None
    other = "name another database with --db" if path_of(url) else "hpsearch needs one of its own: createdb hpsearch"
    if "alembic_version" not in names or "study" not in names:
        raise StoreError(f"{redacted(url)} is another program's database (tables: {', '.join(names[:5])})", hint=other)
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found not in REVISIONS:
        raise StoreError(
            f"{redacted(url)} has schema {found!r}, which this hpsearch does not know (its own is {HEAD!r})",
            hint=f"it was written by a newer hpsearch: pip install --upgrade hpsearch, or {other}",
        )
    return str(found)


def upgrade(engine: Engine, url: URL, *, backup: Path | None = None, asked: bool = False) -> str | None:
    """Bring the database to our schema, in one transaction.

    Args:
        engine: of a writer.
        url: the database's address.
        backup: where the copy of an older database goes first; None: beside the file (SQLite), or no copy.
        asked: the user wants it. A server's database belongs to others too, and is not upgraded by the way.

    Returns:
        The schema that it had; None for an empty database.

    Raises:
        StoreError: it is not ours, or cannot be copied. StudyHeldError: a study of it is running.
    """
    with engine.connect() as connection:
        found = revision(connection, url)
        if found is None:
            _check_encoding(connection, url)
        elif found != HEAD:
            _refuse_running(connection)
    if found == HEAD:
        return found
    if found is not None and not asked and path_of(url) is None:
        raise StoreError(f"{redacted(url)} has the older schema {found!r}", hint=f"{UPGRADE} (after a backup)")
    if found is not None and (backup is not None or path_of(url) is not None):
        back_up(url, backup or default_copy(url, found))
    with engine.begin() as connection:
        unhurried(connection)
        _alone(connection)
        # Another process may have done it meanwhile; Alembic looks again under this transaction's lock.
        _alembic(connection)
    return found


def _alone(connection: Connection) -> None:
    """Tables are made by one process at a time. (SQLite's transaction has the whole file already.)"""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))


def _check_encoding(connection: Connection, url: URL) -> None:
    """PostgreSQL converts text into the database's encoding; what it does not have would be refused one day."""
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding not in ("UTF8", "SQL_ASCII"):
        raise StoreError(
            f"{redacted(url)} has the encoding {encoding}, which has not all characters",
            hint="CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0",
        )


def _refuse_running(connection: Connection) -> None:
    """A coordinator of the older release would not know the new tables."""
    columns = [t.study.c[name] for name in ("name", "host", "pid", "boot_id", "started")]
    left = (t.study.c.lease_until - now()).label("left")
    rows: Sequence[Any] = connection.execute(select(*columns, left).where(t.study.c.host.is_not(None))).all()
    for row in rows:
        holder = holder_of(row)
        if holder is not None and row.left > 0 and not holder.is_dead():
            raise held(row.name, holder, row.left)


def _alembic(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
