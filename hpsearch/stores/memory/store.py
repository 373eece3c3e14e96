"""A record in memory, as the coordinator writes it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

from hpsearch.archive import state_of
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
from hpsearch.stores.memory.record import MemoryRecord, MemoryStudy
from hpsearch.trial import Finished, PausedReport, RunKey, State, Trial

#: metrics of the test set: sealed, wherever they come from
SEALED = "test_"


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
        mine = self._record.studies.get(study.name) or MemoryStudy(record=study, created=now, updated=now)
        if existed:
            refuse_changed(mine.record, study, allow_changed=allow_changed)
            if mine.holder is not None and mine.holder != holder and mine.live:
                raise held(study.name, mine.holder, mine.left)
            mine.decisions += extension(mine.record, study)
        self._record.studies[study.name] = mine
        left = ("interrupted", "") if mine.state == "running" else (mine.state, mine.reason)
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
            left=left,
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

    def _held(self) -> MemoryStudy:
        study = self._record.studies.get(self._name)
        if self._epoch < 0:
            raise StudyHeldError("this store holds no study", hint="open one first")
        if study is None or study.epoch != self._epoch:
            raise StudyHeldError(f"{self._name} was taken over")
        return study


def _apply(study: MemoryStudy, turn: Turn) -> None:
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
        if done.checkpoint is not None:
            study.checkpoints[done.run] = done.checkpoint
    for key in turn.forgotten:
        study.checkpoints.pop(key, None)
    ended = {done.run for done in turn.finished}
    for lost in turn.losses:
        if lost.run not in ended:
            _change(study, lost.run, (State.RUNNING, State.PAUSED), lost.attempt, state=State.QUEUED)
        _require(study.attempts.get(lost.run, {}).get(lost.attempt) == "", f"attempt {lost.attempt} is lost already")
        study.attempts[lost.run][lost.attempt] = clean(lost.cause)
        study.lost.append(replace(lost, cause=clean(lost.cause), worker=clean(lost.worker), company=()))
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


def _pause(study: MemoryStudy, pause: PausedReport) -> None:
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


def _seconds(study: MemoryStudy, key: RunKey) -> float:
    return sum(run.seconds for trial in [study.trials.get(key.trial)] if trial for run in trial.runs if run.key == key)


def _finish(study: MemoryStudy, done: Finished) -> None:
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


def _change(study: MemoryStudy, key: RunKey, states: Sequence[State], of: int | None, **change: object) -> None:
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


def _first_told(study: MemoryStudy, metric: str) -> dict[RunKey, dict[int, float]]:
    told: dict[RunKey, dict[int, float]] = {}
    for (key, _), points in sorted(study.metrics.items(), key=lambda item: item[0]):
        for epoch, values in points.items():
            if key.repeat == 0 and metric in values:
                told.setdefault(key, {}).setdefault(epoch, values[metric])
    return told


def _derived(trial: Trial) -> Trial:
    return trial if trial.state.final else replace(trial, state=state_of(trial.runs))
