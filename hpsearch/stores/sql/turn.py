"""One turn as statements: only those it needs, each for all its rows at once.

An UPDATE names the states that it may leave; where it meets fewer rows than the turn has, nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from typing import Any, final

from sqlalchemy import Connection, Update, bindparam, case, delete, func, insert, select, text, update

from hpsearch.errors import StoreError
from hpsearch.store import Turn, clean
from hpsearch.stores.sql import tables as t
from hpsearch.stores.sql.engine import insert_many, insert_new
from hpsearch.stores.sql.rows import (
    CHECKPOINT,
    chunks,
    decision_rows,
    dumps,
    environment_row,
    finite,
    key_of,
    norms_text,
)
from hpsearch.trial import EpochReport, Finished, PausedReport, Run, RunKey, State, Trial

#: metrics of the test set: sealed, wherever they come from
SEALED = "test_"
#: the epoch of a sealed metric that belongs to the finished run
WHOLE = -1

Rows = list[dict[str, Any]]


def _run_update(*states: str, attempt: bool = True) -> Update:
    """An UPDATE of the run that ``key_`` parameters name, in these states only, and of this attempt only."""
    c = t.run.c
    names = ["study", "trial", "seed", "repeat", *(["attempt"] if attempt else [])]
    # The states are spelled out: an expanding IN cannot be executed for many rows at once.
    return update(t.run).where(
        *[c[name] == bindparam(f"key_{name}") for name in names], text(t.one_of("state", states))
    )


def _set(*names: str) -> dict[str, Any]:
    return {name: bindparam(f"set_{name}") for name in names}


_MORE = t.run.c.seconds + bindparam("set_seconds")
_FINISH = _run_update(*t.OPEN).values(
    **_set("state", "value", "best_epoch", "last_epoch", "reason", "error", "ended"),
    **_set("worker", "engine", "returned", "environment"),
    seconds=_MORE,
)
_PAUSE = _run_update("running").values(
    state="paused", seconds=_MORE, **_set("last_epoch", "worker", "engine", "environment")
)
_REQUEUE = _run_update("running", "paused").values(state="queued")
_CANCEL = _run_update("queued", "paused", attempt=False).values(state="cancelled", ended=bindparam("set_ended"))
_CLAIM = _run_update("queued", "paused", attempt=False).values(
    state="running",
    # A paused run that goes on keeps its start.
    started=case(
        (t.run.c.attempt == bindparam("set_attempt"), t.run.c.started), else_=bindparam("set_started")
    ),
    attempt=bindparam("set_attempt"),
)  # fmt: skip
_LOSE = (
    update(t.attempt)
    .where(*[t.attempt.c[n] == bindparam(f"key_{n}") for n in ("study", "trial", "seed", "repeat", "attempt")])
    .where(t.attempt.c.cause.is_(None))
    .values(**_set("ended", "cause", "seconds", "worker"))
)
_SCORE = (
    update(t.trial)
    .where(t.trial.c.study == bindparam("key_study"), t.trial.c.number == bindparam("key_number"))
    .where(t.trial.c.state == "queued")
    .values(**_set("state", "value", "sd", "tell_seq"))
)


@final
class TurnWriter:
    """Writes the turns of one study, and remembers what spares it a question to the database."""

    def __init__(self, *, study: int, trials: Sequence[Trial] = ()) -> None:
        self.study = study
        self.written: Turn | None = None
        runs = [run for trial in trials for run in trial.runs if not run.state.final]
        #: of runs that are not final: the last attempt in the record, and the last epoch of that attempt
        self._attempts = {run.key: run.attempt for run in runs if run.attempt}
        self._epochs = {run.key: -1 if run.last_epoch is None else run.last_epoch for run in runs if run.attempt}
        #: how many runs each trial has
        self._places = {trial.number: len(trial.runs) for trial in trials}
        self._environments: set[str] = set()

    def write(self, connection: Connection, turn: Turn) -> None:
        """All of the turn, in the order that ``Turn`` says."""
        at = time.time()
        self._insert_trials(connection, turn)
        self._insert_runs(connection, turn)
        self._insert_decisions(connection, turn, at)
        self._insert_metrics(connection, turn)
        environments = self._insert_environments(connection, turn)
        pauses = [
            self._run(p.run, p.attempt) | {"set_last_epoch": p.epoch} | _trained(p, environments) for p in turn.pauses
        ]
        self._guarded(connection, _PAUSE, pauses, "a paused run")
        finished = [self._finish(report, at, environments) for report in turn.finished]
        self._guarded(connection, _FINISH, finished, "a finished run")
        self._keep(connection, turn, at)
        self._lose(connection, turn, at)
        cancelled = [self._run(key) | {"set_ended": at} for key in turn.cancelled]
        self._guarded(connection, _CANCEL, cancelled, "a cancelled run")
        scores = [
            {
                "key_study": self.study,
                "key_number": score.number,
                "set_state": str(score.state),
                "set_value": score.value,
                "set_sd": score.sd,
                "set_tell_seq": score.tell_seq,
            }
            for score in turn.scores
        ]
        self._guarded(connection, _SCORE, scores, "a trial's score")
        self._claim(connection, turn, at)

    def commit(self, turn: Turn) -> None:
        """The turn is durable: remember it."""
        self.written = turn
        self._places.update({trial.number: len(trial.runs) for trial in turn.trials})
        for run in turn.runs:
            self._places[run.key.trial] += 1
        reports: list[PausedReport | Finished] = [*turn.pauses, *turn.finished]
        self._environments |= {environment_row(r.environment)["sha256"] for r in reports if r.environment}
        for report in turn.epochs:
            self._epochs[report.run] = max(report.epoch, self._epochs.get(report.run, -1))
        for claim in turn.claims:
            if self._attempts.get(claim.run) != claim.attempt:
                self._attempts[claim.run], self._epochs[claim.run] = claim.attempt, -1
        for key in [*(report.run for report in turn.finished), *turn.cancelled]:
            self._attempts.pop(key, None)
            self._epochs.pop(key, None)

    def _run(self, key: RunKey, attempt: int | None = None) -> dict[str, Any]:
        names = {"study": self.study, **key_of(key)} | ({} if attempt is None else {"attempt": attempt})
        return {f"key_{name}": value for name, value in names.items()}

    def _guarded(self, connection: Connection, statement: Update, rows: Rows, what: str) -> None:
        if not rows:
            return
        met = connection.execute(statement, rows).rowcount
        if met != len(rows):
            raise StoreError(
                f"the record refused a turn: {what} is unknown, final already or of another attempt "
                f"({met} of {len(rows)} fit); nothing of the turn was written",
                hint="this is a fault of hpsearch; hpsearch resume starts from what is recorded",
            )

    def _insert_trials(self, connection: Connection, turn: Turn) -> None:
        if not turn.trials:
            return
        trials = [
            {
                "study": self.study,
                "number": trial.number,
                "params": dumps(dict(trial.params)),
                "state": str(trial.state) if trial.state.final else "queued",
                "value": trial.value,
                "sd": trial.sd,
                "baseline": trial.baseline,
                "batch": trial.batch,
                "history_seq": trial.history_seq,
                "tell_seq": trial.tell_seq,
            }
            for trial in turn.trials
        ]
        insert_many(connection, t.trial, trials)
        runs = [self._new_run(run, place) for trial in turn.trials for place, run in enumerate(trial.runs)]
        if runs:
            insert_many(connection, t.run, runs)

    def _insert_runs(self, connection: Connection, turn: Turn) -> None:
        if not turn.runs:
            return
        numbers = {run.key.trial for run in turn.runs}
        c = t.trial.c
        final = select(func.count()).where(c.study == self.study, c.number.in_(numbers), c.state.in_(t.FINAL))
        if connection.scalar(final) != len(numbers):
            raise StoreError("the record refused a turn: a further run's trial is unknown, or not final")
        places = {number: count(self._places[number]) for number in numbers}
        insert_many(connection, t.run, [self._new_run(run, next(places[run.key.trial])) for run in turn.runs])

    def _new_run(self, run: Run, place: int) -> dict[str, Any]:
        blank = {"attempt": 0, "reason": "", "error": "", "seconds": 0.0, "worker": "", "returned": "{}"}
        key = {"study": self.study, **key_of(run.key)}
        return {**key, "place": place, "stage": str(run.stage), "state": "queued", **blank}

    def _insert_decisions(self, connection: Connection, turn: Turn, at: float) -> None:
        if rows := decision_rows(self.study, turn.decisions, at):
            connection.execute(insert(t.decision), rows)

    def _insert_metrics(self, connection: Connection, turn: Turn) -> None:
        metrics, sealed, layers = Rows(), Rows(), Rows()
        for report in self._fresh(turn.epochs):
            place = {"study": self.study, **key_of(report.run), "attempt": report.attempt, "epoch": report.epoch}
            for name, value in finite(report.metrics).items():
                (sealed if name.startswith(SEALED) else metrics).append(place | {"name": name, "value": value})
            if report.layers:
                layers.append(place | {"norms": norms_text(report.layers)})
        for done in turn.finished:
            place = {"study": self.study, **key_of(done.run), "attempt": done.attempt, "epoch": WHOLE}
            kept = {name: value for name, value in done.metrics.items() if name.startswith(SEALED)} | dict(done.sealed)
            sealed += [place | {"name": name, "value": value} for name, value in finite(kept).items()]
        for table, rows in ((t.metric, metrics), (t.sealed, sealed), (t.layers, layers)):
            if rows:
                insert_many(connection, table, rows)

    def _fresh(self, reports: Sequence[EpochReport]) -> list[EpochReport]:
        """Without the epochs that a run has reported before it paused and lost its way back to them."""
        last, fresh = dict(self._epochs), []
        for report in reports:
            if report.epoch > last.get(report.run, -1):
                last[report.run] = report.epoch
                fresh.append(report)
        return fresh

    def _insert_environments(self, connection: Connection, turn: Turn) -> dict[RunKey, str]:
        reports: list[PausedReport | Finished] = [*turn.pauses, *turn.finished]
        rows = {report.run: environment_row(report.environment) for report in reports if report.environment}
        new = {row["sha256"]: row for row in rows.values() if row["sha256"] not in self._environments}
        if new:
            # Held until this turn is written: a deletion of other studies must not take it away meanwhile.
            known = select(t.environment.c.sha256).where(t.environment.c.sha256.in_(list(new)))
            known = known.with_for_update(read=True, key_share=True)
            for sha256 in connection.scalars(known).all():
                del new[sha256]
        if new:
            connection.execute(insert_new(connection, t.environment), list(new.values()))
        return {key: row["sha256"] for key, row in rows.items()}

    def _finish(self, report: Finished, at: float, environments: dict[RunKey, str]) -> dict[str, Any]:
        returned = {name: value for name, value in finite(report.metrics).items() if not name.startswith(SEALED)}
        return self._run(report.run, report.attempt) | {
            "set_state": str(report.state) if report.state.final else _not_final(report.state),
            "set_value": report.value,
            "set_best_epoch": report.best_epoch,
            "set_last_epoch": report.last_epoch,
            "set_reason": clean(report.reason),
            "set_error": clean(report.error),
            "set_ended": at,
            "set_returned": dumps(returned),
            **_trained(report, environments),
        }

    def _keep(self, connection: Connection, turn: Turn, at: float) -> None:
        """Checkpoints that are there now, and those that are not kept."""
        same = {"study": self.study, "name": CHECKPOINT, "created": at}
        rows = [
            {**same, "address": str(done.run), **asdict(done.checkpoint)}
            for done in turn.finished
            if done.checkpoint is not None
        ]
        if rows:
            insert_many(connection, t.artifact, rows)
        a = t.artifact.c
        for part in chunks([str(key) for key in turn.forgotten]):
            mine = (a.study == self.study) & (a.name == CHECKPOINT) & a.address.in_(part)
            connection.execute(delete(t.artifact).where(mine))

    def _lose(self, connection: Connection, turn: Turn, at: float) -> None:
        done = {report.run for report in turn.finished}
        requeued = [self._run(lost.run, lost.attempt) for lost in turn.losses if lost.run not in done]
        self._guarded(connection, _REQUEUE, requeued, "a lost run")
        rows = [
            self._run(lost.run, lost.attempt)
            | {
                "set_ended": at,
                "set_cause": clean(lost.cause),
                "set_seconds": lost.seconds,
                "set_worker": clean(lost.worker),
            }
            for lost in turn.losses
        ]
        self._guarded(connection, _LOSE, rows, "a lost attempt")

    def _claim(self, connection: Connection, turn: Turn, at: float) -> None:
        rows = [self._run(c.run) | {"set_attempt": c.attempt, "set_started": at} for c in turn.claims]
        self._guarded(connection, _CLAIM, rows, "a claimed run")
        attempts = [
            {"study": self.study, **key_of(c.run), "attempt": c.attempt, "started": at, "seconds": 0.0, "worker": ""}
            for c in turn.claims
            if self._attempts.get(c.run) != c.attempt
        ]
        if attempts:
            insert_many(connection, t.attempt, attempts)


def _trained(report: PausedReport | Finished, environments: dict[RunKey, str]) -> dict[str, Any]:
    """How long, by whom and how the run was trained."""
    return {
        "set_seconds": report.seconds,
        "set_worker": clean(report.worker),
        "set_engine": clean(report.engine),
        "set_environment": environments.get(report.run),
    }


def _not_final(state: State) -> str:
    raise StoreError(f"a finished run cannot be {state}")
