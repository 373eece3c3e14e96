"""The record on SQL, as everyone else reads it. A connection for every call, so that no lock outlives it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

from sqlalchemy import Connection, Engine, Row, Select, and_, distinct, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from hpsearch.archive import (
    Archive,
    Changes,
    Curve,
    Outline,
    Revision,
    StudySummary,
    as_seen,
    changed,
    not_found,
    stitched,
)
from hpsearch.errors import NotFoundError, StoreError
from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.engine import in_words, make_engine, now, path_of, redacted
from hpsearch.stores.sql.migrate import HEAD, revision
from hpsearch.stores.sql.rows import (
    CHECKPOINT,
    chunks,
    holder_of,
    load_decisions,
    load_outlines,
    load_trials,
    norms_of,
)
from hpsearch.strategy import Decision
from hpsearch.trial import Checkpoint, Direction, Lost, RunKey, State, Trial

NO_STUDY = "hpsearch run STUDY.yaml makes the first one; --db or HPSEARCH_DB names another database"


@final
class SqlArchive(Archive):
    """A reader's door to the record."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._url = url
        self._checked = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One connection, for one short transaction."""
        with in_words(self._url), self._connect() as connection:
            if not self._checked:
                self._check(connection)
            yield connection

    def damage(self) -> tuple[list[str], list[str]]:
        """What is wrong with the database itself, and what could not be looked at (``sound``)."""
        from hpsearch.stores.sql.sound import check_database

        return check_database(self._url)

    def _connect(self) -> Connection:
        if path_of(self._url) is None:
            return self._engine.connect()
        try:
            connection = self._engine.connect()
            connection.exec_driver_sql("SELECT name FROM sqlite_master")
        except OperationalError:
            self._roll_back()
            connection = self._engine.connect()
        return connection

    def _roll_back(self) -> None:
        """Where a killed writer has left a journal, only a connection that may write can undo what it began."""
        path = path_of(self._url)
        if path is None or not any(path.with_name(path.name + end).exists() for end in ("-journal", "-wal")):
            return
        engine = make_engine(self._url, "rw")
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT name FROM sqlite_master").all()
        engine.dispose()

    def _check(self, connection: Connection) -> None:
        found = revision(connection, self._url)
        if found is None:
            raise NotFoundError(f"{redacted(self._url)} is empty: no study was ever stored in it", hint=NO_STUDY)
        if found != HEAD:
            raise StoreError(
                f"{redacted(self._url)} has the older schema {found!r}; reading changes nothing",
                hint="hpsearch db upgrade upgrades it, after a backup",
            )
        self._checked = True

    # Studies

    def studies(self) -> list[StudySummary]:
        with self.reading() as connection:
            rows = connection.execute(_STUDIES.order_by(t.study.c.updated.desc(), t.study.c.id.desc())).all()
            return _summaries(connection, rows, every=True)

    def study(self, name: str) -> StudySummary:
        with self.reading() as connection:
            return _summaries(connection, [find(connection, name)], every=False)[0]

    def revisions(self) -> dict[str, Revision]:
        with self.reading() as connection:
            return {
                row.name: Revision(
                    created=row.created,
                    opened=row.epoch,
                    rev=row.rev,
                    state=_state(row, live=_live(row)),
                    said=row.said,
                )
                for row in connection.execute(_REVISIONS)
            }

    # What is in one

    def changes(self, study: str, known: Mapping[int, Outline], *, decisions: int = 0, most: int = 1000) -> Changes:
        with self.reading() as connection:
            row = find(connection, study)
            summary = _summaries(connection, [row], every=False)[0]
            # Whether its coordinator lives is asked once: all that is told must be of one moment.
            state, live = summary.state, bool(summary.holder)
            said = connection.scalar(select(func.count()).where(t.note.c.study == row.id)) or 0
            outlines = load_outlines(connection, row.id)
            numbers, left = changed(known, outlines, most)
            return Changes(
                revision=Revision(created=row.created, opened=row.epoch, rev=row.rev, state=state, said=said),
                summary=summary,
                trials=[as_seen(trial, live=live) for trial in load_trials(connection, row.id, numbers)],
                outlines={number: outlines[number] for number in numbers},
                left=left,
                decisions=load_decisions(connection, row.id, after=decisions),
            )

    def trials(self, study: str, numbers: Sequence[int] | None = None) -> list[Trial]:
        with self.reading() as connection:
            row = find(connection, study)
            live = _live(row)
            return [as_seen(trial, live=live) for trial in load_trials(connection, row.id, numbers)]

    def values(self, study: str) -> list[tuple[int, float]]:
        c = t.trial.c
        with self.reading() as connection:
            row = find(connection, study)
            query = select(c.number, c.value).where(c.study == row.id, c.state == "complete").order_by(c.number)
            return [(number, value) for number, value in connection.execute(query)]

    def curves(self, study: str, numbers: Sequence[int], metrics: Sequence[str] | None = None) -> list[Curve]:
        m = t.metric.c
        told: dict[RunKey, dict[tuple[int, int], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        last: dict[RunKey, int] = {}
        returned: dict[tuple[RunKey, str], tuple[int, float]] = {}
        with self.reading() as connection:
            row = find(connection, study)
            for part in chunks(sorted(set(numbers))):
                columns = (m.trial, m.seed, m.repeat, m.name, m.attempt, t.run.c.attempt, m.epoch, m.value)
                query = _counting(t.metric, select(*columns)).where(m.study == row.id, m.trial.in_(part))
                if metrics is not None:
                    query = query.where(m.name.in_(list(metrics)))
                for trial, seed, repeat, name, attempt, counting, epoch, value in connection.execute(query):
                    key = RunKey(trial, seed, repeat)
                    last[key] = counting
                    told[key][attempt, epoch][name] = value
                for key, epoch, name, value in _returned(connection, row.id, part):
                    if metrics is None or name in metrics:
                        returned[key, name] = (epoch, value)
        points: dict[tuple[RunKey, str], list[tuple[int, float]]] = defaultdict(list)
        for key, tables in told.items():
            for epoch, table in stitched([(*place, table) for place, table in tables.items()], last[key]):
                for name, value in table.items():
                    points[key, name].append((epoch, value))
        for of, point in returned.items():
            points[of] = points.get(of) or [point]
        return [
            Curve(run=key, metric=name, epochs=[e for e, _ in course], values=[v for _, v in course])
            for (key, name), course in sorted(points.items(), key=lambda item: item[0])
        ]

    def layers(self, study: str, run: RunKey) -> list[tuple[int, Mapping[str, tuple[float, float]]]]:
        c = t.layers.c
        with self.reading() as connection:
            row = find(connection, study)
            query = _counting(t.layers, select(c.attempt, t.run.c.attempt.label("last"), c.epoch, c.norms))
            query = query.where(c.study == row.id, c.trial == run.trial, c.seed == run.seed, c.repeat == run.repeat)
            rows = connection.execute(query).all()
        course = stitched([(row.attempt, row.epoch, row.norms) for row in rows], rows[0].last if rows else 0)
        return [(epoch, norms_of(norms)) for epoch, norms in course]

    def checkpoints(self, study: str) -> dict[RunKey, Checkpoint]:
        a = t.artifact.c
        query = select(a.address, a.path, a.sha256, a.bytes).where(a.name == CHECKPOINT).order_by(a.id)
        with self.reading() as connection:
            rows = connection.execute(query.where(a.study == find(connection, study).id)).all()
        return {
            RunKey.of(address): Checkpoint(path=path, sha256=sha256, bytes=size) for address, path, sha256, size in rows
        }

    def losses(self, study: str) -> list[Lost]:
        a = t.attempt.c
        query = select(a.trial, a.seed, a.repeat, a.attempt, a.cause, a.seconds, a.worker)
        query = query.where(a.cause.is_not(None)).order_by(a.ended, a.trial, a.seed, a.repeat, a.attempt)
        with self.reading() as connection:
            rows = connection.execute(query.where(a.study == find(connection, study).id)).all()
        return [
            Lost(run=RunKey(trial, seed, repeat), attempt=attempt, cause=cause, seconds=seconds, worker=worker)
            for trial, seed, repeat, attempt, cause, seconds, worker in rows
        ]

    def decisions(self, study: str) -> list[Decision]:
        with self.reading() as connection:
            return load_decisions(connection, find(connection, study).id)


def read_sealed(archive: SqlArchive, study: str, runs: Sequence[RunKey]) -> dict[RunKey, dict[str, float]]:
    """The test metrics of runs, of the attempt that counts: what it returned, else what it reported last."""
    c, found = t.sealed.c, dict[RunKey, dict[str, float]]()
    with archive.reading() as connection:
        row = find(connection, study)
        for key in runs:
            mine = (c.study == row.id) & (c.trial == key.trial) & (c.seed == key.seed) & (c.repeat == key.repeat)
            query = _counting(t.sealed, select(c.attempt, t.run.c.attempt.label("last"), c.epoch, c.name, c.value))
            rows = [one for one in connection.execute(query.where(mine)) if one.attempt == one.last]
            # Epoch -1 is of the finished run: what it returned counts more than any epoch's.
            rows.sort(key=lambda one: (one.epoch < 0, one.epoch))
            if rows:
                found[key] = {one.name: one.value for one in rows}
    return found


_REVISIONS: Select[Any] = select(
    *[t.study.c[name] for name in ("name", "rev", "epoch", "state", "host", "pid", "boot_id", "started", "created")],
    (t.study.c.lease_until - now()).label("left"),
    select(func.count()).where(t.note.c.study == t.study.c.id).scalar_subquery().label("said"),
)  # fmt: skip
_STUDIES = select(t.study, (t.study.c.lease_until - now()).label("left"))


def find(connection: Connection, name: str) -> Row[Any]:
    """A study's row, and ``left``: seconds that its lease still has."""
    row = connection.execute(_STUDIES.where(t.study.c.name == name)).one_or_none()
    if row is None:
        raise not_found(name, connection.scalars(select(t.study.c.name)))
    return row


def _live(row: Row[Any]) -> bool:
    holder = holder_of(row)
    return holder is not None and row.left > 0 and not holder.is_dead()


def _state(row: Row[Any], *, live: bool) -> str:
    """As a reader sees it: nothing runs where nobody is."""
    return "interrupted" if row.state == "running" and not live else str(row.state)


def _counting(table: Any, query: Select[Any]) -> Select[Any]:
    """The rows of runs whose last attempt counts (it was not lost), of all their attempts, ordered for ``stitched``."""
    key = ("study", "trial", "seed", "repeat")
    query = query.join(t.run, _same(table, t.run, key)).join(t.attempt, _same(t.run, t.attempt, (*key, "attempt")))
    return query.where(t.attempt.c.cause.is_(None)).order_by(table.c.attempt, table.c.epoch)


def _same(a: Any, b: Any, names: Sequence[str]) -> Any:
    return and_(*[a.c[name] == b.c[name] for name in names])


def _returned(connection: Connection, study: int, numbers: Sequence[int]) -> Iterator[tuple[RunKey, int, str, float]]:
    r = t.run.c
    query = select(r.trial, r.seed, r.repeat, r.last_epoch, r.returned)
    query = query.where(r.study == study, r.trial.in_(numbers), r.returned != "{}")
    for trial, seed, repeat, last, returned in connection.execute(query):
        for name, value in json.loads(returned).items():
            yield RunKey(trial, seed, repeat), last or 0, name, value


def _summaries(connection: Connection, rows: Sequence[Row[Any]], *, every: bool) -> list[StudySummary]:
    """Counted by the database: reading all trials to count them would take seconds."""
    ids = [row.id for row in rows]
    c, n = t.trial.c, t.note.c
    stored = select(c.study, c.state, func.count()).group_by(c.study, c.state)
    notes = select(n.study, n.kind, n.address, n.text).order_by(n.id)
    if not every:
        stored, notes = stored.where(c.study.in_(ids)), notes.where(n.study.in_(ids))
    counts: dict[int, dict[State, int]] = defaultdict(dict)
    for study, state, count in connection.execute(stored):
        counts[study][State(state)] = count
    words: dict[int, list[tuple[str, str, str]]] = defaultdict(list)
    for study, kind, address, text in connection.execute(notes):
        words[study].append((kind, address, text))
    return [_summary(connection, row, counts[row.id], words[row.id]) for row in rows]


def _summary(
    connection: Connection, row: Row[Any], counts: dict[State, int], words: list[tuple[str, str, str]]
) -> StudySummary:
    spec, live = json.loads(row.spec), _live(row)
    holder = holder_of(row)
    state, reason = _state(row, live=live), row.reason
    if state != row.state:
        reason = f"its coordinator ({holder}) is gone"
    tags = [*spec.get("tags", ()), *(text for kind, _, text in words if kind == "tag")]
    return StudySummary(
        name=row.name,
        state=state,
        reason=reason,
        spec=spec,
        fingerprint=row.fingerprint,
        code_hash=row.code_hash,
        file=row.file,
        text=row.text,
        counts=_open_counts(connection, row.id, counts, live=live),
        best=_best(connection, row.id, Direction(spec.get("direction", "minimize"))),
        created=row.created,
        updated=row.updated,
        seconds=row.seconds,
        holder=str(holder) if live else "",
        rev=row.rev,
        fenced=row.fenced,
        notes=[(address, text) for kind, address, text in words if kind == "note"],
        tags=list(dict.fromkeys(tags)),
    )


def _open_counts(connection: Connection, study: int, stored: dict[State, int], *, live: bool) -> dict[State, int]:
    """The stored counts, with the open trials told apart by their runs."""
    waiting = stored.get(State.QUEUED, 0)
    if not waiting:
        return stored
    r, c = t.run.c, t.trial.c
    told = select(r.trial, func.max(r.state).label("state")).join(
        t.trial, (c.study == r.study) & (c.number == r.trial) & (c.state == "queued")
    )
    # "running" comes after "paused" in the alphabet, and it is the stronger one.
    told = told.where(r.study == study, r.state.in_(["running", "paused"] if live else ["paused"]))
    each = told.group_by(r.trial).subquery()
    counts = dict(stored)
    for state, count in connection.execute(select(each.c.state, func.count(distinct(each.c.trial))).group_by("state")):
        counts[State(state)] = count
        counts[State.QUEUED] -= count
    return {state: count for state, count in counts.items() if count}


def _best(connection: Connection, study: int, direction: Direction) -> tuple[int, float, float | None] | None:
    c = t.trial.c
    order = c.value.asc() if direction is Direction.MINIMIZE else c.value.desc()
    query = select(c.number, c.value, c.sd).where(c.study == study, c.state == "complete")
    row = connection.execute(query.order_by(order, c.number).limit(1)).one_or_none()
    return None if row is None else (row.number, row.value, row.sd)
