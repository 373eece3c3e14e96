"""Rungs, through the ledger and a real store: who goes on, who is pruned, whatever the workers, order and restarts."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.cohort import come
from hpsearch.executor import Assignment
from hpsearch.ledger import Ledger
from hpsearch.objective import ObjectiveAddress
from hpsearch.pruner import Pruner
from hpsearch.pruners.hyperband import Hyperband
from hpsearch.pruners.median import Median
from hpsearch.pruners.successive_halving import SuccessiveHalving
from hpsearch.replay import rungs
from hpsearch.store import Snapshot, StudyRecord, this_process
from hpsearch.stores.memory import MemoryArchive, MemoryRecord, MemoryStore
from hpsearch.study import fingerprint, spec_of
from hpsearch.trial import LARGEST, Direction, EpochReport, Finished, Lost, PausedReport, Report, RunKey, State, Trial

EPOCHS = 27
SPACE = hp.SearchSpace({"x": hp.Float(0.0, 1.0)})

#: (params, seed, epoch from 0) -> the metric
Metric = Callable[[float, int, int], float]


def falling(x: float, seed: int, epoch: int) -> float:
    """Curves that cross: a small x begins badly and ends well."""
    return x + (1.0 - x) / (epoch + 1) ** (1.0 + x) + 0.01 * seed


def study_of(pruner: Pruner | None, **fields: object) -> hp.Study:
    settings: dict[str, object] = {"n_trials": 81, "strategy": hp.Random(), "metric": "loss"} | fields
    address = ObjectiveAddress("train.py", "train", Path("/nowhere"))
    return hp.Study(name="s", objective=address, search_space=SPACE, pruner=pruner, **settings)  # type: ignore[arg-type]


def halving(**options: object) -> SuccessiveHalving:
    return SuccessiveHalving(max_epochs=EPOCHS, **options)  # type: ignore[arg-type]


class Workers:
    """Trains as a worker would: saves at a pause, goes on from there; one poll is one step of each busy run."""

    def __init__(self, metric: Metric, lanes: int, chance: random.Random | None = None) -> None:
        self.metric, self.lanes, self.chance = metric, lanes, chance
        self.saved: dict[RunKey, int] = {}
        self.busy: dict[RunKey, tuple[Assignment, int]] = {}
        self.trained = 0
        #: (run, epoch from 1) in the order in which they were trained
        self.log: list[tuple[RunKey, int]] = []
        #: run -> (epochs it takes, how it ends)
        self.ends: dict[RunKey, tuple[int, State]] = {}
        #: run -> the epoch, from 0, in which its training code raises
        self.raises: dict[RunKey, int] = {}

    def start(self, assignments: Sequence[Assignment]) -> None:
        for a in assignments:
            assert a.run not in self.busy
            self.busy[a.run] = (a, self.saved.get(a.run, 0))
        assert len(self.busy) <= self.lanes

    def step(self) -> list[Report]:
        said: list[Report] = []
        runs = list(self.busy)
        if self.chance:
            runs = self.chance.sample(runs, k=max(1, len(runs) // 2)) if runs else []
        for key in runs:
            said += self._train(key)
        return said

    def _train(self, key: RunKey) -> list[Report]:
        a, epoch = self.busy[key]
        if self.raises.get(key) == epoch:
            del self.busy[key]
            heard = None if epoch == self.saved.get(key, 0) else epoch - 1  # of what this process has reported
            return [Finished(run=key, attempt=a.attempt, state=State.FAILED, last_epoch=heard, reason="exception")]
        last, state = self.ends.get(key, (EPOCHS, State.COMPLETE))
        x = a.params["x"]
        assert isinstance(x, float)
        self.trained += 1
        value = self.metric(x, key.seed, epoch)
        epoch += 1
        self.log.append((key, epoch))
        self.busy[key] = (a, epoch)
        if epoch == last and state is not State.COMPLETE:
            del self.busy[key]
            if state is State.FAILED:
                heard = None if epoch - 1 == self.saved.get(key, 0) else epoch - 2
                return [Finished(run=key, attempt=a.attempt, state=state, last_epoch=heard, reason="exception")]
            reason = f"nan loss at epoch {epoch - 1}"
            return [Finished(run=key, attempt=a.attempt, state=state, last_epoch=epoch - 1, reason=reason)]
        said: list[Report] = [EpochReport(run=key, attempt=a.attempt, epoch=epoch - 1, metrics={"loss": value})]
        if epoch == last:
            del self.busy[key]
            done = Finished(run=key, attempt=a.attempt, state=state, value=value, best_epoch=epoch - 1)
            return [*said, replace(done, last_epoch=epoch - 1)]
        if a.until_epoch is not None and epoch >= a.until_epoch:
            self.saved[key] = epoch
            del self.busy[key]
            said.append(PausedReport(run=key, attempt=a.attempt, epoch=epoch - 1, engine="vmap, cpu, 4 lanes"))
        return said


def opened(study: hp.Study, record: MemoryRecord) -> tuple[MemoryStore, Snapshot]:
    spec, store = spec_of(study), MemoryStore(record)
    stored = StudyRecord(name="s", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64)
    return store, store.open(stored, this_process(), lease_s=60.0, curves="loss")


def play(
    study: hp.Study, record: MemoryRecord, workers: Workers, turns: int = 100_000, epochs: int | None = None
) -> Ledger:
    """The loop of ``search``, with simulated workers; after so many turns its coordinator is dead, the workers too."""
    store, snapshot = opened(study, record)
    ledger = Ledger(study, snapshot, epochs=epochs)
    workers.busy.clear()
    for _ in range(turns):
        ledger.apply(workers.step())
        ledger.seconds += 1.0
        ledger.ask()
        assignments = ledger.claim(workers.lanes - len(workers.busy), 0)
        turn = ledger.take()
        if not turn.empty:
            store.write(replace(turn, seconds=1.0))
        workers.start(assignments)
        if ledger.done and not ledger.running:
            return ledger
    return ledger


def outcome(record: MemoryRecord) -> list[tuple[object, ...]]:
    return [
        (t.number, t.params, t.state, t.value, [(r.key, r.state, r.value, r.best_epoch, r.last_epoch) for r in t.runs])
        for t in MemoryArchive(record).trials("s")
    ]


def check_replay(study: hp.Study, record: MemoryRecord) -> None:
    """The rungs of a study that is over, walked once more from its record, end in what is recorded."""
    archive = MemoryArchive(record)
    trials, curves = archive.trials("s"), opened(study, copy.deepcopy(record))[1].curves
    found = rungs(study, trials, curves, over=True)
    decided = {
        (str(t), s.ruling.reason, str(dict(s.ruling.details))) for t, s in found.stops.items() if s.ruling.details
    }
    assert {(d.subject, d.reason, str(dict(d.details))) for d in archive.decisions("s")} == decided
    for run in (run for trial in trials for run in trial.runs if run.state is State.PRUNED):
        stop = found.stops[run.key.trial]
        assert (stop.pauses[run.key], stop.ruling.reason) == (come(run), run.reason)
        assert stop.ends[run.key] == (None if run.value is None else (run.value, run.best_epoch))


def search(study: hp.Study, metric: Metric = falling, lanes: int = 4) -> tuple[MemoryRecord, Workers]:
    record, workers = MemoryRecord(), Workers(metric, lanes)
    assert play(study, record, workers).done
    return record, workers


def expected_halving(trials: Sequence[Trial], metric: Metric, seeds: Sequence[int] = (0,)) -> dict[int, int]:
    """Successive halving as the textbook says it: trial -> the epochs it was trained for."""
    alive, epochs = [t.number for t in trials], {}
    for rung in (1, 3, 9):
        worth = {
            n: sum(metric(float(trials[n].params["x"]), seed, rung - 1) for seed in seeds)  # type: ignore[arg-type]
            for n in alive
        }
        kept = sorted(alive, key=lambda n: (worth[n], n))[: max(1, len(alive) // 3)]
        epochs.update({n: rung for n in alive if n not in kept})
        alive = kept
    return epochs | dict.fromkeys(alive, EPOCHS)


def test_81_trials_cost_243_epochs_and_the_right_ones_go_on() -> None:
    record, workers = search(study_of(halving()))
    trials = MemoryArchive(record).trials("s")
    wanted = expected_halving(trials, falling)
    assert sorted(wanted.values()) == [1] * 54 + [3] * 18 + [9] * 6 + [27] * 3
    assert {t.number: (t.runs[0].last_epoch or 0) + 1 for t in trials} == wanted
    assert workers.trained == 243
    for t in trials:
        (run,) = t.runs
        assert t.state is (State.COMPLETE if wanted[t.number] == EPOCHS else State.PRUNED)
        assert t.value == run.value == falling(t.params["x"], 0, wanted[t.number] - 1)  # type: ignore[arg-type]
        assert run.best_epoch == wanted[t.number] - 1
        assert run.attempt == 1


def test_every_pruning_is_recorded_with_its_reason() -> None:
    record, _ = search(study_of(halving()))
    decisions = MemoryArchive(record).decisions("s")
    pruned = {t.number: t for t in MemoryArchive(record).trials("s") if t.state is State.PRUNED}
    assert sorted(int(d.subject) for d in decisions) == sorted(pruned)
    assert {d.kind for d in decisions} == {"prune"}
    for d in decisions:
        run = pruned[int(d.subject)].runs[0]
        assert d.details["epoch"] == (run.last_epoch or 0) + 1
        assert d.details["values"] == [run.value]
        assert d.reason == run.reason
        assert run.engine == "vmap, cpu, 4 lanes"
    assert {(d.reason, d.details["trials"]) for d in decisions} == {
        ("best 27 of 81 at epoch 1", 81),
        ("best 9 of 27 at epoch 3", 27),
        ("best 3 of 9 at epoch 9", 9),
    }


PRUNERS = {
    "halving": halving(),
    "cohorts": halving(cohort=27),
    "hyperband": Hyperband(max_epochs=EPOCHS),
    "median": Median(max_epochs=EPOCHS, warmup_epochs=2, every=5),
    "median of cohorts": Median(max_epochs=EPOCHS, warmup_epochs=2, every=5, cohort=20),
}


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS.keys())
def test_the_workers_their_order_and_kills_change_nothing(pruner: Pruner) -> None:
    study = study_of(pruner, seeds=(3, 1), n_trials=50, baselines=({"x": 0.999},))
    calm, _ = search(study, lanes=1)
    states = [state for _, _, state, *_ in outcome(calm)]
    assert states.count(State.PRUNED) >= 10
    assert states.count(State.COMPLETE) >= 2
    for seed, lanes in enumerate([3, 40, 200]):
        chance = random.Random(seed)
        wild = MemoryRecord()
        play(study, wild, Workers(falling, lanes, chance))
        assert outcome(wild) == outcome(calm)
        killed, workers = MemoryRecord(), Workers(falling, lanes, chance)
        for _ in range(6):
            play(study, killed, workers, turns=chance.randrange(3, 25))
        assert play(study, killed, workers).done
        assert outcome(killed) == outcome(calm)
        prunings = [d.subject for d in MemoryArchive(killed).decisions("s")]
        assert sorted(prunings) == sorted(d.subject for d in MemoryArchive(calm).decisions("s"))


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS.keys())
def test_a_seed_at_the_next_rung_waits_there_though_others_were_not_claimed_before_a_kill(
    pruner: Pruner,
) -> None:
    """With one lane, the seeds of a trial that was let go on come to the next rung one after the other."""
    study = study_of(pruner, seeds=(0, 1, 2), n_trials=9)
    calm, _ = search(study, lanes=1)
    for turns in range(20, 75, 5):
        killed, workers = MemoryRecord(), Workers(falling, 1)
        for first in (turns, 17, 23):
            play(study, killed, workers, turns=first)
        assert play(study, killed, workers).done
        assert outcome(killed) == outcome(calm)


@pytest.mark.parametrize(
    ("seeds", "times"),
    [((0,), 3), pytest.param((0,), 12, marks=pytest.mark.full), pytest.param((3, 1), 12, marks=pytest.mark.full)],
)
@pytest.mark.parametrize("every", [1, 2], ids=["each epoch", "every second epoch"])
@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS.keys())
def test_runs_that_fail_anywhere_are_ruled_alike_after_a_restart(
    pruner: Pruner, every: int, seeds: tuple[int, ...], times: int
) -> None:
    """Also right after a rung, whether the metric was reported there or not."""

    def metric(x: float, seed: int, epoch: int) -> float:
        return math.nan if epoch % every else falling(x, seed, epoch)

    for chance in map(random.Random, range(times)):
        study = study_of(pruner, seeds=seeds, n_trials=40)
        keys = [RunKey(number, seed) for number in range(40) for seed in seeds]
        raises = {key: chance.choice([0, 1, 2, 3, 7, 9, 12]) for key in chance.sample(keys, 12)}
        # A task's runs alone diverge in an epoch of their own, and they report their metric in each.
        diverge = chance.sample(keys, 4 if every == 1 else 0)
        ends = {key: (chance.randrange(1, 12), State.DIVERGED) for key in diverge}
        records = []
        for lanes, turns in ((4, []), (30, [chance.randrange(1, 12) for _ in range(12)])):
            record, workers = MemoryRecord(), Workers(metric, lanes, chance if turns else None)
            workers.raises, workers.ends = raises, ends
            for some in turns:
                play(study, record, workers, turns=some)
            assert play(study, record, workers).done
            check_replay(study, record)
            records.append((outcome(record), sorted(d.subject for d in MemoryArchive(record).decisions("s"))))
        assert records[0] == records[1]


class Seldom(Workers):
    """Reports every so many epochs, a number by seed, and the last one: pauses at the first report after its rung."""

    def __init__(self, every: Callable[[int], int], lanes: int) -> None:
        super().__init__(falling, lanes)
        self.every = every

    def _train(self, key: RunKey) -> list[Report]:
        a, epoch = self.busy[key]
        every, until = self.every(key.seed), a.until_epoch or LARGEST
        if epoch == EPOCHS:  # it had paused at its last report
            del self.busy[key]
            value = self.metric(a.params["x"], key.seed, epoch - 1)  # type: ignore[arg-type]
            return [Finished(run=key, attempt=a.attempt, state=State.COMPLETE, value=value, best_epoch=epoch - 1)]
        report = min((epoch // every + 1) * every, EPOCHS)
        if epoch <= self.raises.get(key, -1) < report:
            self.raises[key] = epoch  # as far as anyone has heard
            return super()._train(key)
        self.busy[key] = (replace(a, until_epoch=max(until, report)), report - 1)
        said = super()._train(key)
        if key in self.busy:
            self.busy[key] = (a, report)
        elif report == EPOCHS >= until:
            self.saved[key] = report
            said[-1] = PausedReport(run=key, attempt=a.attempt, epoch=report - 1)
        return said


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("every", [lambda seed: 5, lambda seed: 3 - seed, lambda seed: EPOCHS], ids=["5", "3 2", "27"])
@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS.keys())
def test_runs_that_report_seldom_wait_at_every_rung_they_have_come_to_whatever_the_kills(
    pruner: Pruner, every: Callable[[int], int], seeds: tuple[int, ...]
) -> None:
    study = study_of(pruner, seeds=seeds, n_trials=20)
    for chance in map(random.Random, range(3)):
        keys = [RunKey(number, seed) for number in range(20) for seed in seeds]
        raises = {key: chance.randrange(EPOCHS) for key in chance.sample(keys, chance.choice([0, 5]))}
        outcomes = []
        for kills in (0, 12):
            record, workers = MemoryRecord(), Seldom(every, 3)
            workers.raises = dict(raises)
            for _ in range(kills):
                play(study, record, workers, turns=chance.randrange(1, 8))
            assert play(study, record, workers).done
            check_replay(study, record)
            outcomes.append(outcome(record))
        assert outcomes[0] == outcomes[1]


def test_a_function_that_saved_nothing_begins_again_and_changes_nothing() -> None:
    study = study_of(halving())
    calm, _ = search(study)
    forgetful, workers = MemoryRecord(), Workers(falling, 4)
    workers.saved = Forgets()
    assert play(study, forgetful, workers).done
    assert workers.trained == 81 + 27 * 3 + 9 * 9 + 3 * 27
    assert outcome(forgetful) == outcome(calm)


class Forgets(dict[RunKey, int]):
    """Keeps nothing."""

    def __setitem__(self, key: RunKey, value: int) -> None: ...


def test_maximize_keeps_the_largest() -> None:
    up, _ = search(study_of(halving()))
    down, _ = search(study_of(halving(), direction=Direction.MAXIMIZE), lambda *args: -falling(*args))
    assert [(n, s) for n, _, s, *_ in outcome(up)] == [(n, s) for n, _, s, *_ in outcome(down)]
    values = zip((v for *_, v, _ in outcome(up)), (v for *_, v, _ in outcome(down)), strict=True)
    assert all(a == -b for a, b in values)  # type: ignore[operator]


def test_two_seeds_are_pruned_together_by_their_mean() -> None:
    def by_seed(x: float, seed: int, epoch: int) -> float:
        return falling(x, 0, epoch) + (0.5 * math.sin(40 * x) if seed else 0.0)

    record, workers = search(study_of(halving(), seeds=(0, 7)), by_seed)
    trials = MemoryArchive(record).trials("s")
    wanted = expected_halving(trials, by_seed, (0, 7))
    assert {t.number: {(r.last_epoch or 0) + 1 for r in t.runs} for t in trials} == {n: {e} for n, e in wanted.items()}
    assert workers.trained == 2 * 243
    assert wanted != expected_halving(trials, by_seed, (0,))


def test_the_value_of_a_pruned_run_is_its_best_and_the_rung_takes_that_of_the_epoch() -> None:
    """x below 0.5: good at epoch 0 and bad at epoch 1. They must not go on for what they were."""

    def turning(x: float, seed: int, epoch: int) -> float:
        return (0.0 if epoch == 0 else 9.0) + x if x < 0.5 else 1.0 + x

    record, _ = search(study_of(halving(min_epochs=2)), turning)
    pruned = [t for t in MemoryArchive(record).trials("s") if t.state is State.PRUNED]
    turned = [t for t in pruned if t.params["x"] < 0.5]  # type: ignore[operator]
    assert turned
    assert all((t.value, t.runs[0].best_epoch, t.runs[0].last_epoch) == (t.params["x"], 0, 1) for t in turned)
    first = sorted(t.params["x"] for t in MemoryArchive(record).trials("s") if (t.runs[0].last_epoch or 0) > 1)
    assert first[0] >= 0.5  # type: ignore[operator]


@pytest.mark.parametrize("state", [State.DIVERGED, State.FAILED])
@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
def test_a_trial_that_ends_badly_is_the_worst_of_its_rung_and_its_other_runs_end_there(
    state: State, epochs: int
) -> None:
    study = study_of(halving(), seeds=(0, 1), n_trials=9)
    plain, _ = search(study)
    best = min(MemoryArchive(plain).trials("s"), key=lambda t: (t.state, t.value))  # it would win
    assert best.state is State.COMPLETE
    record, workers = MemoryRecord(), Workers(falling, 3)
    workers.ends[RunKey(best.number, 1)] = (epochs, state)
    assert play(study, record, workers).done
    trials = MemoryArchive(record).trials("s")
    bad = trials[best.number]
    assert (bad.state, bad.value) == (state, None)
    rung = next(r for r in (1, 3, EPOCHS) if epochs <= r)
    other = bad.runs[0]
    assert (other.state, other.last_epoch) == (State.PRUNED if rung < EPOCHS else State.COMPLETE, rung - 1)
    if rung < EPOCHS:
        assert other.reason == f"the trial has {state} with seed 1"
        assert sum(t.state is State.COMPLETE for t in trials) == 1
    subjects = [d.subject for d in MemoryArchive(record).decisions("s")]
    assert str(best.number) not in subjects
    killed, workers = MemoryRecord(), Workers(falling, 3)
    workers.ends[RunKey(best.number, 1)] = (epochs, state)
    for _ in range(4):
        play(study, killed, workers, turns=4)
    assert play(study, killed, workers).done
    assert outcome(killed) == outcome(record)


def test_a_run_that_ends_before_its_rung_takes_part_with_its_last_metric() -> None:
    study = study_of(halving(), n_trials=27)
    plain, _ = search(study)
    wanted = expected_halving(MemoryArchive(plain).trials("s"), falling)
    last = next(n for n, epochs in wanted.items() if epochs == EPOCHS)
    record, workers = MemoryRecord(), Workers(falling, 3)
    # It is complete after two epochs; what it was then is still compared at epochs 3 and 9.
    workers.ends[RunKey(last, 0)] = (2, State.COMPLETE)
    assert play(study, record, workers).done
    trials = MemoryArchive(record).trials("s")
    assert (trials[last].state, trials[last].runs[0].last_epoch) == (State.COMPLETE, 1)
    reasons = {d.reason for d in MemoryArchive(record).decisions("s")}
    assert reasons == {"best 9 of 27 at epoch 1", "best 3 of 9 at epoch 3", "best 1 of 3 at epoch 9"}
    killed, workers = MemoryRecord(), Workers(falling, 3)
    workers.ends[RunKey(last, 0)] = (2, State.COMPLETE)
    for _ in range(4):
        play(study, killed, workers, turns=5)
    assert play(study, killed, workers).done
    assert outcome(killed) == outcome(record)


def test_baselines_run_to_their_end_and_count_in_no_cohort() -> None:
    record, workers = search(study_of(halving(), baselines=({"x": 5.0}, {"x": 6.0})), lambda x, s, e: x)
    trials = MemoryArchive(record).trials("s")
    assert [t.state for t in trials[:2]] == [State.COMPLETE] * 2
    assert workers.trained == 243 + 2 * EPOCHS
    assert {d.details["trials"] for d in MemoryArchive(record).decisions("s")} == {81, 27, 9}


def test_a_cohort_is_the_batch_of_a_strategy_that_learns() -> None:
    study = study_of(halving(), strategy=hp.CoarseToFine(trials_per_round=9), n_trials=22)
    record, _ = search(study)
    trials = MemoryArchive(record).trials("s")
    states = [[t.state for t in trials if t.batch == batch] for batch in range(3)]
    assert [len(batch) for batch in states] == [9, 9, 4]
    assert [batch.count(State.COMPLETE) for batch in states] == [1, 1, 1]
    # A round begins when all of the last one are final, pruned ones included.
    assert all(t.history_seq == 9 * t.batch for t in trials)


def test_an_extended_study_goes_on_and_ends() -> None:
    record, workers = search(study_of(halving()))
    before = outcome(record)
    ledger = play(study_of(halving(), n_trials=162), record, workers)
    assert ledger.done
    assert outcome(record)[:81] == before
    trials = MemoryArchive(record).trials("s")
    assert len(trials) == 162
    assert all(t.state.final for t in trials)
    assert sum(t.state is State.PRUNED for t in trials[81:]) >= 54


def test_progress_counts_paused_queued_and_pruned() -> None:
    study = study_of(halving(), n_trials=9)
    record, workers = MemoryRecord(), Workers(falling, 4)
    ledger = play(study, record, workers, turns=2)
    assert ledger.progress().counts == {State.PAUSED: 4, State.RUNNING: 4, State.QUEUED: 1}
    assert not ledger.done
    ledger.seconds = 10.0
    ledger = play(study, record, workers, turns=4)
    progress = ledger.progress()
    assert (progress.runs_total, progress.runs_done) == (9, 6)
    assert progress.counts[State.PRUNED] == 6
    assert sum(progress.counts.values()) == 9


def test_the_time_left_is_told_from_epochs_also_after_a_restart() -> None:
    """A turn is a second, in which each of four lanes trains an epoch; the first turn only starts them."""
    study, record, workers = study_of(halving()), MemoryRecord(), Workers(falling, 4)
    ledger = play(study, record, workers, turns=1, epochs=243)
    assert ledger.progress().eta_s is None
    ledger = play(study, record, workers, turns=11, epochs=243)
    progress = ledger.progress()
    assert (workers.trained, ledger.seconds, progress.runs_done) == (40, 12.0, 0)
    assert progress.eta_s == pytest.approx((243 - 40) * 11 / 40)
    ledger = play(study, record, workers, turns=10, epochs=243)
    assert (workers.trained, ledger.seconds) == (76, 22.0)
    assert ledger.progress().eta_s == pytest.approx((243 - 76) * 10 / 36)


def test_one_that_is_stopped_and_lost_between_two_rungs_keeps_its_rung() -> None:
    study = study_of(halving(), n_trials=3)
    record, workers = MemoryRecord(), Workers(falling, 1)
    ledger = play(study, record, workers, turns=5)
    (key,) = ledger.running
    (a, _), attempt = workers.busy.pop(key), ledger._runs[key].attempt
    assert (attempt, a.until_epoch) == (1, None)
    ledger.apply([Lost(run=key, attempt=1, cause="signal:9")])
    (again,) = ledger.claim(1, 1)
    assert (again.run, again.attempt, again.until_epoch) == (key, 2, None)


def test_asynchronous_halving_lets_go_on_before_all_have_come_and_ends() -> None:
    record, workers = search(study_of(halving(asynchronous=True)), lanes=1)
    assert all(t.state.final for t in MemoryArchive(record).trials("s"))
    assert workers.trained < 81 * EPOCHS / 3
    came = [epoch for _, epoch in workers.log]
    assert came.index(2) < 81 < [n for n, epoch in enumerate(came) if epoch == 1][-1]
    # The synchronous one waits for all.
    _, workers = search(study_of(halving()), lanes=1)
    assert [epoch for _, epoch in workers.log][:82] == [1] * 81 + [2]
