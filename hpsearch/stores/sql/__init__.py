"""The record in a database: SQLite's file, or PostgreSQL. SQLAlchemy and Alembic have no other room.

Importing this package is cheap; opening a database imports SQLAlchemy, making or upgrading one imports Alembic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpsearch.archive import Archive
from hpsearch.errors import NotFoundError, StoreError
from hpsearch.store import Store

if TYPE_CHECKING:
    from hpsearch.stores.sql.audit import SqlAudit
    from hpsearch.stores.sql.read import SqlArchive


def open_store(url: str) -> Store:
    """The record at this address, for writing; makes or upgrades the database where needed.

    Raises:
        StoreError: it cannot be reached or written, or is another program's or a newer hpsearch's.
    """
    from hpsearch.stores.sql.engine import in_words, make_engine, parse, path_of, redacted
    from hpsearch.stores.sql.migrate import revision, upgrade
    from hpsearch.stores.sql.write import SqlStore

    parsed = parse(url)
    path = path_of(parsed)
    if path is not None and not path.absolute().parent.is_dir():
        raise StoreError(
            f"{redacted(parsed)}: the folder {path.absolute().parent} does not exist", hint="make it, or change --db"
        )
    with in_words(parsed):
        if path is not None and path.exists():
            # Looked at before a writer's settings touch it: what is not ours stays as it is.
            with make_engine(parsed, "rw").begin() as connection:
                revision(connection, parsed)
        engine = make_engine(parsed, "rwc")
        upgrade(engine, parsed)
    return SqlStore(engine, parsed)


def open_archive(url: str) -> Archive:
    """The record at this address, for reading; creates and changes nothing.

    Raises:
        NotFoundError: there is no such file.
        StoreError: it is no database. (What else may be wrong with it shows at the first reading.)
    """
    return _archive(url)


def open_audit(url: str) -> SqlAudit:
    """The record at this address, for ``verify``; creates and changes nothing. Raises what ``open_archive`` does."""
    from hpsearch.stores.sql.audit import SqlAudit

    return SqlAudit(_archive(url))


def _archive(url: str) -> SqlArchive:
    from hpsearch.stores.sql.engine import make_engine, parse, path_of, redacted
    from hpsearch.stores.sql.read import NO_STUDY, SqlArchive

    parsed = parse(url)
    path = path_of(parsed)
    if path is not None and not path.is_file():
        raise NotFoundError(f"there is no database {redacted(parsed)}", hint=NO_STUDY)
    return SqlArchive(make_engine(parsed, "ro"), parsed)
