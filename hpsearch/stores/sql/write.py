"""The record on SQL, as the coordinator writes it: every change is a guarded statement in one short transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, final

from sqlalchemy import Connection, Engine, Row, Table, delete, insert, select, update
from sqlalchemy.engine import URL

from hpsearch.archive import not_found
from hpsearch.errors import StoreError, StudyHeldError
from hpsearch.store import (
    GROUPED,
    Command,
    Holder,
    Snapshot,
    Store,
    StudyRecord,
    Turn,
    clean,
    extension,
    held,
    refuse_changed,
    refuse_unfit,
)
from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.engine import in_words, insert_new, now, refuse_damaged, unhurried
from hpsearch.stores.sql.postgres import Patience
from hpsearch.stores.sql.rows import (
    decision_rows,
    dumps,
    first_told,
    holder_columns,
    holder_of,
    load_decisions,
    load_trials,
    record_of,
)
from hpsearch.stores.sql.turn import TurnWriter
from hpsearch.trial import RunKey, State

T = TypeVar("T")


@final
class SqlStore(Store):
    """One coordinator's door to the record."""

    def __init__(self, engine: Engine, url: URL, patience: Patience) -> None:
        self._engine = engine
        self._url = url
        self._patience = patience
        self._opening = False
        self._study = ""
        self._id = 0
        self._epoch = -1
        self._rev = 0
        self._lease_s = 0.0
        #: of all coordinators' time: written as it is, so that writing it twice adds nothing
        self._seconds = 0.0
        self._turns = TurnWriter(study=0)
        #: the turn whose outcome is unknown, or that was written last: writing it again must change nothing
        self._last: Turn | None = None

    def _transact(self, work: Callable[[Connection], T]) -> T:
        """One transaction, tried again where its error passes by itself. ``work`` may find itself done already."""

        def once() -> T:
            with self._engine.begin() as connection:
                self._patience.reached = True
                return work(connection)

        try:
            with in_words(self._url, coordinator=self._epoch >= 0):
                return self._patience.attempt(once)
        finally:
            if self._epoch < 0 and not self._opening:
                self._engine.dispose()  # a door keeps no connection; a coordinator keeps its own

    # The lease

    def open(
        self,
        study: StudyRecord,
        holder: Holder,
        *,
        lease_s: float,
        allow_changed: bool = False,
        curves: str | None = None,
    ) -> Snapshot:
        made: set[int] = set()
        left = ("interrupted", "")

        def take(connection: Connection) -> tuple[Row[Any], Snapshot]:
            row = _find(connection, study.name)
            if row is None:
                made.update(_create(connection, study))
                row = _find(connection, study.name)
            assert row is not None
            # Where the answer to an earlier try was lost, the study is there and ours, and yet new.
            existed = row.id not in made
            refuse_changed(record_of(row), study, allow_changed=allow_changed)
            _refuse_held(row, but=holder)
            nonlocal left
            if row.state != "running":  # it is, where the answer to an earlier try was lost
                left = (row.state, row.reason)
            if rows := decision_rows(row.id, extension(record_of(row), study), time.time()):
                connection.execute(insert(t.decision), rows)
            columns = _loose(study) | holder_columns(holder)
            connection.execute(
                update(t.study)
                .where(t.study.c.id == row.id)
                .values(**columns, epoch=row.epoch + 1, state="running", reason="", lease_until=now() + lease_s)
            )
            # What was asked of a former coordinator is not meant for this one.
            connection.execute(delete(t.command).where(t.command.c.study == row.id))
            curve = {} if curves is None else first_told(connection, row.id, curves)
            return row, replace(_snapshot(connection, row, existed=existed), curves=curve, left=left)

        refuse_damaged(self._url)
        self._opening = True
        try:
            row, snapshot = self._transact(take)
            self._study, self._id, self._lease_s = study.name, row.id, lease_s
            self._epoch, self._rev, self._seconds = row.epoch + 1, row.rev, row.seconds
        finally:
            self._opening = False
            if self._epoch < 0:
                self._engine.dispose()  # refused: it keeps no connection either
        self._turns = TurnWriter(study=self._id, trials=snapshot.trials)
        self._last = None
        return snapshot

    def write(self, turn: Turn) -> None:
        if turn is self._last and self._turns.written is turn:
            return
        refuse_unfit(turn)
        tried, self._last = [turn] if turn is self._last else [], turn

        def put(connection: Connection) -> None:
            mine = (t.study.c.id == self._id) & (t.study.c.epoch == self._epoch)
            values: dict[str, Any] = {
                "rev": self._rev + 1,
                "lease_until": now() + self._lease_s,
                "updated": now(),
                "seconds": self._seconds + turn.seconds,
            }
            if turn.fenced:
                values["fenced"] = t.study.c.fenced + turn.fenced
            if turn.scores:
                values["tell_seq"] = max(score.tell_seq for score in turn.scores)
            statement = update(t.study).where(mine, t.study.c.rev == self._rev).values(**values)
            if connection.execute(statement).rowcount == 1:
                self._turns.write(connection, turn)
            elif not (tried and connection.scalar(select(t.study.c.rev).where(mine)) == self._rev + 1):
                raise self._lost(connection)
            tried.append(turn)

        self._transact(put)
        self._rev += 1
        self._seconds += turn.seconds
        self._turns.commit(turn)

    def renew(self, seconds: float) -> list[Command]:
        taken: dict[int, Command] = {}

        def prolong(connection: Connection) -> None:
            statement = (
                update(t.study)
                .where(t.study.c.id == self._id, t.study.c.epoch == self._epoch)
                .values(lease_until=now() + self._lease_s, seconds=self._seconds + seconds)
            )
            if connection.execute(statement).rowcount != 1:
                raise self._lost(connection)
            c = t.command.c
            rows = connection.execute(select(c.id, c.verb, c.payload).where(c.study == self._id).order_by(c.id)).all()
            if rows:
                connection.execute(delete(t.command).where(c.id.in_([row.id for row in rows])))
            # Those of an earlier try are kept: where only its answer was lost, they are gone from the table.
            taken.update({row.id: Command(verb=row.verb, payload=json.loads(row.payload)) for row in rows})

        self._transact(prolong)
        self._seconds += seconds
        return [taken[number] for number in sorted(taken)]

    def close(self, state: str, reason: str = "") -> None:
        def release(connection: Connection) -> None:
            connection.execute(
                update(t.study)
                .where(t.study.c.id == self._id, t.study.c.epoch == self._epoch)
                .values(**holder_columns(None), state=state, reason=clean(reason), lease_until=0.0, updated=now())
            )
            connection.execute(delete(t.command).where(t.command.c.study == self._id))

        self._transact(release)
        self._epoch = -1
        self._engine.dispose()

    def _lost(self, connection: Connection) -> StudyHeldError:
        if self._epoch < 0:
            return StudyHeldError("this store holds no study", hint="open one first")
        row = _find(connection, self._study)
        if row is None or row.id != self._id:
            return StudyHeldError(f"{self._study} was deleted while it ran")
        holder = holder_of(row)
        return held(self._study, holder, row.left) if holder else StudyHeldError(f"{self._study} was taken over")

    # Doors other than the coordinator

    def send(self, study: str, command: Command) -> bool:
        #: when the first try happened, by the database's clock: what it has left is known by it
        first: list[float] = []

        def leave(connection: Connection) -> bool:
            row = self._known(connection, study)
            first.append(float(connection.scalar(select(now())) or 0.0))
            table: Table = t.command
            columns: dict[str, Any] = {"verb": clean(command.verb), "payload": dumps(dict(command.payload))}
            if command.verb in ("note", "tag"):
                texts = {name: clean(str(command.payload.get(name, ""))) for name in ("address", "text")}
                table, columns = t.note, {"kind": command.verb, **texts}
            elif not _live(row):
                return False
            columns |= {"study": row.id, "created": first[0]}
            same = [table.c[name] == value for name, value in columns.items()]
            if len(first) > 1 and connection.scalar(select(table.c.id).where(*same)) is not None:
                return True
            connection.execute(insert(table).values(**columns))
            if table is t.note:
                connection.execute(update(t.study).where(t.study.c.id == row.id).values(updated=now()))
            return True

        return self._transact(leave)

    def delete(self, study: str) -> None:
        gone: list[int] = []

        def remove(connection: Connection) -> None:
            row = _find(connection, study) if gone else self._known(connection, study)
            if row is None or (gone and row.id not in gone):
                return
            _refuse_held(row, but=None)
            # Many rows go; each table by itself, for a cascade would look them up run by run.
            unhurried(connection)
            for table in (t.metric, t.sealed, t.layers, t.attempt, t.run, t.trial):
                connection.execute(delete(table).where(table.c.study == row.id))
            connection.execute(delete(t.study).where(t.study.c.id == row.id))
            gone.append(row.id)

        def tidy(connection: Connection) -> None:
            used = select(t.run.c.environment).where(t.run.c.environment.is_not(None))
            connection.execute(delete(t.environment).where(t.environment.c.sha256.not_in(used)))

        self._transact(remove)
        try:
            self._transact(tidy)
        except StoreError:  # another study has begun to use one; the next deletion takes what is left
            return

    def _known(self, connection: Connection, study: str) -> Row[Any]:
        row = _find(connection, study)
        if row is None:
            raise not_found(study, connection.scalars(select(t.study.c.name)))
        return row


def _find(connection: Connection, name: str) -> Row[Any] | None:
    """The study's row, locked, and ``left``: seconds that its lease still has."""
    left = (t.study.c.lease_until - now()).label("left")
    return connection.execute(select(t.study, left).where(t.study.c.name == name).with_for_update()).one_or_none()


def _live(row: Row[Any]) -> bool:
    holder = holder_of(row)
    return holder is not None and row.left > 0 and not holder.is_dead()


def _refuse_held(row: Row[Any], *, but: Holder | None) -> None:
    holder = holder_of(row)
    if holder is not None and holder != but and _live(row):
        raise held(row.name, holder, row.left)


def _loose(study: StudyRecord) -> dict[str, str]:
    """The columns that a later start may change."""
    texts = {"file": clean(study.file), "text": clean(study.text)}
    return {"spec": dumps(dict(study.spec)), "code_hash": study.code_hash, **texts}


def _create(connection: Connection, study: StudyRecord) -> list[int]:
    """Make the study's row; its id, or nothing where another process has made it at the same moment."""
    zero = {"rev": 0, "epoch": 0, "lease_until": 0.0, "seconds": 0.0, "tell_seq": 0, "fenced": 0}
    fixed = {"name": study.name, "fingerprint": study.fingerprint, "state": "running", "reason": ""}
    values = {**fixed, **zero, **_loose(study), "created": now(), "updated": now()}
    return list(connection.scalars(insert_new(connection, t.study).values(**values).returning(t.study.c.id)))


def _snapshot(connection: Connection, row: Row[Any], *, existed: bool) -> Snapshot:
    study = row.id
    trials = load_trials(connection, study) if existed else []
    a = t.attempt.c
    losses: dict[RunKey, dict[str, int]] = {}
    lost = select(a.trial, a.seed, a.repeat, a.cause).where(a.study == study, a.cause.is_not(None))
    for trial, seed, repeat, cause in connection.execute(lost):
        causes = losses.setdefault(RunKey(trial, seed, repeat), {})
        causes[cause] = causes.get(cause, 0) + 1
    running = [run.key for trial in trials for run in trial.runs if run.state is State.RUNNING]
    return Snapshot(
        existed=existed,
        trials=trials,
        running=running,
        losses=losses,
        seconds=row.seconds,
        rev=row.rev,
        grouped=load_decisions(connection, study, GROUPED) if existed else [],
    )
