"""Rungs: which trials wait at which epoch, what their metric was there, and what the pruner makes of it.

The trials that the strategy chooses are divided into cohorts by number, a cohort into brackets; baselines are in none
and run to their end. A trial has come to a rung when all its runs have paused there or have ended. Everything follows
from the record (the runs, and the metric as it was reported first), so a study decides the same with 1 worker or 40,
killed or not.

What a trial is worth at a rung of epoch r, a value a seed: the metric of epoch r - 1, counted from 0; of a run that
ended before, its last one; of a run that reports seldom, its last one before, or else its first. A trial with a
diverged or failed run has the worst value there is, and goes no further; a rung whose epoch that run has reported
counts as reached, whether it was let go on from there or not: the record cannot tell. A complete one is compared at the
next rung too where it would have been let go on.

A run that reports seldom pauses at its first report from the rung on. Where other rungs lie before that epoch, it waits
at each of them in turn, and is not trained between.

Where nothing but ``n_trials`` bounds a cohort, ``--extend`` makes it larger: the new trials are compared with all.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from hpsearch.pruner import Rung
from hpsearch.study import Study, cohort_of, epochs_of
from hpsearch.trial import EpochReport, Run, RunKey, State, Trial, score

Values = tuple[float, ...]

#: why a run is pruned that raised ``Pruned`` itself
BY_ITSELF = "pruned"
#: how a run ends that takes its trial with it
BAD = (State.DIVERGED, State.FAILED, State.CANCELLED)


def unheard(trials: Sequence[Trial], spec: Mapping[str, Any]) -> str:
    """Why a pruner has stopped all that were chosen, where no run had told the metric yet; empty where one had."""
    chosen = [trial for trial in trials if not trial.baseline]
    if not chosen or any(t.state is not State.PRUNED or t.value is not None for t in chosen):
        return ""
    stopped = [come(run) for trial in chosen for run in trial.search_runs if ruled_out(run)]
    option = next((name for name in ("min_epochs", "warmup_epochs") if name in (spec.get("pruner") or {})), "")
    if not stopped or not option:
        return ""
    return f"no run had reported {spec['metric']} by epoch {max(stopped)}, so all were pruned: raise {option}"


@final
@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What becomes of a trial that waits at a rung."""

    trial: int
    #: True: its paused runs go on; False: they end where they are
    go: bool
    reason: str = ""
    #: the numbers behind a pruning; {} where it was not the pruner's decision
    details: Mapping[str, Any] = field(default_factory=dict)


@final
class _Bracket:
    """Trials that share their rungs, and how far they have come."""

    def __init__(self, cohort: int, size: int, rungs: Sequence[int]) -> None:
        self.cohort, self.size, self.rungs = cohort, size, tuple(rungs)
        #: trials that will ever be in it, and that are
        self.due, self.members = size, 0
        #: by rung: trial -> its values there
        self.values: list[dict[int, Values]] = [{} for _ in rungs]
        self.waiting: list[set[int]] = [set() for _ in rungs]
        #: by rung: how many trials ended before they came to it (and to the ones above)
        self.absent = [0] * (len(rungs) + 1)

    def expected(self, k: int) -> int:
        """How many may still come to rung ``k``."""
        return self.due - len(self.values[k]) - sum(self.absent[: k + 1])


def come(run: Run) -> int:
    """How many epochs a run had trained when it paused or ended last."""
    return 0 if run.last_epoch is None else run.last_epoch + 1


def through(run: Run, told: int) -> int:
    """How many epochs a run that has ended badly was seen to end; ``told``: as far as its metric tells.

    All that it has reported, with the metric or not; only one that diverged in its last epoch has not ended that.
    """
    in_last = run.state is State.DIVERGED and run.reason.endswith(f" at epoch {run.last_epoch}")
    return told if in_last else max(told, come(run))


def ruled_out(run: Run) -> bool:
    """True for a run that was stopped at a rung, and has not pruned itself."""
    return run.state is State.PRUNED and run.reason != BY_ITSELF


@final
class Cohorts:
    """All rungs of one study. Without a pruner no trial ever comes to one.

    Args:
        study: whose they are.
        curves: run -> epoch -> the study's metric, as it was reported first, so far.
    """

    def __init__(self, study: Study, curves: Mapping[RunKey, Mapping[int, float]]) -> None:
        self._study, self._pruner = study, study.pruner
        self._epochs = epochs_of(study) if study.pruner else None
        self._size = cohort_of(study)
        self._cohorts: dict[int, list[_Bracket]] = {}
        self._bracket: dict[int, _Bracket] = {}
        #: trial -> how many rungs it has passed
        self._levels: dict[int, int] = {}
        #: of trials that have not ended
        self._curves = {key: dict(curve) for key, curve in curves.items()}
        #: final trials that were not let go on from a rung yet: their values at all rungs that they came to
        self._final: dict[int, list[Values]] = {}
        self._ended: set[int] = set()
        self._rulings: list[Ruling] = []
        self._changed = False

    def enter(self, trial: Trial, runs: Sequence[Run], total: int | None) -> None:
        """A trial is there, new or from the record; in number order.

        Args:
            trial: itself.
            runs: its runs, in the order of the study's seeds.
            total: how many trials there will be, baselines included; None where nobody knows.
        """
        if self._pruner is None or trial.baseline:
            return
        bracket = self._bracket_at(trial.number, total)
        bracket.members += 1
        if not bracket.rungs:
            return
        level = max(self._level(bracket.rungs, run) for run in runs)
        self._bracket[trial.number], self._levels[trial.number] = bracket, level
        for k in range(level):
            bracket.values[k][trial.number] = self._values(bracket.rungs[k], runs)
        if self.short(trial.number, [run for run in runs if run.state is State.PAUSED]):
            self._rulings.append(Ruling(trial=trial.number, go=True))
        self.settle(trial.number, runs)

    def finish(self) -> None:
        """No more trials will be there."""
        for bracket in self._brackets():
            bracket.due = bracket.members
        self._changed = True

    def hear(self, report: EpochReport) -> None:
        """An epoch of a run; what is said again, by whatever attempt, does not count."""
        value = report.metrics.get(self._study.metric, math.nan)
        if report.run.trial in self._bracket and math.isfinite(value):
            self._curves.setdefault(report.run, {}).setdefault(report.epoch, value)

    def know(self, run: RunKey, curve: Mapping[int, float]) -> None:
        """What is recorded of a run, where it was not heard of epoch by epoch."""
        if run.trial in self._bracket and curve:
            self._curves[run] = dict(curve)

    def told(self, run: RunKey) -> int:
        """How many of a run's first epochs are recorded, as far as its metric tells."""
        return max(self._curves.get(run, {}), default=-1) + 1

    def until(self, trial: int) -> int | None:
        """The epoch, counted from 1, after which the trial's runs pause next; None: never."""
        bracket = self._bracket.get(trial)
        if bracket is None or self._levels[trial] >= len(bracket.rungs):
            return None
        return bracket.rungs[self._levels[trial]]

    def short(self, trial: int, runs: Sequence[Run]) -> list[Run]:
        """Those of a trial's paused runs that have not come to the rung at which they pause next."""
        until = self.until(trial)
        return [run for run in runs if until is None or come(run) < until]

    def best(self, run: Run) -> tuple[float, int] | None:
        """The metric of a paused run at its best epoch so far, and that epoch: what its worker would have said."""
        curve = self._curves.get(run.key, {})
        better = self._study.direction.better
        best: tuple[float, int] | None = None
        for epoch in sorted(epoch for epoch in curve if epoch < come(run)):
            if best is None or better(curve[epoch], best[0]):
                best = (curve[epoch], epoch)
        return best

    def settle(self, trial: int, runs: Sequence[Run]) -> None:
        """One of the trial's runs has paused or ended."""
        bracket = self._bracket.get(trial)
        if bracket is None:
            return
        until, final = self.until(trial), all(run.state.final for run in runs)
        if trial not in self._ended:
            if final:
                self._end(trial, bracket, runs)
            elif until is not None and all(r.state.final or _waits(r, until) for r in runs):
                self._arrive(trial, bracket, runs)
        if final:
            for run in runs:
                self._curves.pop(run.key, None)

    def decide(self) -> list[Ruling]:
        """What became of trials since the last call."""
        if self._changed:
            self._changed = False
            for bracket in self._brackets():
                for k in range(len(bracket.rungs)):
                    if bracket.waiting[k]:
                        self._judge(bracket, k)
        rulings, self._rulings = self._rulings, []
        return rulings

    # Inside

    def _brackets(self) -> list[_Bracket]:
        return [bracket for brackets in self._cohorts.values() for bracket in brackets]

    def _bracket_at(self, trial: int, total: int | None) -> _Bracket:
        assert self._pruner is not None
        assert self._size is not None
        place = (trial - len(self._study.baselines)) % self._size
        start = trial - place
        if start not in self._cohorts:
            n = self._size if total is None else min(self._size, total - start)
            found = self._pruner.brackets(n, self._epochs)
            assert sum(bracket.trials for bracket in found) == n, f"{self._pruner.name} has lost trials"
            self._cohorts[start] = [_Bracket(start, b.trials, b.rungs) for b in found]
        for bracket in self._cohorts[start]:
            if place < bracket.size:
                return bracket
            place -= bracket.size
        raise AssertionError(f"trial {trial} is in no bracket of its cohort")

    def _level(self, rungs: Sequence[int], run: Run) -> int:
        """How many rungs a run has passed, by the record alone.

        A pause between two reports may be at several rungs, which are decided in order: once more, where one is open.
        """
        if run.state is not State.PAUSED and not ruled_out(run):
            if not run.state.final:
                return bisect_right(rungs, come(run))
            return bisect_left(rungs, min(come(run), through(run, self.told(run.key)) + 1))
        last = max(bisect_right(rungs, come(run)) - 1, 0)
        earlier = max((epoch + 1 for epoch in self._curves.get(run.key, {}) if epoch + 1 < come(run)), default=0)
        return min(last, bisect_right(rungs, earlier))

    def _arrive(self, trial: int, bracket: _Bracket, runs: Sequence[Run]) -> None:
        bad = [run for run in runs if run.state in BAD]
        if bad:
            self._fall(trial, bracket, runs)
            reason = f"the trial has {bad[0].state} with seed {bad[0].key.seed}"
            self._rulings.append(Ruling(trial=trial, go=False, reason=reason))
        else:
            level = self._levels[trial]
            self._wait(trial, bracket, self._values(bracket.rungs[level], runs))

    def _end(self, trial: int, bracket: _Bracket, runs: Sequence[Run]) -> None:
        level, (state, _, _) = self._levels[trial], score(runs)
        if level == len(bracket.rungs):
            self._ended.add(trial)
        elif state is State.COMPLETE:
            self._final[trial] = [self._values(rung, runs) for rung in bracket.rungs]
            self._wait(trial, bracket, self._final[trial][level])
        elif state is State.PRUNED:
            # By its own training code, or by a former coordinator: it is in no rung that it did not come to.
            last = bisect_right(bracket.rungs, max(map(come, runs)))
            values = [self._values(rung, runs) for rung in bracket.rungs[:last]]
            if last - level > 1 and any(map(ruled_out, runs)):
                # At which of these rungs it was stopped follows once more.
                self._final[trial] = values
                self._wait(trial, bracket, values[level])
                return
            for k in range(level, last):
                bracket.values[k][trial] = values[k]
            self._leave(trial, bracket, max(level, last))
        else:
            self._fall(trial, bracket, runs)

    def _wait(self, trial: int, bracket: _Bracket, values: Values) -> None:
        level = self._levels[trial]
        bracket.values[level][trial] = values
        bracket.waiting[level].add(trial)
        self._changed = True

    def _fall(self, trial: int, bracket: _Bracket, runs: Sequence[Run]) -> None:
        """The trial has the worst value at the next rung that it has not reached, and goes no further."""
        level = self._levels[trial]
        told = max(through(run, self.told(run.key)) for run in runs if run.state in BAD)
        last = max(level, bisect_right(bracket.rungs, told))
        for k in range(level, last):
            bracket.values[k][trial] = self._values(bracket.rungs[k], runs)
        if last == len(bracket.rungs):
            self._ended.add(trial)
            self._changed = True
            return
        bracket.values[last][trial] = (self._study.direction.worst,) * len(self._study.seeds)
        self._leave(trial, bracket, last + 1)

    def _leave(self, trial: int, bracket: _Bracket, rung: int) -> None:
        bracket.absent[rung] += 1
        self._ended.add(trial)
        self._changed = True

    def _judge(self, bracket: _Bracket, k: int) -> None:
        assert self._pruner is not None
        epoch, expected = bracket.rungs[k], bracket.expected(k)
        if expected and not self._pruner.asynchronous:
            return
        earlier: dict[int, Sequence[float]] = {}
        for other in self._brackets():
            if other.cohort < bracket.cohort and epoch in other.rungs:
                place = other.rungs.index(epoch)
                earlier.update(other.values[place])
                # Else what is known of earlier cohorts would depend on timing.
                expected += 0 if self._pruner.asynchronous else other.expected(place)
        values, waiting = bracket.values[k], frozenset(bracket.waiting[k])
        verdict = self._pruner.decide(
            Rung(
                epoch=epoch,
                direction=self._study.direction,
                values=values,
                waiting=waiting,
                expected=expected,
                earlier=earlier,
            )
        )
        # A breach here is a pruner's bug: its conformance suite promises it.
        assert expected or verdict.go | verdict.stop >= waiting, f"{self._pruner.name} leaves trials undecided"
        bracket.waiting[k] -= verdict.go | verdict.stop
        for trial in sorted(verdict.go & waiting):
            self._go_on(trial, bracket)
        for trial in sorted(verdict.stop & waiting):
            self._leave(trial, bracket, k + 1)
            if self._final.pop(trial, None) is None:
                numbers = [value if math.isfinite(value) else None for value in values[trial]]
                details = {"epoch": epoch, "values": numbers, "trials": len(values)}
                self._rulings.append(Ruling(trial=trial, go=False, reason=verdict.reason, details=details))

    def _go_on(self, trial: int, bracket: _Bracket) -> None:
        self._levels[trial] += 1
        level = self._levels[trial]
        if trial not in self._final:
            self._rulings.append(Ruling(trial=trial, go=True))
        elif level < len(self._final[trial]):
            self._wait(trial, bracket, self._final[trial][level])
        else:
            del self._final[trial]
            self._leave(trial, bracket, level)

    def _values(self, rung: int, runs: Sequence[Run]) -> Values:
        return tuple(self._value(run, rung - 1) for run in runs)

    def _value(self, run: Run, epoch: int) -> float:
        curve = self._curves.get(run.key, {})
        if epoch in curve:
            return curve[epoch]
        if curve:
            before = [e for e in curve if e < epoch]
            return curve[max(before) if before else min(curve)]
        return run.value if run.state is State.COMPLETE and run.value is not None else self._study.direction.worst


def _waits(run: Run, until: int) -> bool:
    return run.state is State.PAUSED and come(run) >= until
