"""The coordinator's memory: what a turn holds, whatever workers say and in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.ask import AHEAD
from hpsearch.errors import ObjectiveError, UnusableError
from hpsearch.executor import Assignment
from hpsearch.ledger import Ledger
from hpsearch.losses import LOSS_BUDGET
from hpsearch.objective import ObjectiveAddress
from hpsearch.store import Snapshot, Turn
from hpsearch.strategy import Strategy
from hpsearch.trial import EpochReport, Finished, Grouped, Lost, RunKey, State, Trial

SPACE = hp.SearchSpace({"lr": hp.Float(1e-4, 1.0, log=True), "depth": hp.Int(1, 4)})
EMPTY = Snapshot(existed=False, trials=(), running=(), losses={}, seconds=0.0, rev=0)


def make(strategy: Strategy, **fields: object) -> hp.Study:
    settings: dict[str, object] = {"seeds": (0, 1), "n_trials": 12, "metric": "loss"} | fields
    address = ObjectiveAddress("train.py", "train", Path("/nowhere"))
    return hp.Study(name="s", objective=address, search_space=SPACE, strategy=strategy, **settings)  # type: ignore[arg-type]


def loss_of(assignment: Assignment) -> float:
    lr, depth = assignment.params["lr"], assignment.params["depth"]
    assert isinstance(lr, float)
    assert isinstance(depth, int)
    return (lr - 0.1) ** 2 + depth + assignment.run.seed


def complete(assignment: Assignment, value: float | None = None) -> Finished:
    value = loss_of(assignment) if value is None else value
    return Finished(run=assignment.run, attempt=assignment.attempt, state=State.COMPLETE, value=value)


def fail(assignment: Assignment, reason: str = "exception", error: str = "ValueError: no") -> Finished:
    return Finished(run=assignment.run, attempt=assignment.attempt, state=State.FAILED, reason=reason, error=error)


def play(ledger: Ledger, workers: int, *, newest_first: bool = False) -> list[Turn]:
    """Run the study to its end; one run ends a turn."""
    turns, busy = [], []
    while not ledger.done:
        ledger.ask()
        busy += ledger.claim(workers - len(busy), 1)
        turns.append(ledger.take())
        if busy:
            ledger.apply([complete(busy.pop(-1 if newest_first else 0))])
    turns.append(ledger.take())
    return turns


def chosen(turns: Sequence[Turn]) -> list[Trial]:
    return [trial for turn in turns for trial in turn.trials]


STRATEGIES = [hp.Random(), hp.Grid(points=4), hp.CoarseToFine(trials_per_round=4), hp.Bayesian(startup=4, batch=4)]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_the_trials_do_not_depend_on_workers_or_order(strategy: Strategy) -> None:
    one = chosen(play(Ledger(make(strategy), EMPTY), workers=1))
    four = chosen(play(Ledger(make(strategy), EMPTY), workers=4, newest_first=True))
    assert len(one) == 12
    assert [t.params for t in one] == [t.params for t in four]
    assert [t.number for t in one] == list(range(12))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_an_extended_study_equals_one_that_was_that_large_at_once(strategy: Strategy) -> None:
    small = play(Ledger(make(strategy, n_trials=6), EMPTY), workers=2)
    whole = chosen(play(Ledger(make(strategy), EMPTY), workers=2))
    more = chosen(play(Ledger(make(strategy), snapshot_after(small)), workers=2))
    assert [t.params for t in [*chosen(small), *more]] == [t.params for t in whole]
    assert [(t.number, t.batch, t.history_seq) for t in more] == [(t.number, t.batch, t.history_seq) for t in whole[6:]]


def snapshot_after(turns: Sequence[Turn]) -> Snapshot:
    """What a store would hold after these turns."""
    trials = {t.number: t for t in chosen(turns)}
    for turn in turns:
        for claim in turn.claims:
            trials[claim.run.trial] = with_run(trials[claim.run.trial], claim.run, State.RUNNING, claim.attempt, None)
        for done in turn.finished:
            trials[done.run.trial] = with_run(trials[done.run.trial], done.run, done.state, done.attempt, done.value)
        for s in turn.scores:
            trials[s.number] = replace(trials[s.number], state=s.state, value=s.value, sd=s.sd, tell_seq=s.tell_seq)
    running = [run.key for t in trials.values() for run in t.runs if run.state is State.RUNNING]
    return Snapshot(existed=True, trials=list(trials.values()), running=running, losses={}, seconds=5.0, rev=len(turns))


def with_run(trial: Trial, key: RunKey, state: State, attempt: int, value: float | None) -> Trial:
    runs = [replace(r, state=state, attempt=attempt, value=value) if r.key == key else r for r in trial.runs]
    return replace(trial, runs=tuple(runs))


@pytest.mark.parametrize("cut", range(1, 26, 3))
def test_a_study_cut_after_any_turn_goes_on_to_the_same_trials(cut: int) -> None:
    study = make(hp.CoarseToFine(trials_per_round=4))
    whole = play(Ledger(study, EMPTY), workers=3)
    before = whole[:cut]
    snapshot = snapshot_after(before)
    after = play(Ledger(study, snapshot), workers=2)
    assert [t.params for t in chosen([*before, *after])] == [t.params for t in chosen(whole)]
    scores = {s.number: s.value for turn in [*before, *after] for s in turn.scores}
    assert scores == {s.number: s.value for turn in whole for s in turn.scores}
    # A run that the dead coordinator had started is lost at no cost, and comes again as the next attempt.
    assert {loss.run for loss in after[0].losses} == set(snapshot.running)
    again = {c.run: c.attempt for turn in after for c in turn.claims if c.run in snapshot.running}
    assert again == dict.fromkeys(snapshot.running, 2)


def test_baselines_come_first_and_outside_n_trials() -> None:
    baseline = {"lr": 30.0, "depth": 1}
    turns = play(Ledger(make(hp.Random(), baselines=(baseline,), n_trials=3), EMPTY), workers=1)
    assert [(t.number, t.baseline) for t in chosen(turns)] == [(0, True), (1, False), (2, False), (3, False)]
    plain = chosen(play(Ledger(make(hp.Random(), n_trials=3), EMPTY), workers=1))
    assert [t.params for t in chosen(turns)] == [baseline, *(t.params for t in plain)]


def test_a_trial_is_the_mean_over_its_seeds_in_their_order() -> None:
    ledger = Ledger(make(hp.Random(), n_trials=1), EMPTY)
    ledger.ask()
    first, second = ledger.claim(4, 1)
    ledger.apply([complete(second, 0.3), complete(first, 0.1)])
    (score,) = ledger.take().scores
    assert (score.state, score.value, score.tell_seq) == (State.COMPLETE, 0.2, 1)
    assert score.sd == pytest.approx(0.2 / 2**0.5)


def test_diverged_is_an_observation_and_failed_is_stronger() -> None:
    ledger = Ledger(make(hp.Random(), n_trials=2), EMPTY)
    ledger.ask()
    a, b, c, d = ledger.claim(4, 1)
    diverged = Finished(run=a.run, attempt=1, state=State.DIVERGED, reason="nan loss at epoch 2")
    ledger.apply([diverged, complete(b), replace(diverged, run=c.run), fail(d)])
    states = [(s.number, s.state, s.value) for s in ledger.take().scores]
    assert states == [(0, State.DIVERGED, None), (1, State.FAILED, None)]


def test_reports_of_void_attempts_are_counted_and_dropped() -> None:
    ledger = Ledger(make(hp.Random()), EMPTY)
    ledger.ask()
    (a,) = ledger.claim(1, 1)
    ledger.apply([Lost(run=a.run, attempt=1, cause="signal:9")])
    (again,) = ledger.claim(1, 1)
    assert (again.run, again.attempt, again.params) == (a.run, 2, a.params)
    late = EpochReport(run=a.run, attempt=1, epoch=0, metrics={"loss": 1.0})
    ledger.apply([complete(a), late, complete(again), complete(again)])
    turn = ledger.take()
    assert turn.fenced == 3
    assert [f.attempt for f in turn.finished] == [2]
    assert turn.epochs == []


def test_a_run_that_loses_worker_after_worker_fails_in_the_end() -> None:
    ledger = Ledger(make(hp.Random(), n_trials=1, seeds=(0,)), EMPTY)
    ledger.ask()
    for attempt in range(1, LOSS_BUDGET + 2):
        (a,) = ledger.claim(1, 1)
        assert a.attempt == attempt
        ledger.apply([Lost(run=a.run, attempt=attempt, cause="signal:9")])
    turn = ledger.take()
    assert len(turn.losses) == LOSS_BUDGET
    assert [(f.state, f.reason) for f in turn.finished] == [(State.FAILED, "signal:9 (6 times)")]
    ledger.ask()
    assert ledger.done


@pytest.mark.parametrize("cause", ["stopped", "drained", "coordinator"])
def test_what_is_nobodys_fault_is_not_charged(cause: str) -> None:
    ledger = Ledger(make(hp.Random(), n_trials=1, seeds=(0,)), EMPTY)
    ledger.ask()
    for attempt in range(1, 2 * LOSS_BUDGET + 2):
        (a,) = ledger.claim(1, 1)
        ledger.apply([Lost(run=a.run, attempt=attempt, cause=cause)])
    assert ledger.take().finished == []
    assert not ledger.done


def test_out_of_memory_is_tried_once_more() -> None:
    ledger = Ledger(make(hp.Random(), n_trials=1, seeds=(0,)), EMPTY)
    ledger.ask()
    for _ in range(2):
        (a,) = ledger.claim(1, 1)
        ledger.apply([fail(a, reason="oom", error="out of memory")])
    turn = ledger.take()
    assert [loss.cause for loss in turn.losses] == ["oom"]
    assert [(f.state, f.reason, f.attempt) for f in turn.finished] == [(State.FAILED, "oom", 2)]


def test_the_same_exception_in_the_first_three_runs_is_a_bug() -> None:
    ledger = Ledger(make(hp.Random()), EMPTY)
    ledger.ask()
    ledger.apply([fail(a) for a in ledger.claim(3, 1)])
    assert isinstance(ledger.fatal, UnusableError)
    assert "ValueError: no" in str(ledger.fatal)


def test_different_exceptions_or_later_ones_stop_nothing() -> None:
    ledger = Ledger(make(hp.Random()), EMPTY)
    ledger.ask()
    a, b, c, *rest = ledger.claim(7, 1)
    ledger.apply([fail(a, error="ValueError: 1"), fail(b, error="ValueError: 2"), complete(c)])
    ledger.apply([fail(r) for r in rest])
    assert ledger.fatal is None


def test_a_study_that_does_not_fit_its_code_stops_at_once_and_keeps_nothing() -> None:
    ledger = Ledger(make(hp.Random()), EMPTY)
    ledger.ask()
    a, *_ = ledger.claim(2, 1)
    ledger.apply([fail(a, reason="study", error="nobody reads momentum")])
    assert isinstance(ledger.fatal, ObjectiveError)
    assert str(ledger.fatal) == "nobody reads momentum"
    assert ledger.spoiled
    assert ledger.take().finished == []


def test_too_many_failures_stop_the_study() -> None:
    ledger = Ledger(make(hp.Random(), seeds=(0,), max_failures=2), EMPTY)
    ledger.ask()
    for k, a in enumerate(ledger.claim(3, 1)):
        ledger.apply([fail(a, error=f"ValueError: {k}")])
    assert isinstance(ledger.fatal, UnusableError)
    assert "max_failures: 2" in str(ledger.fatal)


def test_a_strategy_that_learns_nothing_is_asked_ahead_and_in_pieces() -> None:
    ledger = Ledger(make(hp.Random(), n_trials=None, budget_s=1.0, seeds=(0,)), EMPTY)
    ledger.ask()
    ledger.ask()
    assert len(ledger.take().trials) == AHEAD


def test_progress_counts_ranks_and_shows_the_window() -> None:
    study = make(hp.CoarseToFine(trials_per_round=4), n_trials=8, seeds=(0,))
    ledger = Ledger(study, EMPTY)
    ledger.ask()
    for a in ledger.claim(4, 1):
        ledger.apply([complete(a)])
    ledger.ask()
    progress = ledger.progress()
    assert progress.counts == {State.COMPLETE: 4, State.QUEUED: 4}
    assert (progress.n_trials, progress.runs_done, progress.runs_total, progress.batch) == (8, 4, 8, 1)
    values = [t.value for t in progress.best]
    assert values == sorted(values)  # type: ignore[type-var]
    low, high = progress.window["lr"]
    assert 1e-4 <= low < high <= 1.0  # type: ignore[operator]
    assert high / low < 1e4 * 0.9  # type: ignore[operator]


def crash(assignments: Sequence[Assignment], cause: str = "signal:9") -> list[Lost]:
    """A worker dies with these runs in hand."""
    runs = [a.run for a in assignments]
    return [
        Lost(run=a.run, attempt=a.attempt, cause=cause, company=tuple(r for r in runs if r != a.run))
        for a in assignments
    ]


def test_a_poisonous_run_among_64_fails_alone_and_costs_the_others_seven_attempts() -> None:
    ledger = Ledger(make(hp.Random(), n_trials=64, seeds=(0,)), EMPTY)
    ledger.ask()
    poisonous, attempts, finished, charged = RunKey(37, 0), Counter[RunKey](), [], []
    while not ledger.done:
        # One worker of 64 lanes: it is idle whenever it is asked.
        assignments = ledger.claim(64, 1)
        assert assignments
        attempts.update(a.run for a in assignments)
        groups = {a.group for a in assignments}
        # A group has the worker to itself.
        assert len(groups) == 1
        if poisonous in [a.run for a in assignments]:
            ledger.apply(crash(assignments))
        else:
            ledger.apply([complete(a) for a in assignments])
        ledger.ask()
        turn = ledger.take()
        finished += turn.finished
        charged += [loss for loss in turn.losses if loss.cause == "signal:9"]
    assert {f.run: f.state for f in finished} == {
        RunKey(n, 0): State.FAILED if n == poisonous.trial else State.COMPLETE for n in range(64)
    }
    assert {loss.run for loss in charged} == {poisonous}
    assert len(charged) == LOSS_BUDGET
    assert max(count for run, count in attempts.items() if run != poisonous) == 1 + 7
    assert attempts[poisonous] == 7 + LOSS_BUDGET + 1


@pytest.mark.parametrize("cause", ["stopped", "drained", "coordinator"])
def test_what_is_nobodys_fault_makes_no_group(cause: str) -> None:
    ledger = Ledger(make(hp.Random()), EMPTY)
    ledger.ask()
    for _ in range(3):
        assignments = ledger.claim(4, 1)
        assert [a.group for a in assignments] == [None] * 4
        ledger.apply(crash(assignments, cause))
        assert [loss.cause for loss in ledger.take().losses] == [cause] * 4


def test_losses_in_company_are_recorded_as_such_and_charged_to_no_run_after_a_restart() -> None:
    study = make(hp.Random(), n_trials=2, seeds=(0,))
    ledger = Ledger(study, EMPTY)
    ledger.ask()
    ledger.apply(crash(ledger.claim(2, 1)))
    turn = ledger.take()
    assert [loss.cause for loss in turn.losses] == ["together: signal:9"] * 2
    losses = {loss.run: {loss.cause: 9} for loss in turn.losses}
    ledger = Ledger(study, replace(snapshot_after([turn]), losses=losses))
    (a,) = ledger.claim(1, 1)
    ledger.apply([Lost(run=a.run, attempt=a.attempt, cause="signal:9")])
    turn = ledger.take()
    assert (turn.finished, turn.losses[-1].cause) == ([], "signal:9")


def test_how_runs_are_trained_is_recorded_once_and_shown_in_a_line() -> None:
    ledger = Ledger(make(hp.Random()), EMPTY)
    ledger.ask()
    assignments = ledger.claim(8, 1)
    runs = tuple(a.run for a in assignments)
    many = Grouped(runs=runs, engine="vmap", device="cpu", lanes=8)
    few = replace(many, runs=runs[:3], lanes=3)
    alone = Grouped(runs=runs[:1], engine="solo", device="cpu", lanes=1, reason="LSTM has no batching rule")
    ledger.apply([many, few, many, alone])
    made = ledger.take().decisions
    assert [(d.kind, d.subject, d.reason) for d in made] == [
        ("grouped", "8", "8 lanes, vmap on cpu"),
        ("grouped", "3", "3 lanes, vmap on cpu"),
        ("grouped", "1", "solo on cpu: LSTM has no batching rule"),
    ]
    assert made[0].details == {"engine": "vmap", "device": "cpu", "lanes": 8, "reason": "", "first": "0/0"}
    lines = ("8 lanes, vmap on cpu", "solo on cpu: LSTM has no batching rule")
    assert ledger.progress().engines == lines
    # A later coordinator knows it, and says it again to nobody's record.
    later = Ledger(make(hp.Random()), replace(EMPTY, existed=True, grouped=made))
    assert later.progress().engines == lines
    later.apply([many, alone])
    assert later.take().decisions == []
