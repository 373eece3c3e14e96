"""Engines: everything that differs between databases, and their errors in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Double, Engine, Table, TextClause, create_engine, event, insert, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool, QueuePool
from sqlalchemy.sql.functions import FunctionElement

from hpsearch.errors import StoreError
from hpsearch.stores.sql import postgres

Mode = Literal["ro", "rw", "rwc"]
BUSY_MS = 20_000
#: so many rows are worth being sent as arrays
ARRAYS_FROM = 8
WRITER_CACHE_KIB = 64 * 1024
#: a file up to this size is looked through before it is written to: 5 ms of CPU a MiB; ``hpsearch verify`` has no limit
LOOKED_THROUGH = 64 * 2**20

SQLITE_WORDS = {
    "SQLITE_FULL": ("the disk is full", "make room and run the same command again: it goes on where it stopped"),
    "SQLITE_BUSY": (f"another process has locked it for over {BUSY_MS // 1000} s", "hpsearch list shows who runs"),
    "SQLITE_LOCKED": ("another connection has locked it", "try again"),
    "SQLITE_READONLY": ("it cannot be written", "check the owner and mode of the file and of its folder"),
    "SQLITE_CORRUPT": ("the file is damaged", "restore a copy, or start anew with another --db"),
    "SQLITE_NOTADB": ("the file is no SQLite database", "name another file with --db sqlite:///PATH"),
    "SQLITE_CANTOPEN": ("the file cannot be opened", "check the path and who may read it"),
    "SQLITE_IOERR": ("the disk or file system failed", "check the disk; a network file system cannot hold SQLite"),
    "SQLITE_PERM": ("it may not be opened", "check who may read it"),
    "SQLITE_AUTH": ("it may not be opened", "check who may read it"),
    "SQLITE_TOOBIG": ("a text is over its limit of 1 GB", ""),
}


@final
class now(FunctionElement[float]):
    """Seconds since 1970, UTC, by the database's clock."""

    type = Double()
    inherit_cache = True


@compiles(now)
def _now(element: now, compiler: Any, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


def insert_new(connection: Connection, table: Table) -> Any:
    """An INSERT that leaves out the rows whose key is there already, also where another process is adding it."""
    # Imported here: a command pays for its own database only.
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing()


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """An INSERT of many rows that name the same columns."""
    if connection.dialect.name == "postgresql" and len(rows) >= ARRAYS_FROM:
        # psycopg would send each row by itself; a column as one array costs an eighth.
        connection.execute(_from_arrays(table, tuple(rows[0])), {name: [row[name] for row in rows] for name in rows[0]})
    else:
        connection.execute(insert(table), rows)


@cache
def _from_arrays(table: Table, names: tuple[str, ...]) -> TextClause:
    from sqlalchemy.dialects import postgresql

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    types = [table.c[name].type.compile(dialect) for name in names]
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in zip(names, types, strict=True))
    columns = ", ".join(f'"{name}"' for name in names)
    return text(f'INSERT INTO "{table.name}" ({columns}) SELECT * FROM unnest({arrays})')  # noqa: S608 (our names)


def unhurried(connection: Connection) -> None:
    """The rest of this transaction may take its time: it changes many rows, or tables."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.connection.driver_connection.unhurried = True  # type: ignore[union-attr]


def parse(url: str) -> URL:
    """The address of a database.

    Raises:
        StoreError: it is none, or of a kind that we do not know.
    """
    hint = "for example sqlite:///hpsearch.db, or postgresql://user@host/name"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its text is not repeated: it may hold a password
        raise StoreError("the database's address cannot be read", hint=hint) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(f"{redacted(parsed)}: {parsed.drivername!r} is no database we know", hint=hint)
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreError(f"{redacted(parsed)}: a database in memory would keep nothing", hint=hint)
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def redacted(url: URL) -> str:
    """The address without its passwords."""
    secret = {name: "***" for name in url.query if "pass" in name.lower() or "secret" in name.lower()}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def portable(url: URL) -> str:
    """The address without its passwords, as it can be typed again in another folder of this machine."""
    secret = [name for name in url.query if "pass" in name.lower() or "secret" in name.lower()]
    path = path_of(url)
    url = url._replace(password=None) if path is None else url.set(database=str(path.resolve()))
    return url.difference_update_query(secret).render_as_string(hide_password=True).replace("+psycopg:", ":", 1)


def path_of(url: URL) -> Path | None:
    """SQLite's file; None for a server."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def make_engine(url: URL, mode: Mode) -> Engine:
    """``ro`` reads only, ``rw`` never creates, ``rwc`` creates. A new connection for every use, so no lock outlives it.

    Writers keep their connection.

    Raises:
        StoreError: the driver is missing.
    """
    try:
        return _sqlite(url, mode) if url.get_backend_name() == "sqlite" else _postgres(url, mode)
    except NoSuchModuleError as error:
        raise StoreError(f"{redacted(url)}: {error}", hint="sqlite:///hpsearch.db") from None
    except ModuleNotFoundError as error:
        raise StoreError(f"{redacted(url)} needs {error.name}", hint="pip install 'hpsearch[postgres]'") from None


def _postgres(url: URL, mode: Mode) -> Engine:
    from hpsearch.stores.sql import session

    arguments = dict(postgres.connect_args(url, read_only=mode == "ro"))
    # Who lets statements take longer, in the address, waits for their answers.
    limit = None if "statement_timeout" in str(url.query.get("options", "")) else session.SILENT_S
    if mode == "ro":
        # A reader's statements see one state of the record, as in SQLite.
        engine = create_engine(url, connect_args=arguments, poolclass=NullPool, isolation_level="REPEATABLE READ")
    else:
        # Every decision of a writer is one guarded statement, which waits for others and then looks again.
        level: Any = "READ COMMITTED"
        engine = create_engine(
            url, connect_args=arguments, pool_pre_ping=True, pool_size=1, max_overflow=0, isolation_level=level
        )

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, args: Any, options: Any) -> session.Session:
        return session.connect(*args, limit=limit, **options)

    return engine


def _sqlite(url: URL, mode: Mode) -> Engine:
    path = path_of(url)
    assert path is not None
    address = _address(path, mode)

    def connect() -> sqlite3.Connection:
        # isolation_level None: transactions begin and end where we say so, DDL included.
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, timeout=BUSY_MS / 1000, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if mode == "rwc":
            _writer(connection)
        return connection

    if mode == "rwc":
        engine = create_engine("sqlite://", creator=connect, pool_size=1, max_overflow=0, poolclass=QueuePool)
    else:
        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    # A write lock from the start: a transaction that reads first and then writes fails at once where another writes.
    begin = "BEGIN" if mode == "ro" else "BEGIN IMMEDIATE"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _writer(connection: sqlite3.Connection) -> None:
    """Durability first: an acknowledged turn survives a power cut."""
    # WAL in other versions can lose a committed transaction (the "WAL reset" fault, mended in 2026).
    wanted = "wal" if wal_is_safe(sqlite3.sqlite_version_info) else "delete"
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != wanted:
        (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
    # EXTRA also syncs the folder after the journal's removal, which is what commits.
    connection.execute(f"PRAGMA synchronous = {'FULL' if mode == 'wal' else 'EXTRA'}")
    connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")


def refuse_damaged(url: URL) -> None:
    """Look through SQLite's file, where it is not too large, before anything is written into it.

    Raises:
        StoreError: it is damaged. Nothing was changed.
    """
    path = path_of(url)
    if path is None or not path.is_file() or path.stat().st_size > LOOKED_THROUGH:
        return
    # Not through SQLAlchemy: no transaction, which would take the write lock. Read-write, as the unfinished turn of a
    # killed writer is undone first.
    address = _address(path, "rw")
    with in_words(url), closing(sqlite3.connect(address, uri=True, timeout=BUSY_MS / 1000)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        words, hint = SQLITE_WORDS["SQLITE_CORRUPT"]
        gist = " ".join(str(found).replace("*", "").split())
        raise StoreError(f"{redacted(url)}: {words} ({gist})", hint=hint)


def _address(path: Path, mode: Mode) -> str:
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """True for the SQLite versions that have the fix: 3.51.3 and later, 3.50.7 and later, 3.44.6 and later."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


@contextmanager
def in_words(url: URL, *, coordinator: bool = False) -> Iterator[None]:
    """Turn the database's errors into ``StoreError``; a coordinator's says how the study goes on."""
    try:
        yield
    except DBAPIError as error:
        message, hint = _words(url, error.orig)
        if coordinator and postgres.passes(error) and postgres.ON not in hint:
            hint = f"{hint}; {postgres.ON}"
        raise StoreError(message, hint=hint) from error
    except sqlite3.Error as error:
        message, hint = _words(url, error)
        raise StoreError(message, hint=hint) from error


def _words(url: URL, error: BaseException | None) -> tuple[str, str]:
    name = getattr(error, "sqlite_errorname", "") or ""
    where = redacted(url)
    for code, (words, hint) in SQLITE_WORDS.items():
        if name.startswith(code):
            return f"{where}: {words} ({error})", hint
    if name.startswith("SQLITE_CONSTRAINT") or type(error).__name__ == "IntegrityError":
        return f"{where}: the record refused a row ({postgres.first_line(error)}); nothing of it was written", ""
    if url.get_backend_name() == "postgresql":
        words, hint = postgres.in_words(error)
        return f"{where}: {words}", hint
    return f"{where}: {error}", "check that the database is there and reachable"
