"""The record on SQL, as it lies: what ``verify`` looks at. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, final

from sqlalchemy import Connection, Row, Table, func, or_, select, text

from hpsearch.audit import Attempt, Facts, Told
from hpsearch.errors import CheckError
from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.read import SqlArchive, find
from hpsearch.stores.sql.rows import first_told, holder_of, load_decisions, load_trials, record_of
from hpsearch.trial import RunKey

#: rows of a damaged table that are named one by one
NAMED = 20


@final
class SqlAudit:
    """An auditor's door to the record."""

    def __init__(self, archive: SqlArchive) -> None:
        self._archive = archive

    def names(self) -> list[str]:
        """All studies, oldest first."""
        with self._archive.reading() as connection:
            return list(connection.scalars(select(t.study.c.name).order_by(t.study.c.id)))

    def damage(self) -> tuple[list[str], list[str]]:
        """What is wrong with the database itself, whatever studies say in it, and what could not be looked at.

        A line each; nothing of the first where it is sound.

        Raises:
            StoreError: it cannot be read at all.
        """
        return self._archive.damage()

    def facts(self, study: str) -> Facts:
        """All that there is of one study.

        Raises:
            NotFoundError: no such study. CheckError: its rows say nothing that can be read. StoreError: the
                database failed.
        """
        with self._archive.reading() as connection:
            row = find(connection, study)
            try:
                return _facts(connection, row)
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # bytes that no longer say anything
                raise CheckError(
                    f"the rows of {study} cannot be read ({type(error).__name__}: {error})", hint="restore a copy"
                ) from error


def _facts(connection: Connection, row: Row[Any]) -> Facts:
    record = record_of(row)
    told: list[Told] = []
    wrong: list[str] = []
    for table in (t.metric, t.sealed, t.layers):
        told += _told(connection, row.id, table)
    for table in (t.metric, t.sealed):
        wrong += _not_finite(connection, row.id, table)
    return Facts(
        name=row.name,
        state=row.state,
        reason=row.reason,
        spec=record.spec,
        code_hash=record.code_hash,
        file=record.file,
        starts=row.epoch,
        tell_seq=row.tell_seq,
        held=holder_of(row) is not None,
        lease_until=row.lease_until,
        trials=load_trials(connection, row.id),
        attempts=_attempts(connection, row.id),
        told=told,
        not_finite=wrong,
        curves=first_told(connection, row.id, str(record.spec["metric"])) if record.spec.get("pruner") else {},
        decisions=load_decisions(connection, row.id),
    )


def _attempts(connection: Connection, study: int) -> dict[RunKey, Sequence[Attempt]]:
    a = t.attempt.c
    query = select(a.trial, a.seed, a.repeat, a.attempt, a.cause).where(a.study == study)
    found: dict[RunKey, list[Attempt]] = defaultdict(list)
    for trial, seed, repeat, number, cause in connection.execute(query.order_by(a.trial, a.seed, a.repeat, a.attempt)):
        found[RunKey(trial, seed, repeat)].append(Attempt(number=number, cause=cause))
    return dict(found)


def _told(connection: Connection, study: int, table: Table) -> list[Told]:
    c = table.c
    key = (c.trial, c.seed, c.repeat, c.attempt)
    ends = (func.min(c.epoch), func.max(c.epoch), func.count(c.epoch.distinct()))
    query = select(*key, *ends).where(c.study == study).group_by(*key).order_by(*key)
    return [
        Told(table=table.name, run=RunKey(*run), attempt=attempt, first_epoch=first, last_epoch=last, epochs=epochs)
        for *run, attempt, first, last, epochs in connection.execute(query)
    ]


def _not_finite(connection: Connection, study: int, table: Table) -> list[str]:
    c = table.c
    wrong = or_(c.value.is_(None), text(f"NOT (value {t.RANGE})"))
    query = select(c.trial, c.seed, c.repeat, c.attempt, c.epoch, c.name).where(c.study == study, wrong).limit(NAMED)
    return [
        f"{table.name} {name} of {RunKey(trial, seed, repeat)}, attempt {attempt}, epoch {epoch}"
        for trial, seed, repeat, attempt, epoch, name in connection.execute(query)
    ]
