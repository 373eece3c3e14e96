"""The coordinator's memory of one study: what its record says, and what the current turn will change in it.

The loop (``search.py``) hands in reports and capacity, and takes out one ``Turn`` to write and the assignments to start
once it is written. Nothing here does I/O or reads a clock, so a turn depends on what was reported and on nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from hpsearch.errors import HpsearchError, ObjectiveError, UnusableError
from hpsearch.executor import Assignment
from hpsearch.space import Categorical, Value
from hpsearch.store import Claim, Score, Snapshot, Turn
from hpsearch.strategy import Decision, History, Observation
from hpsearch.study import Study
from hpsearch.trial import (
    Direction,
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

#: how many attempts a run may lose to a cause before it has failed; causes that are nobody's fault are not charged
LOSS_BUDGETS = {"oom": 1, "drained": None, "stopped": None, "coordinator": None}
LOSS_BUDGET = 5
#: a strategy that learns nothing is asked for so many trials at a time, whenever fewer runs than that are waiting
AHEAD = 256
#: the same exception in so many first runs is a bug in the training code, not bad luck
FIRST_RUNS = 3


@final
@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is, for someone who watches."""

    study: str
    strategy: str
    metric: str
    direction: Direction
    #: trials by state
    counts: Mapping[State, int]
    #: all trials there will be, baselines included; None where nobody knows
    n_trials: int | None
    runs_done: int
    #: None where ``n_trials`` is
    runs_total: int | None
    #: at most five complete trials, best first; their ``runs`` are left out
    best: tuple[Trial, ...]
    #: the current batch or round, from 0
    batch: int
    #: the part of the space the current batch is drawn from, in the parameters' own units; {} where it is all of it
    window: Mapping[str, tuple[Value, Value]]
    #: of coordinator's time, over all restarts
    seconds: float
    #: until the end at the present pace; None where nobody knows
    eta_s: float | None
    #: (``trial/seed``, reason) of the failed runs, newest first, at most five
    failures: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a search ended."""

    #: ``complete``, ``stopped``, ``interrupted`` or ``failed``
    state: str
    reason: str
    progress: Progress
    error: HpsearchError | None = None


@final
class Ledger:
    """One study between two turns."""

    def __init__(self, study: Study, snapshot: Snapshot) -> None:
        self.study = study
        self.existed = snapshot.existed
        #: why the study cannot go on, where it cannot
        self.fatal: HpsearchError | None = None
        #: of coordinator's time, over all restarts; the loop keeps it
        self.seconds = snapshot.seconds
        self._trials = [replace(trial, runs=()) for trial in snapshot.trials]
        self._runs = {run.key: run for trial in snapshot.trials for run in trial.runs}
        self._losses = {key: Counter(causes) for key, causes in snapshot.losses.items()}
        self._tell_seq = max((trial.tell_seq or 0 for trial in self._trials), default=0)
        self._counts = Counter(trial.state for trial in self._trials)
        self._baselines = sum(trial.baseline for trial in self._trials)
        self._running: dict[RunKey, int] = {}
        self._queue: deque[RunKey] = deque()
        self._over = False
        self._failures: deque[tuple[str, str]] = deque(maxlen=5)
        self._first: list[tuple[str, str]] = []
        self._runs_done = sum(run.state.final for run in self._runs.values())
        self._resumed_at = (self._runs_done, self.seconds)
        self._clear()
        for key in snapshot.running:
            self._losses_of_turn.append(Lost(run=key, attempt=self._runs[key].attempt, cause="coordinator"))
            self._runs[key] = replace(self._runs[key], state=State.QUEUED)
        waiting = [key for key, run in self._runs.items() if not run.state.final]
        self._queue.extend(sorted(waiting, key=self._place))

    # What the loop asks

    @property
    def running(self) -> list[RunKey]:
        """The runs that a worker has."""
        return list(self._running)

    @property
    def done(self) -> bool:
        """True when no run is left and the strategy has no more trials within the budget."""
        return self._over and not self._queue and not self._running

    @property
    def spoiled(self) -> bool:
        """True when the study began with this ledger and no run of it has ended: deleting it loses nothing."""
        return not self.existed and self._runs_done == 0

    # What the loop does, in this order

    def apply(self, reports: Sequence[Report]) -> None:
        """Take in what workers have said. Reports of void attempts are counted and dropped."""
        for report in reports:
            if isinstance(report, Grouped):
                continue
            if self._running.get(report.run) != report.attempt:
                self._fenced += 1
            elif isinstance(report, EpochReport):
                self._epochs.append(report)
            elif isinstance(report, PausedReport):
                self._release(report.run, State.PAUSED)
                self._pauses.append(report)
            elif isinstance(report, Lost):
                self._lose(report)
            else:
                self._end(report)

    def ask(self) -> None:
        """Let the strategy choose, where a batch is due."""
        if self._over:
            return
        strategy, space = self.study.strategy, self.study.search_space
        if not self._trials:
            baselines = [
                Trial(number=number, params=dict(params), baseline=True)
                for number, params in enumerate(self.study.baselines)
            ]
            self._baselines = len(baselines)
            self._add(baselines)
        chosen, size = len(self._trials) - self._baselines, strategy.batch_size
        if size is None and len(self._queue) >= AHEAD:
            return
        if size is not None and chosen and chosen % size == 0 and self._open:
            return
        due = AHEAD if size is None else size - chosen % size
        if self.study.n_trials is not None:
            due = min(due, self.study.n_trials - chosen)
        history = self._history()
        params = strategy.ask(history, due) if due > 0 else []
        if not params:
            self._over = True
            return
        if history.index == 0:
            self._decisions.extend(strategy.decisions(history))
        seq = 0 if size is None else self._baselines + history.batch * size
        start = len(self._trials)
        for setting in params:
            # A breach here is a strategy's bug: its conformance suite promises it.
            assert space.hard().contains(setting), f"{strategy.name} chose {setting}, outside the search space"
        self._add(
            [
                Trial(number=start + k, params=setting, batch=history.batch, history_seq=seq)
                for k, setting in enumerate(params)
            ]
        )

    def claim(self, capacity: int) -> list[Assignment]:
        """Take queued runs, lowest trial first, for so many workers; start them once the turn is written."""
        assignments: list[Assignment] = []
        while self._queue and len(assignments) < capacity:
            key = self._queue.popleft()
            run = self._runs[key]
            attempt = run.attempt + 1
            self._runs[key] = replace(run, state=State.RUNNING, attempt=attempt)
            self._running[key] = attempt
            trial = self._trials[key.trial]
            if trial.state is not State.RUNNING:
                self._move(trial, State.RUNNING)
            self._claims.append(Claim(run=key, attempt=attempt))
            assignments.append(Assignment(run=key, params=trial.params, attempt=attempt))
        return assignments

    def take(self) -> Turn:
        """Everything since the last call, as one turn."""
        turn = Turn(
            trials=self._new,
            decisions=self._decisions,
            epochs=self._epochs,
            pauses=self._pauses,
            finished=self._finished,
            losses=self._losses_of_turn,
            scores=self._scores,
            claims=self._claims,
            fenced=self._fenced,
        )
        self._clear()
        return turn

    def progress(self) -> Progress:
        """How far the study is. Costs a pass over the trials: not for every turn."""
        total = self._total()
        runs_total = None if total is None else total * len(self.study.seeds)
        done, since = self._resumed_at
        pace = (self._runs_done - done) / (self.seconds - since) if self.seconds > since else 0.0
        eta = None if runs_total is None or pace <= 0 else (runs_total - self._runs_done) / pace
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
            window=self._window(),
            seconds=self.seconds,
            eta_s=eta,
            failures=tuple(self._failures),
            seeds=self.study.seeds,
        )

    def ending(self, *, stopped: bool, interrupted: bool) -> Ending:
        """How the search ends here; ``stopped``: by request, before it was done; ``interrupted``: by a signal."""
        state, reason = "complete", "" if self.done else "the time budget is used up"
        if self.fatal:
            state, reason = "failed", str(self.fatal)
        elif stopped and not self.done:
            state, reason = ("interrupted", "by the user") if interrupted else ("stopped", "by hpsearch stop")
        return Ending(state=state, reason=reason, progress=self.progress(), error=self.fatal)

    # Inside

    @property
    def _open(self) -> int:
        return len(self._trials) - sum(count for state, count in self._counts.items() if state.final)

    def _clear(self) -> None:
        self._new: list[Trial] = []
        self._decisions: list[Decision] = []
        self._epochs: list[EpochReport] = []
        self._pauses: list[PausedReport] = []
        self._finished: list[Finished] = []
        self._losses_of_turn: list[Lost] = []
        self._scores: list[Score] = []
        self._claims: list[Claim] = []
        self._fenced = 0

    def _place(self, key: RunKey) -> tuple[int, int, int]:
        return (key.trial, self.study.seeds.index(key.seed), key.repeat)

    def _total(self) -> int | None:
        ends = [n for n in (self.study.n_trials, self.study.strategy.size(self.study.search_space)) if n is not None]
        if self._over:
            return len(self._trials)
        return min(ends) + len(self.study.baselines) if ends else None

    def _window(self) -> dict[str, tuple[Value, Value]]:
        space = self.study.search_space.hard()
        window = self.study.strategy.window(self._history())
        numeric = {n: p for n, p in space.parameters.items() if n in window and not isinstance(p, Categorical)}
        return {name: (p.from_unit(window[name][0]), p.from_unit(window[name][1])) for name, p in numeric.items()}

    def _history(self) -> History:
        strategy = self.study.strategy
        chosen = len(self._trials) - self._baselines
        size = strategy.batch_size
        batch, index = (0, chosen) if size is None else divmod(chosen, size)
        start = self._baselines + batch * (size or 0)
        # The first batch is chosen before anything has ended, also when it is completed after a resume.
        known = self._trials[:start] if batch else []
        return History(
            search_space=self.study.search_space,
            direction=self.study.direction,
            seed=self.study.seed,
            batch=batch,
            index=index,
            finished=[Observation(params=t.params, state=t.state, value=t.value, baseline=t.baseline) for t in known],
            pending=[] if size is None else [t.params for t in self._trials[start:]],
        )

    def _add(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            runs = tuple(Run(key=RunKey(trial.number, seed)) for seed in self.study.seeds)
            self._runs.update({run.key: run for run in runs})
            self._queue.extend(run.key for run in runs)
            self._trials.append(trial)
            self._counts[trial.state] += 1
            self._new.append(replace(trial, runs=runs))

    def _move(self, trial: Trial, state: State) -> None:
        self._counts[trial.state] -= 1
        self._counts[state] += 1
        self._trials[trial.number] = replace(trial, state=state)

    def _release(self, key: RunKey, state: State) -> None:
        del self._running[key]
        self._runs[key] = replace(self._runs[key], state=state)

    def _lose(self, report: Lost) -> None:
        budget = LOSS_BUDGETS.get(report.cause, LOSS_BUDGET)
        causes = self._losses.setdefault(report.run, Counter())
        causes[report.cause] += 1
        if budget is not None and causes[report.cause] > budget:
            times = causes[report.cause]
            reason = f"{report.cause} ({times} times)" if times > 1 else report.cause
            error = f"{times} workers were lost with this run; the last by {report.cause}"
            self._end(
                Finished(
                    run=report.run,
                    attempt=report.attempt,
                    state=State.FAILED,
                    reason=reason,
                    error=error,
                    seconds=report.seconds,
                    worker=report.worker,
                )
            )
            return
        self._release(report.run, State.QUEUED)
        self._losses_of_turn.append(report)
        self._queue.appendleft(report.run)

    def _end(self, report: Finished) -> None:
        if report.reason == "study":
            self.fatal = self.fatal or ObjectiveError(report.error)
            self._release(report.run, State.QUEUED)
            self._losses_of_turn.append(Lost(run=report.run, attempt=report.attempt, cause="stopped"))
            self._queue.appendleft(report.run)
            return
        if report.reason == "oom" and self._losses.get(report.run, Counter())["oom"] < (LOSS_BUDGETS["oom"] or 0):
            self._lose(Lost(run=report.run, attempt=report.attempt, cause="oom", seconds=report.seconds))
            return
        if report.state is State.CANCELLED:
            # Cancelled by a stop of the study: the run is not judged, it waits for the next start.
            self._lose(Lost(run=report.run, attempt=report.attempt, cause="stopped", seconds=report.seconds))
            return
        self._release(report.run, report.state)
        self._runs[report.run] = replace(self._runs[report.run], value=report.value, reason=report.reason)
        self._runs_done += 1
        self._finished.append(report)
        if report.state is State.FAILED:
            self._failures.appendleft((str(report.run), report.reason))
        self._watch_first(report)
        runs = [self._runs[RunKey(report.run.trial, seed)] for seed in self.study.seeds]
        if all(run.state.final for run in runs):
            self._score(self._trials[report.run.trial], runs)

    def _watch_first(self, report: Finished) -> None:
        if self._runs_done > FIRST_RUNS or self.fatal:
            return
        last = report.error.strip().splitlines()[-1] if report.error.strip() else ""
        self._first.append((report.reason, last))
        if len(self._first) == FIRST_RUNS and len(set(self._first)) == 1 and report.reason == "exception":
            self.fatal = UnusableError(
                f"the first {FIRST_RUNS} runs all failed with the same exception:\n{report.error.rstrip()}",
                hint=f"mend it, then: hpsearch delete {self.study.name}, and run it again",
            )

    def _score(self, trial: Trial, runs: Sequence[Run]) -> None:
        state, value, sd = score(runs)
        self._tell_seq += 1
        self._move(trial, state)
        self._trials[trial.number] = replace(self._trials[trial.number], value=value, sd=sd, tell_seq=self._tell_seq)
        self._scores.append(Score(number=trial.number, state=state, value=value, sd=sd, tell_seq=self._tell_seq))
        limit = self.study.max_failures
        if limit is not None and self._counts[State.FAILED] > limit and not self.fatal:
            self.fatal = UnusableError(
                f"{self._counts[State.FAILED]} trials have failed, more than max_failures: {limit}",
                hint=f"hpsearch show {self.study.name} lists the reasons",
            )
