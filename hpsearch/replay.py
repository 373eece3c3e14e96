"""A study once more, from its record: what the strategy chose and what the pruner decided, recomputed. Pure.

The strategy is asked again with the results that were final before each batch. The rungs are walked again by the same
``Cohorts`` that the coordinator uses: each trial comes as far as its recorded curve goes, in whatever order, since no
decision of a synchronous pruner depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from hpsearch.ask import history_of, total_of
from hpsearch.cohort import BY_ITSELF, Cohorts, Ruling, come, through
from hpsearch.space import Params
from hpsearch.strategy import Decision
from hpsearch.study import Study
from hpsearch.trial import Run, RunKey, State, Trial


@final
@dataclass(frozen=True, kw_only=True)
class Batch:
    """Trials that were chosen together, and what the strategy says of them now."""

    trials: Sequence[Trial]
    #: as ``Trial`` has them
    batch: int
    history_seq: int
    #: None where a trial that its choice depends on has not ended: it cannot be recomputed
    params: Sequence[Params] | None
    decisions: Sequence[Decision]


def batches(study: Study, trials: Sequence[Trial]) -> Iterator[Batch]:
    """The strategy's trials, a batch at a time.

    Args:
        study: itself.
        trials: all that there are, in number order, baselines first.
    """
    baselines, size = len(study.baselines), study.strategy.batch_size
    for start in range(baselines, len(trials), size or max(len(trials), 1)):
        own = trials[start : None if size is None else start + size]
        number = 0 if size is None else (start - baselines) // size
        known = trials[:start] if number else []
        params: Sequence[Params] | None = None
        decisions: Sequence[Decision] = ()
        if all(trial.state.final for trial in known):
            history = history_of(study, trials[:start])
            params, decisions = study.strategy.ask(history, len(own)), study.strategy.decisions(history)
        seq = 0 if size is None else start
        yield Batch(trials=own, batch=number, history_seq=seq, params=params, decisions=decisions)


@final
@dataclass(frozen=True, kw_only=True)
class Stop:
    """A trial that goes no further than a rung."""

    epoch: int
    ruling: Ruling
    #: of its runs that had paused there: after how many epochs, at the rung or at the first report after it
    pauses: Mapping[RunKey, int]
    #: the value they end with, and its epoch; None: no number was ever reported
    ends: Mapping[RunKey, tuple[float, int] | None]


@final
@dataclass(kw_only=True)
class Rungs:
    """What became of trials at their rungs."""

    stops: dict[int, Stop] = field(default_factory=dict)
    #: trial -> the epoch of a rung that it waits at; a later rung of its record is one too many
    waiting: dict[int, int] = field(default_factory=dict)


def rungs(study: Study, trials: Sequence[Trial], curves: Mapping[RunKey, Mapping[int, float]], *, over: bool) -> Rungs:
    """Walk the rungs of a study with a synchronous pruner again.

    Args:
        study: itself.
        trials: all that there are, in number order, with their runs in the order of the study's seeds.
        curves: run -> epoch -> the study's metric, as it was reported first.
        over: no more trials will be there.
    """
    cohorts, found = Cohorts(study, {}), Rungs()
    total = total_of(study)
    due: list[Trial] = []
    for trial in trials:
        cohorts.enter(trial, [Run(key=run.key) for run in trial.runs], total)
        if cohorts.until(trial.number) is not None:
            due.append(trial)
    if over:
        cohorts.finish()
    by_number = {trial.number: trial for trial in trials}
    while due:
        for trial in due:
            epoch = cohorts.until(trial.number)
            runs = [_at(run, epoch, curves.get(run.key, {})) for run in trial.runs]
            for run in runs:
                cohorts.know(run.key, _up_to(run, curves.get(run.key, {})))
            if epoch is not None and any(run.state is State.PAUSED for run in runs):
                found.waiting[trial.number] = epoch
            if all(run.state is not State.QUEUED for run in runs):
                cohorts.settle(trial.number, runs)
        due = []
        for ruling in cohorts.decide():
            trial, epoch = by_number[ruling.trial], found.waiting.pop(ruling.trial)
            if ruling.go:
                due.append(trial)
                continue
            paused = [r for r in (_at(run, epoch, curves.get(run.key, {})) for run in trial.runs) if not r.state.final]
            ends, pauses = {run.key: cohorts.best(run) for run in paused}, {run.key: come(run) for run in paused}
            found.stops[ruling.trial] = Stop(epoch=epoch, ruling=ruling, pauses=pauses, ends=ends)
    return found


def reached(run: Run, epoch: int, curve: Mapping[int, float]) -> bool:
    """True where a run has paused at the rung of this epoch, by its record."""
    if not run.state.final:
        return come(run) >= epoch
    if run.state is State.PRUNED:
        return come(run) >= epoch and (run.reason != BY_ITSELF or come(run) > epoch)
    if run.state is State.COMPLETE:
        return come(run) > epoch
    # One that went on and failed before its next report has come no further than the rung.
    return min(through(run, max(curve, default=-1) + 1), come(run)) >= epoch


def _at(run: Run, epoch: int | None, curve: Mapping[int, float]) -> Run:
    """A run as it was when it came to a rung: paused, or ended before; queued where it has not come so far."""
    if epoch is not None and reached(run, epoch, curve):
        # It was reported then, first from the rung on; a report without the metric has left no trace, but the last has.
        told = min((e for e in curve if e >= epoch - 1), default=math.inf)
        last = max(come(run), epoch) - 1
        return Run(key=run.key, state=State.PAUSED, last_epoch=int(min(told, last)))
    return run if run.state.final else Run(key=run.key)


def _up_to(run: Run, curve: Mapping[int, float]) -> Mapping[int, float]:
    """What was known of it then."""
    return curve if run.state.final else {epoch: value for epoch, value in curve.items() if epoch < come(run)}
