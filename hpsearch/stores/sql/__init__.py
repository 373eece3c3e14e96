"""The record in a database: SQLite's file, or PostgreSQL. SQLAlchemy and Alembic have no other room.

Importing this package is cheap; opening a database imports SQLAlchemy, making or upgrading one imports Alembic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.archive import Archive
from hpsearch.errors import NotFoundError, StoreError
from hpsearch.store import Store
from hpsearch.trial import RunKey

if TYPE_CHECKING:
    from sqlalchemy import URL

    from hpsearch.stores.sql.audit import SqlAudit
    from hpsearch.stores.sql.read import SqlArchive


def open_store(
    url: str, *, patience_s: Callable[[], float] | None = None, tell: Callable[[str], None] = lambda text: None
) -> Store:
    """The record at this address, for writing; makes the database's tables, or upgrades SQLite's, where needed.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.
        patience_s: how many seconds to wait for a server that has gone; asked again while it waits. None: 10.
        tell: hears, in words, that the server is gone (and waited for), and that it is back.

    Raises:
        StoreError: it cannot be reached or written, or is another program's or a newer hpsearch's.
    """
    from hpsearch.stores.sql.engine import in_words, make_engine, parse, path_of, redacted
    from hpsearch.stores.sql.migrate import revision, upgrade
    from hpsearch.stores.sql.postgres import SHORT_S, Patience
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
        try:
            upgrade(engine, parsed)
        finally:
            engine.dispose()  # a store that nobody uses keeps no connection
    return SqlStore(engine, parsed, Patience(patience_s or (lambda: SHORT_S), tell))


def open_archive(url: str) -> Archive:
    """The record at this address, for reading; creates and changes nothing.

    Raises:
        NotFoundError: there is no such file.
        StoreError: it is no database. (What else may be wrong with it shows at the first reading.)
    """
    return _archive(url)


def sealed_metrics(url: str, study: str, runs: Sequence[RunKey]) -> dict[RunKey, dict[str, float]]:
    """The sealed ``test_*`` metrics of these runs, for ``ship`` alone. Raises what ``open_archive`` does."""
    from hpsearch.stores.sql.read import read_sealed

    return read_sealed(_archive(url), study, runs)


def open_audit(url: str) -> SqlAudit:
    """The record at this address, for ``verify``; creates and changes nothing. Raises what ``open_archive`` does."""
    from hpsearch.stores.sql.audit import SqlAudit

    return SqlAudit(_archive(url))


def _archive(url: str) -> SqlArchive:
    from hpsearch.stores.sql.engine import make_engine
    from hpsearch.stores.sql.read import SqlArchive

    parsed = _existing(url)
    return SqlArchive(make_engine(parsed, "ro"), parsed)


def upgrade(url: str, *, copy: Path | None, backup: bool = True) -> tuple[str | None, Path | None]:
    """Bring a database to this release's schema, after a copy of it.

    Args:
        url: its address; SQLite's file must be there.
        copy: where the copy goes; None: ``backup.default_copy``.
        backup: False makes none.

    Returns:
        The schema it had (None: it was empty), and the copy (None: none was needed or wanted).

    Raises:
        NotFoundError, UsageError, StoreError, StudyHeldError: nothing was changed.
    """
    from hpsearch.stores.sql import migrate
    from hpsearch.stores.sql.backup import default_copy
    from hpsearch.stores.sql.engine import in_words, make_engine

    parsed = _existing(url)
    with in_words(parsed):
        engine = make_engine(parsed, "rw")
        try:
            with engine.begin() as connection:
                found = migrate.revision(connection, parsed)
            older = found not in (None, migrate.HEAD)
            to = (copy or default_copy(parsed, str(found))) if older and backup else None
            migrate.upgrade(engine, parsed, backup=to, asked=True)
        finally:
            engine.dispose()
    return found, to


def back_up(url: str, copy: Path | None = None) -> Path:
    """Write a copy of the whole record; where it is.

    Raises:
        NotFoundError, UsageError, StoreError: there is none.
    """
    from hpsearch.stores.sql.backup import back_up, default_copy
    from hpsearch.stores.sql.engine import in_words, make_engine
    from hpsearch.stores.sql.migrate import revision

    parsed = _existing(url)
    copy = copy or default_copy(parsed)
    with in_words(parsed):
        # What is wrong with the address is said in our words, and only what is ours is copied.
        with make_engine(parsed, "ro").connect() as connection:
            revision(connection, parsed)
        back_up(parsed, copy)
    return copy


def check(url: str) -> tuple[list[str], list[str]]:
    """What is wrong with the database (not with what studies say in it), and what could not be looked at, a line each.

    Raises:
        NotFoundError, StoreError: it is not there, cannot be reached, or is not ours.
    """
    from hpsearch.stores.sql.sound import check_database

    return check_database(_existing(url))


def facts(url: str) -> dict[str, Any]:
    """What the database is: engine and version, schema, studies, bytes.

    Raises:
        NotFoundError, StoreError: as ``check``.
    """
    from hpsearch.stores.sql.sound import facts

    return facts(_existing(url))


def _existing(url: str) -> URL:
    from hpsearch.stores.sql.engine import parse, path_of, redacted
    from hpsearch.stores.sql.read import NO_STUDY

    parsed = parse(url)
    path = path_of(parsed)
    if path is not None and not path.is_file():
        raise NotFoundError(f"there is no database {redacted(parsed)}", hint=NO_STUDY)
    return parsed
