"""A record in memory, as everyone else reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

from hpsearch.archive import (
    Archive,
    Changes,
    Curve,
    Outline,
    Revision,
    StudySummary,
    T,
    as_seen,
    changed,
    outline_of,
    stitched,
)
from hpsearch.stores.memory.record import AttemptKey, MemoryRecord, MemoryStudy
from hpsearch.strategy import Decision
from hpsearch.trial import Checkpoint, Direction, Lost, RunKey, State, Trial


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

    def revisions(self) -> dict[str, Revision]:
        return {name: _revision(study, _summary(study)) for name, study in self._record.studies.items()}

    def changes(self, study: str, known: Mapping[int, Outline], *, decisions: int = 0, most: int = 1000) -> Changes:
        found = self._record.find(study)
        outlines = {number: outline_of(trial) for number, trial in found.trials.items()}
        numbers, left = changed(known, outlines, most)
        summary = _summary(found)
        return Changes(
            revision=_revision(found, summary),
            summary=summary,
            trials=[as_seen(found.trials[number], live=bool(summary.holder)) for number in numbers],
            outlines={number: outlines[number] for number in numbers},
            left=left,
            decisions=found.decisions[decisions:],
        )

    def trials(self, study: str, numbers: Sequence[int] | None = None) -> list[Trial]:
        found = self._record.find(study)
        wanted = sorted(found.trials) if numbers is None else sorted(set(numbers) & found.trials.keys())
        return [as_seen(found.trials[number], live=found.live) for number in wanted]

    def values(self, study: str) -> list[tuple[int, float]]:
        complete = (trial for trial in self.trials(study) if trial.state is State.COMPLETE)
        return [(trial.number, trial.value) for trial in complete if trial.value is not None]

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

    def checkpoints(self, study: str) -> dict[RunKey, Checkpoint]:
        return dict(self._record.find(study).checkpoints)

    def losses(self, study: str) -> list[Lost]:
        return list(self._record.find(study).lost)

    def decisions(self, study: str) -> list[Decision]:
        return list(self._record.find(study).decisions)


def _revision(study: MemoryStudy, summary: StudySummary) -> Revision:
    said = len(study.notes)
    return Revision(created=study.created, opened=study.epoch, rev=study.rev, state=summary.state, said=said)


def _course(study: MemoryStudy, key: RunKey, told: Mapping[AttemptKey, Mapping[int, T]]) -> list[tuple[int, T]]:
    causes = study.attempts.get(key, {})
    last = max(causes, default=0)
    if causes.get(last) != "":
        return []
    rows = [
        (attempt, epoch, item) for attempt in causes for epoch, item in sorted(told.get((key, attempt), {}).items())
    ]
    return stitched(rows, last)


def _summary(study: MemoryStudy) -> StudySummary:
    live = study.live
    trials = [as_seen(study.trials[number], live=live) for number in sorted(study.trials)]
    complete = [trial for trial in trials if trial.state is State.COMPLETE and trial.value is not None]
    sign = 1 if study.record.spec.get("direction", "minimize") == Direction.MINIMIZE else -1
    best = min(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)
    state, reason, holder = study.state, study.reason, study.holder
    if state == "running" and not live:
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
        holder=str(holder) if live else "",
        rev=study.rev,
        fenced=study.fenced,
        notes=[(address, text) for kind, address, text in study.notes if kind == "note"],
        tags=list(dict.fromkeys(tags)),
    )
