"""The coordinator's memory of one study: what its record says, and what the current turn will change in it.

The loop (``search.py``) hands in reports and capacity, and takes out one ``Turn`` to write and the assignments to start
once it is written. Nothing here does I/O or reads a clock, so a turn depends on what was reported and on nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import final

from hpsearch.archive import state_of
from hpsearch.ask import ask, baselines_of, total_of, window_of
from hpsearch.backlog import Backlog
from hpsearch.cohort import Cohorts, Ruling
from hpsearch.errors import ExecutorError, HpsearchError, ObjectiveError, UnusableError
from hpsearch.executor import Assignment
from hpsearch.further import Chooser, parted
from hpsearch.keep import Kept
from hpsearch.losses import TOGETHER, UNCHARGED, Losses
from hpsearch.progress import Ending, Engines, Failures, Pace, Progress
from hpsearch.store import Claim, Draft, Score, Snapshot, Turn
from hpsearch.strategy import Decision
from hpsearch.study import Study
from hpsearch.trial import (
    EpochReport,
    Finished,
    Grouped,
    Lost,
    PausedReport,
    Report,
    Run,
    RunKey,
    State,
    Trial,
    best_trials,
    score,
)


@final
class Ledger:
    """One study between two turns.

    Args:
        study: itself.
        snapshot: what its record says.
        epochs: that all its runs will take together, for the time that is left; None: it is told from the runs.
        chooser: where given, nothing is searched: further runs of trials that are final are made, as it says.
    """

    def __init__(
        self, study: Study, snapshot: Snapshot, *, epochs: int | None = None, chooser: Chooser | None = None
    ) -> None:
        # Further runs are trained to their end: no pruner compares them with those of the search.
        self.study = study = study if chooser is None else replace(study, pruner=None)
        self._chooser = chooser
        self.existed = snapshot.existed
        #: why the study cannot go on, where it cannot
        self.fatal: HpsearchError | None = None
        #: of coordinator's time, over all restarts; the loop keeps it
        self.seconds = snapshot.seconds
        self._trials = [replace(trial, runs=()) for trial in snapshot.trials]
        own = [(t.number, *parted(t, chooser)) for t in snapshot.trials]
        self._runs = {run.key: run for _, runs, _ in own for run in runs}
        self._keys: defaultdict[int, list[RunKey]] = defaultdict(list)
        self._keys.update({number: [run.key for run in runs] for number, runs, _ in own})
        #: runs that are not this ledger's to make, by trial
        self._others = {number: others for number, _, others in own}
        #: each run's place in the order in which they are to begin
        self._order = {key: k for k, key in enumerate(self._runs)}
        self._losses = Losses(snapshot.losses)
        self._kept = Kept(self.study, self._trials)
        self._tell_seq = max((trial.tell_seq or 0 for trial in self._trials), default=0)
        self._counts = Counter(trial.state for trial in self._trials)
        self._running: dict[RunKey, int] = {}
        self._backlog = Backlog(self._place)
        #: paused runs that wait to go on
        self._let_go: set[RunKey] = set()
        self._cohorts = Cohorts(study, snapshot.curves)
        self._engines = Engines(snapshot.grouped)
        self._over = False
        self._failures = Failures()
        self._runs_done = sum(run.state.final for run in self._runs.values())
        self._pace = Pace(seconds=self.seconds, runs=self._runs_done, epochs=epochs, curves=snapshot.curves)
        self._draft = Draft()
        for key in snapshot.running:
            attempt = next(run.attempt for run in snapshot.trials[key.trial].runs if run.key == key)
            self._draft.losses.append(Lost(run=key, attempt=attempt, cause="coordinator"))
            if key in self._runs:
                self._runs[key] = replace(self._runs[key], state=State.QUEUED)
        self._backlog.add(key for key, run in self._runs.items() if run.state is State.QUEUED)
        total = total_of(study)
        for trial in self._trials:
            self._cohorts.enter(trial, self._runs_of(trial.number), total)
            self._follow(trial.number)

    # What the loop asks

    @property
    def running(self) -> list[RunKey]:
        """The runs that a worker has."""
        return list(self._running)

    @property
    def done(self) -> bool:
        """True when no run is left and the strategy has no more trials within the budget."""
        return self._over and not self._open

    @property
    def spoiled(self) -> bool:
        """True when the study began with this ledger and no run of it has ended: deleting it loses nothing."""
        return not self.existed and self._runs_done == 0

    # What the loop does, in this order

    def apply(self, reports: Sequence[Report]) -> None:
        """Take in what workers have said, and what follows. Reports of void attempts are counted and dropped."""
        crashed: list[Lost] = []
        for report in reports:
            if isinstance(report, Grouped):
                self._draft.decisions.extend(self._engines.hear(report))
            elif self._running.get(report.run) != report.attempt:
                self._draft.fenced += 1
            elif isinstance(report, EpochReport):
                self._draft.epochs.append(report)
                self._cohorts.hear(report)
                self._pace.hear(report)
            elif isinstance(report, PausedReport):
                self._pause(report)
            elif not isinstance(report, Lost):
                self._end(report)
            elif report.company and report.cause not in UNCHARGED:
                crashed.append(report)
            else:
                self._lose(report)
        self._crash(crashed)
        while rulings := self._cohorts.decide():
            for ruling in rulings:
                self._rule(ruling)

    def abandon(self, error: ExecutorError) -> None:
        """There are no workers any more: their runs wait for the next coordinator, and none is charged for it."""
        self.fatal = error
        for key, attempt in list(self._running.items()):
            self._lose(Lost(run=key, attempt=attempt, cause="coordinator"))

    def ask(self) -> None:
        """Let the strategy choose, where a batch is due."""
        if self._over:
            return
        if self._chooser is not None:
            self._go_further(self._chooser)
            return
        if not self._trials:
            self._add(baselines_of(self.study))
        answer = ask(self.study, self._trials, waiting=len(self._backlog), unfinished=self._open)
        if answer is not None:
            self._draft.decisions.extend(answer.decisions)
            self._add(answer.trials)
            self._over = answer.over
            if answer.over:
                self._cohorts.finish()

    def claim(self, capacity: int, idle: int) -> list[Assignment]:
        """Take runs for so many free lanes and idle workers (``Backlog.take``); start them once the turn is written."""
        assignments: list[Assignment] = []
        for key, group in self._backlog.take(capacity, idle):
            run, trial = self._runs[key], self._trials[key.trial]
            attempt = run.attempt if key in self._let_go else run.attempt + 1
            self._let_go.discard(key)
            self._runs[key] = replace(run, state=State.RUNNING, attempt=attempt)
            self._running[key] = attempt
            self._follow(key.trial)
            self._draft.claims.append(Claim(run=key, attempt=attempt, first=run.attempt == 0))
            assignments.append(
                Assignment(
                    run=key,
                    params=trial.params,
                    attempt=attempt,
                    until_epoch=self._cohorts.until(key.trial),
                    from_epoch=self._cohorts.told(key),
                    group=group,
                )
            )
        return assignments

    def take(self) -> Turn:
        """Everything since the last call, as one turn."""
        turn, self._draft = self._draft.turn(), Draft()
        return turn

    def progress(self) -> Progress:
        """How far the study is. Costs a pass over the trials: not for every turn."""
        total = len(self._trials) if self._over else total_of(self.study)
        runs_total = len(self._runs) if self._chooser else total and total * len(self.study.seeds)
        return Progress(
            study=self.study.name,
            strategy=self.study.strategy.name,
            metric=self.study.metric,
            direction=self.study.direction,
            counts={state: count for state, count in self._counts.items() if count},
            n_trials=total,
            runs_done=self._runs_done,
            runs_total=runs_total,
            best=tuple(best_trials(self._trials, self.study.direction, 5)),
            batch=self._trials[-1].batch if self._trials else 0,
            window=window_of(self.study, self._trials),
            seconds=self.seconds,
            eta_s=self._pace.eta_s(seconds=self.seconds, runs=self._runs_done, total=runs_total),
            failures=self._failures.newest,
            seeds=self.study.seeds,
            engines=self._engines.lines(),
        )

    def ending(self, *, stopped: bool, interrupted: bool) -> Ending:
        """How the search ends here; ``stopped``: by request, before it was done; ``interrupted``: by a signal."""
        state, reason = "complete", "" if self.done else "the time budget is used up"
        if isinstance(self.fatal, ExecutorError):
            state, reason = "interrupted", str(self.fatal)
        elif self.fatal:
            state, reason = "failed", str(self.fatal)
        elif stopped and not self.done:
            state, reason = ("interrupted", "by the user") if interrupted else ("stopped", "by hpsearch stop")
        return Ending(state=state, reason=reason, progress=self.progress(), error=self.fatal)

    # Inside
    @property
    def _open(self) -> int:
        if self._chooser is not None:
            return len(self._runs) - self._runs_done
        return len(self._trials) - sum(count for state, count in self._counts.items() if state.final)

    def _place(self, key: RunKey) -> tuple[int, ...]:
        return (self._order[key],)

    def _go_further(self, chooser: Chooser) -> None:
        """Let it choose, where no further run is open."""
        if self._open:
            return
        own = [(*self._others.get(t.number, ()), *self._runs_of(t.number)) for t in self._trials]
        answer = chooser([replace(trial, runs=runs) for trial, runs in zip(self._trials, own, strict=True)])
        self._draft.decisions.extend(answer.decisions)
        self._draft.runs.extend(answer.runs)
        self._draft.forgotten.extend(answer.forgotten)
        self._take_in(answer.runs)
        self._over = answer.over

    def _take_in(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._order[run.key] = len(self._order)
            self._runs[run.key] = run
            self._keys[run.key.trial].append(run.key)
        self._backlog.add(run.key for run in runs)

    def _add(self, trials: Sequence[Trial]) -> None:
        total = total_of(self.study)
        for trial in trials:
            runs = tuple(Run(key=RunKey(trial.number, seed)) for seed in self.study.seeds)
            self._take_in(runs)
            self._trials.append(trial)
            self._counts[trial.state] += 1
            self._draft.trials.append(replace(trial, runs=runs))
            self._cohorts.enter(trial, runs, total)

    def _move(self, trial: Trial, state: State) -> None:
        self._counts[trial.state] -= 1
        self._counts[state] += 1
        self._trials[trial.number] = replace(trial, state=state)

    def _runs_of(self, trial: int) -> list[Run]:
        return [self._runs[key] for key in self._keys[trial]]

    def _follow(self, number: int) -> None:
        """A trial that is not final is what its runs are."""
        trial = self._trials[number]
        if not trial.state.final and (state := state_of(self._runs_of(number))) is not trial.state:
            self._move(trial, state)

    def _release(self, key: RunKey, state: State) -> None:
        del self._running[key]
        self._runs[key] = replace(self._runs[key], state=state)
        self._follow(key.trial)

    def _again(self, report: Lost) -> None:
        """The attempt is gone; the run is not."""
        self._release(report.run, State.QUEUED)
        self._draft.losses.append(report)

    def _pause(self, report: PausedReport) -> None:
        self._release(report.run, State.PAUSED)
        self._backlog.leave(report.run)
        self._draft.pauses.append(report)
        trained = {"worker": report.worker, "engine": report.engine, "environment": report.environment}
        self._runs[report.run] = replace(self._runs[report.run], last_epoch=report.epoch, **trained)  # type: ignore[arg-type]
        self._cohorts.settle(report.run.trial, self._runs_of(report.run.trial))

    def _rule(self, ruling: Ruling) -> None:
        """The paused runs of a trial go on, or end where they are."""
        paused = [run for run in self._runs_of(ruling.trial) if run.state is State.PAUSED]
        if ruling.go:
            # One that was let go on before a restart may stand at the next rung already, or all may (``settle``).
            paused = self._cohorts.short(ruling.trial, paused)
            self._let_go.update(run.key for run in paused)
            self._runs.update({run.key: replace(run, state=State.QUEUED) for run in paused})
            self._backlog.add((run.key for run in paused), first=True)
            self._follow(ruling.trial)
            self._cohorts.settle(ruling.trial, self._runs_of(ruling.trial))
            return
        if ruling.details:
            subject, batch = str(ruling.trial), self._trials[ruling.trial].batch
            self._draft.decisions.append(
                Decision(kind="prune", subject=subject, reason=ruling.reason, details=ruling.details, batch=batch)
            )
        for run in paused:
            value, best_epoch = self._cohorts.best(run) or (None, None)
            self._conclude(
                Finished(
                    run=run.key,
                    attempt=run.attempt,
                    state=State.PRUNED,
                    value=value,
                    best_epoch=best_epoch,
                    last_epoch=run.last_epoch,
                    reason=ruling.reason,
                    worker=run.worker,
                    engine=run.engine,
                    environment=run.environment,
                )
            )

    def _crash(self, losses: Sequence[Lost]) -> None:
        """Workers are lost with several runs each: nobody knows whose fault it was."""
        for report in losses:
            self._again(replace(report, cause=f"{TOGETHER}{report.cause}"))
        self._backlog.crashed(losses)

    def _lose(self, report: Lost) -> None:
        end = self._losses.charge(report)
        if end is not None:
            self._end(end)
            return
        self._again(report)
        self._backlog.add([report.run])

    def _end(self, report: Finished) -> None:
        if report.reason == "study":
            self.fatal = self.fatal or ObjectiveError(report.error)
            self._again(Lost(run=report.run, attempt=report.attempt, cause="stopped"))
            self._backlog.add([report.run])
            return
        if report.reason == "oom" and self._losses.may_lose(report.run, "oom"):
            self._lose(Lost(run=report.run, attempt=report.attempt, cause="oom", seconds=report.seconds))
            return
        if report.state is State.CANCELLED:
            # Cancelled by a stop of the study: the run is not judged, it waits for the next start.
            self._lose(Lost(run=report.run, attempt=report.attempt, cause="stopped", seconds=report.seconds))
            return
        del self._running[report.run]
        self._backlog.leave(report.run)
        known = [epoch for epoch in (report.last_epoch, self._runs[report.run].last_epoch) if epoch is not None]
        # An attempt that ends before its first report has come as far as the run had when it paused last.
        self._conclude(replace(report, last_epoch=max(known, default=None)))

    def _conclude(self, report: Finished) -> None:
        """The run is final."""
        run, ended = self._runs[report.run], {"last_epoch": report.last_epoch, "reason": report.reason}
        seconds = run.seconds + report.seconds  # as the store adds them: a race compares them
        self._runs[report.run] = replace(run, state=report.state, value=report.value, seconds=seconds, **ended)  # type: ignore[arg-type]
        self._runs_done += 1
        self._draft.finished.append(report)
        alike = self._failures.hear(report, self._runs_done)
        if self._chooser is not None:
            return
        self._kept.hear(report)
        if alike and not self.fatal:
            hint = f"mend it, then: hpsearch delete {self.study.name}, and run it again"
            self.fatal = UnusableError(f"{alike}:\n{report.error.rstrip()}", hint=hint)
        runs = self._runs_of(report.run.trial)
        if all(run.state.final for run in runs):
            self._score(self._trials[report.run.trial], runs)
        else:
            self._follow(report.run.trial)
        self._cohorts.settle(report.run.trial, runs)

    def _score(self, trial: Trial, runs: Sequence[Run]) -> None:
        state, value, sd = score(runs)
        self._tell_seq += 1
        self._move(trial, state)
        self._trials[trial.number] = replace(self._trials[trial.number], value=value, sd=sd, tell_seq=self._tell_seq)
        self._draft.forgotten.extend(self._kept.score(self._trials[trial.number]))
        self._draft.scores.append(Score(number=trial.number, state=state, value=value, sd=sd, tell_seq=self._tell_seq))
        limit = self.study.max_failures
        if limit is not None and self._counts[State.FAILED] > limit and not self.fatal:
            self.fatal = UnusableError(
                f"{self._counts[State.FAILED]} trials have failed, more than max_failures: {limit}",
                hint=f"hpsearch show {self.study.name} lists the reasons",
            )
