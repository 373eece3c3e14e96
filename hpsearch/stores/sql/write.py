"""The record on SQL, as the coordinator writes it: every change is a guarded statement in one short transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update
from sqlalchemy.engine import URL

from hpsearch.archive import not_found
from hpsearch.errors import StudyHeldError
from hpsearch.store import (
    GROUPED,
    Command,
    Holder,
    Snapshot,
    Store,
    StudyRecord,
    Turn,
    clean,
    held,
    refuse_changed,
)
from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.engine import in_words, now
from hpsearch.stores.sql.rows import (
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


@final
class SqlStore(Store):
    """One coordinator's door to the record."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._url = url
        self._study = ""
        self._id = 0
        self._epoch = -1
        self._rev = 0
        self._lease_s = 0.0
        self._turns = TurnWriter(study=0)
        #: the turn whose outcome is unknown, or that was written last: writing it again must change nothing
        self._last: Turn | None = None

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with in_words(self._url), self._engine.begin() as connection:
            yield connection
        if self._epoch < 0 and not self._study:
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
        with self._transaction() as connection:
            row = _find(connection, study.name)
            if row is None:
                self._id = _create(connection, study)
                epoch, rev, seconds = 0, 0, 0.0
            else:
                self._id, epoch, rev, seconds = row.id, row.epoch, row.rev, row.seconds
                refuse_changed(record_of(row), study, allow_changed=allow_changed)
                _refuse_held(row, but=holder)
            columns = _loose(study) | holder_columns(holder)
            connection.execute(
                update(t.study)
                .where(t.study.c.id == self._id)
                .values(**columns, epoch=epoch + 1, state="running", reason="", lease_until=now() + lease_s)
            )
            # What was asked of a former coordinator is not meant for this one.
            connection.execute(delete(t.command).where(t.command.c.study == self._id))
            snapshot = replace(
                _snapshot(connection, self._id, existed=row is not None),
                seconds=seconds,
                rev=rev,
                curves={} if curves is None else first_told(connection, self._id, curves),
            )
        self._study, self._epoch, self._rev, self._lease_s = study.name, epoch + 1, rev, lease_s
        self._turns = TurnWriter(study=self._id, trials=snapshot.trials)
        self._last = None
        return snapshot

    def write(self, turn: Turn) -> None:
        if turn is self._last and self._turns.written is turn:
            return
        again, self._last = turn is self._last, turn
        with self._transaction() as connection:
            mine = (t.study.c.id == self._id) & (t.study.c.epoch == self._epoch)
            values: dict[str, Any] = {
                "rev": self._rev + 1,
                "lease_until": now() + self._lease_s,
                "updated": now(),
                "seconds": t.study.c.seconds + turn.seconds,
            }
            if turn.fenced:
                values["fenced"] = t.study.c.fenced + turn.fenced
            if turn.scores:
                values["tell_seq"] = max(score.tell_seq for score in turn.scores)
            statement = update(t.study).where(mine, t.study.c.rev == self._rev).values(**values)
            if connection.execute(statement).rowcount == 1:
                self._turns.write(connection, turn)
            elif not (again and connection.scalar(select(t.study.c.rev).where(mine)) == self._rev + 1):
                raise self._lost(connection)
        self._rev += 1
        self._turns.commit(turn)

    def renew(self, seconds: float) -> list[Command]:
        with self._transaction() as connection:
            statement = (
                update(t.study)
                .where(t.study.c.id == self._id, t.study.c.epoch == self._epoch)
                .values(lease_until=now() + self._lease_s, seconds=t.study.c.seconds + seconds)
            )
            if connection.execute(statement).rowcount != 1:
                raise self._lost(connection)
            c = t.command.c
            rows = connection.execute(select(c.id, c.verb, c.payload).where(c.study == self._id).order_by(c.id)).all()
            if rows:
                connection.execute(delete(t.command).where(c.study == self._id, c.id <= rows[-1].id))
        return [Command(verb=row.verb, payload=json.loads(row.payload)) for row in rows]

    def close(self, state: str, reason: str = "") -> None:
        with self._transaction() as connection:
            connection.execute(
                update(t.study)
                .where(t.study.c.id == self._id, t.study.c.epoch == self._epoch)
                .values(**holder_columns(None), state=state, reason=clean(reason), lease_until=0.0, updated=now())
            )
            connection.execute(delete(t.command).where(t.command.c.study == self._id))
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
        with self._transaction() as connection:
            row = self._known(connection, study)
            if command.verb in ("note", "tag"):
                texts = {name: clean(str(command.payload.get(name, ""))) for name in ("address", "text")}
                connection.execute(insert(t.note).values(study=row.id, kind=command.verb, **texts, created=now()))
                connection.execute(update(t.study).where(t.study.c.id == row.id).values(updated=now()))
                return True
            if not _live(row):
                return False
            payload = dumps(dict(command.payload))
            connection.execute(
                insert(t.command).values(study=row.id, verb=clean(command.verb), payload=payload, created=now())
            )
        return True

    def delete(self, study: str) -> None:
        with self._transaction() as connection:
            row = self._known(connection, study)
            _refuse_held(row, but=None)
            connection.execute(delete(t.study).where(t.study.c.id == row.id))
            used = select(t.run.c.environment).where(t.run.c.environment.is_not(None))
            connection.execute(delete(t.environment).where(t.environment.c.sha256.not_in(used)))

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


def _create(connection: Connection, study: StudyRecord) -> int:
    zero = {"rev": 0, "epoch": 0, "lease_until": 0.0, "seconds": 0.0, "tell_seq": 0, "fenced": 0}
    fixed = {"name": study.name, "fingerprint": study.fingerprint, "state": "running", "reason": ""}
    result = connection.execute(insert(t.study).values(**fixed, **zero, **_loose(study), created=now(), updated=now()))
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def _snapshot(connection: Connection, study: int, *, existed: bool) -> Snapshot:
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
        seconds=0.0,
        rev=0,
        grouped=load_decisions(connection, study, GROUPED) if existed else [],
    )
