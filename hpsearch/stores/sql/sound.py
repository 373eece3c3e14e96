"""Whether a database is sound: its file, its tables, and every rule of theirs, looked at row by row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKeyConstraint, Table, and_, func, inspect, select, text
from sqlalchemy.engine import URL

from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.engine import in_words, make_engine, path_of, redacted, unhurried
from hpsearch.stores.sql.migrate import HEAD, UPGRADE, revision

#: a server that has one of these off may lose what it has acknowledged when the power fails
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


def check_database(url: URL) -> list[str]:
    """What is wrong with a database, a line each; [] where it is sound. Changes nothing.

    Raises:
        StoreError: it cannot be reached, or is another program's or a newer hpsearch's.
    """
    engine = make_engine(url, "ro")
    try:
        with in_words(url), engine.connect() as connection:
            unhurried(connection)
            found = revision(connection, url)
            if found is None:
                return [f"{redacted(url)} is empty"]
            engine_says = _sqlite(connection) if path_of(url) else _postgres(connection)
            if found != HEAD:
                return [*engine_says, f"it has the older schema {found!r}; {UPGRADE}"]
            tables = [table for table in t.metadata.sorted_tables if _is_there(connection, table)]
            missing = sorted({table.name for table in t.metadata.sorted_tables} - {table.name for table in tables})
            rows = [line for table in tables for line in [*_orphans(connection, table), *_broken(connection, table)]]
            return [*engine_says, *(f"table {name} is missing" for name in missing), *rows]
    finally:
        engine.dispose()


def facts(url: URL) -> dict[str, Any]:
    """What a database is: engine and version, schema, studies, size in bytes, and risks (settings of the server).

    Raises:
        StoreError: as ``check_database``.
    """
    engine = make_engine(url, "ro")
    try:
        with in_words(url), engine.connect() as connection:
            found = revision(connection, url)
            told: dict[str, Any] = {"url": redacted(url), "engine": _engine(connection), "schema": found, "ours": HEAD}
            told["studies"] = connection.scalar(select(func.count()).select_from(t.study)) if found else 0
            if path_of(url):
                pages, size = (connection.scalar(text(f"PRAGMA {name}")) for name in ("page_count", "page_size"))
                return told | {"bytes": int(pages or 0) * int(size or 0), "risks": []}
            size = connection.scalar(text("SELECT pg_database_size(current_database())"))
            return told | {"bytes": size, "risks": _risks(connection)}
    finally:
        engine.dispose()


def _engine(connection: Connection) -> str:
    numbers = ".".join(str(part) for part in connection.dialect.server_version_info or ())
    return f"{'PostgreSQL' if connection.dialect.name == 'postgresql' else 'SQLite'} {numbers}"


def _sqlite(connection: Connection) -> list[str]:
    lines = [str(line) for line in connection.scalars(text("PRAGMA integrity_check")) if line != "ok"]
    return [f"the file is damaged: {line}" for line in lines]


def _postgres(connection: Connection) -> list[str]:
    unsure = text(
        "SELECT conname FROM pg_constraint WHERE NOT convalidated AND connamespace = current_schema::regnamespace"
    )
    return [f"the rule {name} was never applied to the rows that are there" for name in connection.scalars(unsure)]


def _risks(connection: Connection) -> list[str]:
    return [f"{name} = off" for name in DURABLE if connection.scalar(text(f"SHOW {name}")) == "off"]


def _is_there(connection: Connection, table: Table) -> bool:
    return inspect(connection).has_table(table.name)


def _orphans(connection: Connection, table: Table) -> list[str]:
    """Rows that belong to nothing."""
    lines = []
    for rule in table.constraints:
        if not isinstance(rule, ForeignKeyConstraint):
            continue
        of = rule.referred_table.alias("of")
        pairs = [(table.c[one.parent.name], of.c[one.column.name]) for one in rule.elements]
        query = select(func.count()).select_from(table.outerjoin(of, and_(*[a == b for a, b in pairs])))
        count = connection.scalar(query.where(*[a.is_not(None) for a, _ in pairs], pairs[0][1].is_(None)))
        if count:
            lines.append(f"{table.name}: {count:,} rows belong to no {rule.referred_table.name}")
    return sorted(lines)


def _broken(connection: Connection, table: Table) -> list[str]:
    """Rows that a CHECK would refuse."""
    lines = []
    for rule in table.constraints:
        if isinstance(rule, CheckConstraint):
            count = connection.scalar(select(func.count()).select_from(table).where(text(f"NOT ({rule.sqltext})")))
            if count:
                lines.append(f"{table.name}: {count:,} rows break the rule {rule.name}: {rule.sqltext}")
    return sorted(lines)
