"""The record in memory: for tests, and for a search that is to leave nothing behind. It lasts as long as its object."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from hpsearch.archive import Archive, Curve, StudySummary, T, as_seen, not_found, state_of, stitched
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
    held,
    refuse_changed,
    refuse_unfit,
)
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Finished, PausedReport, RunKey, State, Trial

#: metrics of the test set: sealed, wherever they come from
SEALED = "test_"

AttemptKey = tuple[RunKey, int]


@final
@dataclass
class _Study:
    """One study's rows."""

    record: StudyRecord
    created: float
    updated: float
    state: str = "running"
    reason: str = ""
    rev: int = 0
    epoch: int = 0
    holder: Holder | None = None
    lease_until: float = 0.0
    seconds: float = 0.0
    fenced: int = 0
    trials: dict[int, Trial] = field(default_factory=dict)
    #: run -> attempt -> why it was lost; "" while it is not
    attempts: dict[RunKey, dict[int, str]] = field(default_factory=dict)
    metrics: dict[AttemptKey, dict[int, dict[str, float]]] = field(default_factory=dict)
    layers: dict[AttemptKey, dict[int, Mapping[str, tuple[float, float]]]] = field(default_factory=dict)
    returned: dict[RunKey, dict[str, float]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    notes: list[tuple[str, str, str]] = field(default_factory=list)

    def draft(self) -> _Study:
        """A copy to write on: all that is written in place is copied, the frozen rows in it are shared."""
        return replace(
            self,
            trials=dict(self.trials),
            attempts={key: dict(rows) for key, rows in self.attempts.items()},
            metrics={key: dict(rows) for key, rows in self.metrics.items()},
            layers={key: dict(rows) for key, rows in self.layers.items()},
            returned=dict(self.returned),
            decisions=list(self.decisions),
        )

    @property
    def left(self) -> float:
        return self.lease_until - time.time()

    @property
    def live(self) -> bool:
        return self.holder is not None and self.left > 0 and not self.holder.is_dead()


@final
class MemoryRecord:
    """What a ``MemoryStore`` writes and a ``MemoryArchive`` reads."""

    def __init__(self) -> None:
        self.studies: dict[str, _Study] = {}

    def find(self, name: str) -> _Study:
        if name not in self.studies:
            raise not_found(name, self.studies)
        return self.studies[name]


@final
class MemoryStore(Store):
    """One coordinator's door to a record in memory."""

    def __init__(self, record: MemoryRecord) -> None:
        self._record = record
        self._name = ""
        self._epoch = -1
        self._lease_s = 0.0
        self._written: Turn | None = None

    def open(
        self,
        study: StudyRecord,
        holder: Holder,
        *,
        lease_s: float,
        allow_changed: bool = False,
        curves: str | None = None,
    ) -> Snapshot:
        now = time.time()
        existed = study.name in self._record.studies
        mine = self._record.studies.get(study.name) or _Study(record=study, created=now, updated=now)
        if existed:
            refuse_changed(mine.record, study, allow_changed=allow_changed)
            if mine.holder is not None and mine.holder != holder and mine.live:
                raise held(study.name, mine.holder, mine.left)
        self._record.studies[study.name] = mine
        mine.record, mine.holder, mine.epoch, mine.commands = study, holder, mine.epoch + 1, []
        mine.state, mine.reason, mine.lease_until = "running", "", now + lease_s
        self._name, self._epoch, self._lease_s, self._written = study.name, mine.epoch, lease_s, None
        runs = [run for trial in mine.trials.values() for run in trial.runs]
        losses = {key: Counter(cause for cause in causes.values() if cause) for key, causes in mine.attempts.items()}
        return Snapshot(
            existed=existed,
            trials=[_derived(mine.trials[number]) for number in sorted(mine.trials)],
            running=[run.key for run in runs if run.state is State.RUNNING],
            losses={key: dict(causes) for key, causes in losses.items() if causes},
            seconds=mine.seconds,
            rev=mine.rev,
            curves=_first_told(mine, curves) if curves is not None else {},
            grouped=[decision for decision in mine.decisions if decision.kind == GROUPED],
        )

    def write(self, turn: Turn) -> None:
        study = self._held()
        if turn is self._written:
            return
        # Written on a copy, which takes the original's place when all of it has gone well.
        refuse_unfit(turn)
        draft = study.draft()
        _apply(draft, turn)
        draft.rev, draft.fenced, draft.seconds = study.rev + 1, study.fenced + turn.fenced, study.seconds + turn.seconds
        draft.updated, draft.lease_until = time.time(), time.time() + self._lease_s
        self._record.studies[self._name], self._written = draft, turn

    def renew(self, seconds: float) -> list[Command]:
        study = self._held()
        study.lease_until, study.seconds = time.time() + self._lease_s, study.seconds + seconds
        commands, study.commands = study.commands, []
        return commands

    def close(self, state: str, reason: str = "") -> None:
        study = self._record.studies.get(self._name)
        if study is not None and study.epoch == self._epoch:
            study.state, study.reason, study.holder, study.lease_until = state, reason, None, 0.0
            study.commands, study.updated = [], time.time()
        self._epoch = -1

    def send(self, study: str, command: Command) -> bool:
        found = self._record.find(study)
        if command.verb in ("note", "tag"):
            address, text = (clean(str(command.payload.get(name, ""))) for name in ("address", "text"))
            found.notes.append((command.verb, address, text))
            found.updated = time.time()
            return True
        if found.live:
            found.commands.append(command)
        return found.live

    def delete(self, study: str) -> None:
        found = self._record.find(study)
        if found.live and found.holder is not None:
            raise held(study, found.holder, found.left)
        del self._record.studies[study]

    def _held(self) -> _Study:
        study = self._record.studies.get(self._name)
        if self._epoch < 0:
            raise StudyHeldError("this store holds no study", hint="open one first")
        if study is None or study.epoch != self._epoch:
            raise StudyHeldError(f"{self._name} was taken over")
        return study


def _apply(study: _Study, turn: Turn) -> None:
    for trial in turn.trials:
        _require(trial.number not in study.trials, f"trial {trial.number} is there already")
        study.trials[trial.number] = trial
    for run in turn.runs:
        of = study.trials.get(run.key.trial)
        fits = of is not None and of.state.final and run.key not in {other.key for other in of.runs}
        _require(fits, f"run {run.key} is there already, or its trial is unknown or not final")
        assert of is not None
        study.trials[of.number] = replace(of, runs=(*of.runs, run))
    study.decisions += turn.decisions
    for report in turn.epochs:
        points = study.metrics.setdefault((report.run, report.attempt), {})
        if points and report.epoch <= max(points):
            continue
        points[report.epoch] = _finite(report.metrics)
        if report.layers:
            study.layers.setdefault((report.run, report.attempt), {})[report.epoch] = report.layers
    for pause in turn.pauses:
        _pause(study, pause)
    for done in turn.finished:
        _finish(study, done)
    ended = {done.run for done in turn.finished}
    for lost in turn.losses:
        if lost.run not in ended:
            _change(study, lost.run, (State.RUNNING, State.PAUSED), lost.attempt, state=State.QUEUED)
        _require(study.attempts.get(lost.run, {}).get(lost.attempt) == "", f"attempt {lost.attempt} is lost already")
        study.attempts[lost.run][lost.attempt] = clean(lost.cause)
    for key in turn.cancelled:
        _change(study, key, (State.QUEUED, State.PAUSED), None, state=State.CANCELLED, ended=time.time())
    for score in turn.scores:
        old = study.trials.get(score.number)
        _require(old is not None and not old.state.final, f"trial {score.number} is unknown or final already")
        assert old is not None
        _require(_sound(score.state, score.value), f"{score.value} is no value of a {score.state} trial")
        study.trials[score.number] = replace(
            old, state=score.state, value=score.value, sd=score.sd, tell_seq=score.tell_seq
        )
    for claim in turn.claims:
        if claim.attempt in study.attempts.setdefault(claim.run, {}):
            _require(study.attempts[claim.run][claim.attempt] == "", f"attempt {claim.attempt} was lost")
            _change(study, claim.run, (State.PAUSED,), claim.attempt, state=State.RUNNING)
            continue
        study.attempts[claim.run][claim.attempt] = ""
        change = {"state": State.RUNNING, "attempt": claim.attempt, "started": time.time()}
        _change(study, claim.run, (State.QUEUED, State.PAUSED), None, **change)


def _pause(study: _Study, pause: PausedReport) -> None:
    of = {"engine": clean(pause.engine), "worker": clean(pause.worker), "environment": pause.environment}
    _change(
        study,
        pause.run,
        (State.RUNNING,),
        pause.attempt,
        state=State.PAUSED,
        last_epoch=pause.epoch,
        seconds=_seconds(study, pause.run) + pause.seconds,
        **of,
    )


def _seconds(study: _Study, key: RunKey) -> float:
    return sum(run.seconds for trial in [study.trials.get(key.trial)] if trial for run in trial.runs if run.key == key)


def _finish(study: _Study, done: Finished) -> None:
    _require(done.state.final, f"a finished run cannot be {done.state}")
    _require(_sound(done.state, done.value), f"{done.value} is no value of a {done.state} run")
    _change(
        study,
        done.run,
        (State.QUEUED, State.RUNNING, State.PAUSED),
        done.attempt,
        state=done.state,
        value=done.value,
        best_epoch=done.best_epoch,
        last_epoch=done.last_epoch,
        reason=clean(done.reason),
        error=clean(done.error),
        ended=time.time(),
        seconds=_seconds(study, done.run) + done.seconds,
        worker=clean(done.worker),
        engine=clean(done.engine),
        environment=done.environment,
    )
    study.returned[done.run] = _finite(done.metrics)


def _change(study: _Study, key: RunKey, states: Sequence[State], of: int | None, **change: object) -> None:
    """Replace a run's fields, where it is in one of these states and, unless None, ``of`` is its last attempt."""
    trial = study.trials.get(key.trial)
    run = next((run for run in trial.runs if run.key == key), None) if trial else None
    fits = run is not None and run.state in states and of in (None, run.attempt)
    _require(fits, f"run {key} is unknown, final already or of another attempt")
    assert trial is not None
    runs = tuple(replace(run, **change) if run.key == key else run for run in trial.runs)  # type: ignore[arg-type]
    study.trials[key.trial] = replace(trial, runs=runs)


def _require(fits: bool, message: str) -> None:
    if not fits:
        raise StoreError(f"the record refused a turn: {message}; nothing of the turn was written")


def _sound(state: State, value: float | None) -> bool:
    if value is None:
        return state is not State.COMPLETE
    return state in (State.COMPLETE, State.PRUNED) and math.isfinite(value)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {clean(n): float(v) for n, v in metrics.items() if math.isfinite(v) and not n.startswith(SEALED)}


def _first_told(study: _Study, metric: str) -> dict[RunKey, dict[int, float]]:
    told: dict[RunKey, dict[int, float]] = {}
    for (key, _), points in sorted(study.metrics.items(), key=lambda item: item[0]):
        for epoch, values in points.items():
            if key.repeat == 0 and metric in values:
                told.setdefault(key, {}).setdefault(epoch, values[metric])
    return told


def _derived(trial: Trial) -> Trial:
    return trial if trial.state.final else replace(trial, state=state_of(trial.runs))


@final
class MemoryArchive(Archive):
    """A reader's door to a record in memory."""

    def __init__(self, record: MemoryRecord) -> None:
        self._record = record

    def studies(self) -> list[StudySummary]:
        latest = sorted(self._record.studies.values(), key=lambda study: -study.updated)
        return [_summary(study) for study in latest]

    def study(self, name: str) -> StudySummary:
        return _summary(self._record.find(name))

    def trials(self, study: str, numbers: Sequence[int] | None = None) -> list[Trial]:
        found = self._record.find(study)
        wanted = sorted(found.trials) if numbers is None else sorted(set(numbers) & found.trials.keys())
        return [as_seen(found.trials[number], live=found.live) for number in wanted]

    def curves(self, study: str, numbers: Sequence[int], metrics: Sequence[str] | None = None) -> list[Curve]:
        found = self._record.find(study)
        curves: list[Curve] = []
        for trial in self.trials(study, numbers):
            for run in trial.runs:
                points = dict(_course(found, run.key, found.metrics))
                returned = found.returned.get(run.key, {})
                reported = {name for values in points.values() for name in values}
                for name in sorted(reported | returned.keys()):
                    own = {epoch: points[epoch][name] for epoch in sorted(points) if name in points[epoch]}
                    own = own or {run.last_epoch or 0: returned[name]}
                    if metrics is None or name in metrics:
                        curves.append(Curve(run=run.key, metric=name, epochs=[*own], values=[*own.values()]))
        return sorted(curves, key=lambda curve: (curve.run, curve.metric))

    def layers(self, study: str, run: RunKey) -> list[tuple[int, Mapping[str, tuple[float, float]]]]:
        found = self._record.find(study)
        return _course(found, run, found.layers)

    def decisions(self, study: str) -> list[Decision]:
        return list(self._record.find(study).decisions)


def _course(study: _Study, key: RunKey, told: Mapping[AttemptKey, Mapping[int, T]]) -> list[tuple[int, T]]:
    causes = study.attempts.get(key, {})
    last = max(causes, default=0)
    if causes.get(last) != "":
        return []
    rows = [
        (attempt, epoch, item) for attempt in causes for epoch, item in sorted(told.get((key, attempt), {}).items())
    ]
    return stitched(rows, last)


def _summary(study: _Study) -> StudySummary:
    trials = [as_seen(study.trials[number], live=study.live) for number in sorted(study.trials)]
    complete = [trial for trial in trials if trial.state is State.COMPLETE and trial.value is not None]
    sign = 1 if study.record.spec.get("direction", "minimize") == Direction.MINIMIZE else -1
    best = min(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)
    state, reason, holder = study.state, study.reason, study.holder
    if state == "running" and not study.live:
        state, reason = "interrupted", f"its coordinator ({holder}) is gone"
    tags = [*study.record.spec.get("tags", ()), *(text for kind, _, text in study.notes if kind == "tag")]
    return StudySummary(
        name=study.record.name,
        state=state,
        reason=reason,
        spec=study.record.spec,
        fingerprint=study.record.fingerprint,
        code_hash=study.record.code_hash,
        file=study.record.file,
        text=study.record.text,
        counts=dict(Counter(trial.state for trial in trials)),
        best=(best.number, best.value, best.sd) if best is not None and best.value is not None else None,
        created=study.created,
        updated=study.updated,
        seconds=study.seconds,
        holder=str(holder) if study.live else "",
        rev=study.rev,
        fenced=study.fenced,
        notes=[(address, text) for kind, address, text in study.notes if kind == "note"],
        tags=list(dict.fromkeys(tags)),
    )
