"""Whether a database is sound: its file, its tables, and every rule of theirs, looked at row by row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKeyConstraint, Row, Table, and_, func, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.engine import in_words, make_engine, path_of, redacted, unhurried
from hpsearch.stores.sql.migrate import HEAD, UPGRADE, revision
from hpsearch.stores.sql.postgres import first_line

#: a server that has one of these off may lose what it has acknowledged when the power fails
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


#: of PostgreSQL's extension that looks at pages: at each index and what it says of its table, and at each table
AMCHECK = ("bt_index_check", "verify_heapam")
#: damages of one table that are named
NAMED = 5
_FUNCTIONS = text("""
    SELECT p.proname, quote_ident(n.nspname) AS schema,
           has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') AS may
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace JOIN pg_proc p ON p.pronamespace = n.oid
    WHERE e.extname = 'amcheck' AND (p.proname = 'verify_heapam' OR p.proname = 'bt_index_check' AND p.pronargs = 2)
""")
_INDICES = text("""
    SELECT c.oid, c.relname FROM pg_class c
    JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_class o ON o.oid = i.indrelid
    JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'
    WHERE o.relnamespace = current_schema::regnamespace AND o.relname = ANY(:names) ORDER BY c.relname
""")
_TABLES = text("""
    SELECT oid, relname FROM pg_class
    WHERE relkind = 'r' AND relnamespace = current_schema::regnamespace AND relname = ANY(:names) ORDER BY relname
""")


def check_database(url: URL) -> tuple[list[str], list[str]]:
    """What is wrong with a database, and what of it could not be looked at, a line each. Changes nothing.

    Raises:
        StoreError: it cannot be reached, or is another program's or a newer hpsearch's.
    """
    engine = make_engine(url, "ro")
    try:
        with in_words(url), engine.connect() as connection:
            unhurried(connection)
            found = revision(connection, url)
            if found is None:
                return [f"{redacted(url)} is empty"], []
            engine_says, unchecked = (_sqlite(connection), []) if path_of(url) else _postgres(connection)
            if found != HEAD:
                return [*engine_says, f"it has the older schema {found!r}; {UPGRADE}"], unchecked
            tables = [table for table in t.metadata.sorted_tables if _is_there(connection, table)]
            missing = sorted({table.name for table in t.metadata.sorted_tables} - {table.name for table in tables})
            rows = [line for table in tables for line in [*_orphans(connection, table), *_broken(connection, table)]]
            return [*engine_says, *(f"table {name} is missing" for name in missing), *rows], unchecked
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


def _postgres(connection: Connection) -> tuple[list[str], list[str]]:
    unsure = text(
        "SELECT conname FROM pg_constraint WHERE NOT convalidated AND connamespace = current_schema::regnamespace"
    )
    rules = [f"the rule {name} was never applied to the rows that are there" for name in connection.scalars(unsure)]
    pages, unchecked = _pages(connection)
    return [*rules, *pages], unchecked


def _pages(connection: Connection) -> tuple[list[str], list[str]]:
    """What ``amcheck`` finds in PostgreSQL's indices and tables, as far as it is there and this role may use it."""
    there = {row.proname: row for row in connection.execute(_FUNCTIONS)}
    if not there:
        why = "it needs the extension amcheck (a superuser's CREATE EXTENSION amcheck)"
        return [], [f"the pages of indices and tables: {why}"]
    denied = [name for name in AMCHECK if name not in there or not there[name].may]
    unchecked = [
        f"the pages of {'indices' if name == AMCHECK[0] else 'tables'}: this role may not call {name}"
        for name in denied
    ]
    wrong, names = [], {"names": list(t.metadata.tables)}
    for name in (name for name in AMCHECK if name not in denied):
        call = f"{there[name].schema}.{name}"
        for row in connection.execute(_INDICES if name == AMCHECK[0] else _TABLES, names).all():
            wrong += _index(connection, call, row) if name == AMCHECK[0] else _table(connection, call, row)
    return wrong, unchecked


def _index(connection: Connection, call: str, row: Row[Any]) -> list[str]:
    try:
        with connection.begin_nested():
            # True: that every row of the table is in it, too.
            connection.execute(text(f"SELECT {call}(CAST(:oid AS oid)::regclass, true)"), {"oid": row.oid})
    except DBAPIError as error:
        if not str(getattr(error.orig, "sqlstate", "")).startswith("XX"):  # PostgreSQL's class of what it finds corrupt
            raise
        return [f"index {row.relname} is damaged: {first_line(error.orig)}"]
    return []


def _table(connection: Connection, call: str, row: Row[Any]) -> list[str]:
    query = text(f"SELECT blkno, msg FROM {call}(CAST(:oid AS oid)::regclass) LIMIT {NAMED}")  # noqa: S608 (our names)
    found = connection.execute(query, {"oid": row.oid})
    return [f"table {row.relname} is damaged, page {page}: {words}" for page, words in found]


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
