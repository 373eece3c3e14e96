"""Between our things and rows: text and JSON on their way in, trials and runs on their way out."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, func, select

from hpsearch.archive import Outline, state_of
from hpsearch.store import Holder, StudyRecord, clean
from hpsearch.stores.sql import tables as t
from hpsearch.strategy import Decision
from hpsearch.trial import Environment, Run, RunKey, Stage, State, Trial

T = TypeVar("T")
#: the name of an artifact that is a run's checkpoint
CHECKPOINT = "checkpoint"
#: items in one IN (...): SQLite takes 999 variables in its oldest builds
CHUNK = 500


def dumps(value: object) -> str:
    """JSON in ASCII: what a text column could not hold is escaped, and comes back as it went."""
    return json.dumps(value, separators=(",", ":"))


def key_of(key: RunKey) -> dict[str, int]:
    """A run's key, as the parameters of a guarded UPDATE or the columns of an INSERT."""
    return {"trial": key.trial, "seed": key.seed, "repeat": key.repeat}


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """These metrics as floats, without the non-finite ones: they are stored as no row."""
    return {clean(name): float(value) for name, value in metrics.items() if math.isfinite(value)}


def environment_row(environment: Environment) -> dict[str, str]:
    """An environment, named by its content."""
    facts = json.dumps(asdict(environment), sort_keys=True)
    return {"sha256": hashlib.sha256(facts.encode()).hexdigest(), "facts": facts}


def norms_text(layers: Mapping[str, tuple[float, float]]) -> str:
    """Layer norms as one packed text; a non-finite norm is null."""
    return dumps({name: [x if math.isfinite(x) else None for x in pair] for name, pair in layers.items()})


def norms_of(text: str) -> dict[str, tuple[float, float]]:
    """The inverse of ``norms_text``; null is NaN."""
    pairs = json.loads(text).items()
    return {name: (math.nan if g is None else g, math.nan if w is None else w) for name, (g, w) in pairs}


def holder_of(row: Row[Any]) -> Holder | None:
    """Who holds this study; None where nobody does."""
    if row.host is None:
        return None
    return Holder(host=row.host, pid=row.pid, boot_id=row.boot_id, started=int(row.started))


def holder_columns(holder: Holder | None) -> dict[str, Any]:
    """The columns of ``study`` that name its holder."""
    return asdict(holder) if holder else dict.fromkeys(("host", "pid", "boot_id", "started"))


def record_of(row: Row[Any]) -> StudyRecord:
    """The stored study."""
    return StudyRecord(
        name=row.name,
        spec=json.loads(row.spec),
        fingerprint=row.fingerprint,
        code_hash=row.code_hash,
        file=row.file,
        text=row.text,
    )


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """These items, a part at a time."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def load_trials(connection: Connection, study: int, numbers: Sequence[int] | None = None) -> list[Trial]:
    """These trials (all, where None) with their runs, in number order."""
    if numbers is None:
        return _trials(connection, study, _TRIALS, _RUNS)
    wanted = sorted(set(numbers))
    found: list[Trial] = []
    for part in chunks(wanted):
        trials = _TRIALS.where(t.trial.c.number.in_(part))
        found += _trials(connection, study, trials, _RUNS.where(t.run.c.trial.in_(part)))
    return found


def load_outlines(connection: Connection, study: int) -> dict[int, Outline]:
    """Of all trials, by number. Three simple queries: one with all the sums costs twice as much."""
    runs: dict[int, int] = dict(iter(connection.execute(_COUNTS.where(_R.study == study))))
    unfinished: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for number, state, attempt, epoch in connection.execute(_OPEN_RUNS.where(_R.study == study)):
        unfinished[number].append((state, attempt, epoch or 0))
    found: dict[int, Outline] = {}
    #: most trials are over, and alike: they share one outline
    over: dict[tuple[str, int], Outline] = {}
    for number, state in connection.execute(select(_T.number, _T.state).where(_T.study == study)):
        alike, own = (state, runs.get(number, 0)), unfinished.get(number)
        if own is None:
            found[number] = over.get(alike) or over.setdefault(alike, _outline(*alike, ()))
        else:
            found[number] = _outline(*alike, own)
    return found


def _outline(state: str, runs: int, unfinished: Sequence[tuple[str, int, int]]) -> Outline:
    states = [state for state, _, _ in unfinished]
    return Outline(
        final=state in t.FINAL,
        runs=runs,
        queued=states.count("queued"),
        running=states.count("running"),
        paused=states.count("paused"),
        attempts=sum(attempt for _, attempt, _ in unfinished),
        epochs=sum(epoch for _, _, epoch in unfinished),
    )


def decision_rows(study: int, decisions: Iterable[Decision], at: float) -> list[dict[str, Any]]:
    """Rows of ``table.decision``; ``at``: seconds since 1970."""
    return [
        {
            "study": study,
            "kind": clean(decision.kind),
            "subject": clean(decision.subject),
            "reason": clean(decision.reason),
            "details": dumps(dict(decision.details)),
            "batch": decision.batch,
            "created": at,
        }
        for decision in decisions
    ]


def load_decisions(connection: Connection, study: int, kind: str | None = None, *, after: int = 0) -> list[Decision]:
    """What was decided (all of it, or what is of this kind), oldest first, without the first ``after``."""
    c = t.decision.c
    query = select(c.kind, c.subject, c.reason, c.details, c.batch).where(c.study == study).order_by(c.id)
    if after:
        query = query.offset(after)
    rows = connection.execute(query if kind is None else query.where(c.kind == kind))
    return [
        Decision(kind=kind, subject=subject, reason=reason, details=json.loads(details), batch=batch)
        for kind, subject, reason, details, batch in rows
    ]


def first_told(connection: Connection, study: int, metric: str) -> dict[RunKey, dict[int, float]]:
    """The curves of a metric: run -> epoch -> its value as it was reported first, whichever attempt did."""
    m = t.metric.c
    query = select(m.trial, m.seed, m.epoch, m.value).order_by(m.trial, m.seed, m.attempt, m.epoch)
    told: dict[RunKey, dict[int, float]] = defaultdict(dict)
    for trial, seed, epoch, value in connection.execute(
        query.where(m.study == study, m.repeat == 0, m.name == clean(metric))
    ):
        told[RunKey(trial, seed)].setdefault(epoch, value)
    return dict(told)


_T, _R = t.trial.c, t.run.c
_TRIALS = select(
    _T.number, _T.params, _T.state, _T.value, _T.sd, _T.baseline, _T.batch, _T.history_seq, _T.tell_seq
).order_by(_T.number)  # fmt: skip
_RUNS = select(
    _R.trial, _R.seed, _R.repeat, _R.stage, _R.state, _R.attempt, _R.value, _R.best_epoch, _R.last_epoch, _R.reason,
    _R.error, _R.started, _R.ended, _R.seconds, _R.worker, _R.engine, _R.environment,
).order_by(_R.trial)  # fmt: skip
_COUNTS = select(_R.trial, func.count()).group_by(_R.trial)
_OPEN_RUNS = select(_R.trial, _R.state, _R.attempt, _R.last_epoch).where(_R.state.in_(t.OPEN))
_STATES = {str(state): state for state in State}
_STAGES = {str(stage): stage for stage in Stage}


def _trials(connection: Connection, study: int, trials: Select[Any], runs: Select[Any]) -> list[Trial]:
    runs_of = _runs(connection, runs.where(_R.study == study))
    found = []
    for number, params, stored, value, sd, baseline, batch, history_seq, tell_seq in connection.execute(
        trials.where(_T.study == study)
    ):
        own = tuple(runs_of[number])
        state = _STATES[stored]
        found.append(
            Trial(
                number=number,
                params=json.loads(params),
                state=state if state.final else state_of(own),
                value=value,
                sd=sd,
                baseline=baseline,
                batch=batch,
                history_seq=history_seq,
                tell_seq=tell_seq,
                runs=own,
            )
        )
    return found


def _runs(connection: Connection, runs: Select[Any]) -> dict[int, list[Run]]:
    """By trial number; within a trial in the order in which they were made."""
    environments = _environments(connection)
    found: dict[int, list[Run]] = defaultdict(list)
    for (
        trial, seed, repeat, stage, state, attempt, value, best, last, reason, error, started, ended,
        seconds, worker, engine, env,
    ) in connection.execute(runs.order_by(_R.place)):  # fmt: skip
        found[trial].append(
            Run(
                key=RunKey(trial, seed, repeat),
                stage=_STAGES[stage],
                state=_STATES[state],
                attempt=attempt,
                value=value,
                best_epoch=best,
                last_epoch=last,
                reason=reason,
                error=error,
                started=started,
                ended=ended,
                seconds=seconds,
                worker=worker,
                engine=engine,
                environment=environments[env] if env else None,
            )
        )
    return found


def _environments(connection: Connection) -> dict[str, Environment]:
    rows = connection.execute(select(t.environment.c.sha256, t.environment.c.facts))
    return {sha256: Environment(**json.loads(facts)) for sha256, facts in rows}
