"""Which schema a database has, and bringing it to ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import URL

from hpsearch.errors import StoreError
from hpsearch.stores.sql.engine import path_of, redacted

#: all schemas there were, oldest first, as the files in ``migrations/versions`` (tested)
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]


def revision(connection: Connection, url: URL) -> str | None:
    """The database's schema; None for an empty database.

    Raises:
        StoreError: it is another program's, or of a newer hpsearch.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return None
    other = "name another database with --db"
    if "alembic_version" not in names or "study" not in names:
        raise StoreError(f"{redacted(url)} is another program's database (tables: {', '.join(names[:5])})", hint=other)
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found not in REVISIONS:
        raise StoreError(
            f"{redacted(url)} has schema {found!r}, which this hpsearch does not know (its own is {HEAD!r})",
            hint=f"it was written by a newer hpsearch: pip install --upgrade hpsearch, or {other}",
        )
    return str(found)


def upgrade(engine: Engine, url: URL) -> None:
    """Bring the database to our schema, in one transaction; an older one is copied first (SQLite)."""
    with engine.begin() as connection:
        found = revision(connection, url)
    if found == HEAD:
        return
    if found is not None:
        _back_up(url, found)
    with engine.begin() as connection:
        # Another process may have done it meanwhile; Alembic looks again under this transaction's lock.
        _alembic(connection)


def _alembic(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _back_up(url: URL, found: str) -> None:
    path = path_of(url)
    if path is None:
        return
    copy = path.with_name(f"{path.name}.{found}.backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
