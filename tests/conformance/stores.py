"""What every store and its archive must do. A new store subclasses ``StoreConformance`` and gives it ``doors``."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.archive import Archive, outline_of
from hpsearch.errors import NotFoundError, StoreError, StudyChangedError, StudyHeldError
from hpsearch.mirror import Mirror
from hpsearch.store import Claim, Command, Holder, Score, Snapshot, Store, StudyRecord, Turn, this_process
from hpsearch.strategy import Decision
from hpsearch.trial import (
    Checkpoint,
    Environment,
    EpochReport,
    Finished,
    Lost,
    PausedReport,
    Run,
    RunKey,
    Stage,
    State,
    Trial,
)

RECORD = StudyRecord(
    name="digits",
    spec={"direction": "minimize", "seeds": [0, 1], "tags": ["first"], "n_trials": 4},
    fingerprint="f" * 64,
    code_hash="c" * 64,
    file="/home/ann/digits.yaml",
    text="name: digits\n",
)
ELSEWHERE = Holder(host="elsewhere", pid=1, boot_id="other/pid", started=5)
ENVIRONMENT = Environment(python="3.11", torch="2.13", device="cpu", machine="x86", packages={"numpy": "2"})
LONG_S = 60.0


class Doors(ABC):
    """One record, and doors to it."""

    @abstractmethod
    def store(self) -> Store: ...

    @abstractmethod
    def archive(self) -> Archive: ...


def trial(number: int, seeds: tuple[int, ...] = (0, 1), **more) -> Trial:
    runs = tuple(Run(key=RunKey(number, seed)) for seed in seeds)
    return Trial(number=number, params={"lr": 0.1 / (number + 1), "act": "relu"}, runs=runs, **more)


def begun(doors: Doors, *, trials: int = 1, seeds: tuple[int, ...] = (0,), lease_s: float = LONG_S) -> Store:
    """A store with these trials, whose runs are all running as attempt 1."""
    store = doors.store()
    store.open(RECORD, this_process(), lease_s=lease_s)
    new = [trial(number, seeds) for number in range(trials)]
    store.write(Turn(trials=new, claims=[Claim(run=run.key, attempt=1) for one in new for run in one.runs]))
    return store


def done(key: RunKey, value: float | None = 0.5, state: State = State.COMPLETE, **more) -> Finished:
    return Finished(run=key, attempt=more.pop("attempt", 1), state=state, value=value, **more)


def score(number: int, value: float | None = 0.5, state: State = State.COMPLETE, seq: int | None = None) -> Score:
    return Score(number=number, state=state, value=value, sd=None, tell_seq=number + 1 if seq is None else seq)


def again(doors: Doors, holder: Holder | None = None) -> Snapshot:
    return doors.store().open(RECORD, holder or this_process(), lease_s=LONG_S)


def a_dead_process() -> Holder:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(this_process(), pid=process.pid, started=1)


class StoreConformance:
    """The suite."""

    # Creating and opening

    def test_a_new_study_is_empty(self, doors):
        snapshot = again(doors)
        assert not snapshot.existed
        assert (snapshot.trials, snapshot.running, snapshot.losses) == ([], [], {})
        assert (snapshot.seconds, snapshot.rev) == (0.0, 0)

    def test_a_study_is_found_as_it_was_stored(self, doors):
        before = time.time() - 1
        again(doors)
        summary = doors.archive().study("digits")
        assert summary.spec == RECORD.spec
        assert (summary.fingerprint, summary.code_hash) == (RECORD.fingerprint, RECORD.code_hash)
        assert (summary.file, summary.text) == (RECORD.file, RECORD.text)
        assert before < summary.created <= summary.updated < time.time() + 1
        assert (summary.state, summary.best, summary.counts) == ("running", None, {})
        assert summary.holder == f"process {os.getpid()} on {this_process().host}"

    def test_who_takes_a_study_knows_how_it_was_left(self, doors):
        store = begun(doors)
        store.close("complete", "the time budget is used up")
        store = doors.store()
        assert store.open(RECORD, this_process(), lease_s=LONG_S).left == ("complete", "the time budget is used up")
        store.close("stopped")
        dead = a_dead_process()
        assert again(doors, dead).left == ("stopped", "")
        assert again(doors).left[0] == "interrupted"

    def test_another_spec_is_refused_with_what_differs(self, doors):
        begun(doors).close("stopped")
        other = replace(RECORD, fingerprint="0" * 64, spec={**RECORD.spec, "seeds": [0]})
        with pytest.raises(StudyChangedError, match=r"seeds: \[0, 1\] -> \[0\]") as caught:
            doors.store().open(other, this_process(), lease_s=LONG_S)
        assert "hpsearch delete digits" in caught.value.hint
        assert doors.archive().study("digits").spec == RECORD.spec
        assert doors.archive().study("digits").state == "stopped"

    def test_loose_fields_are_replaced(self, doors):
        begun(doors).close("stopped")
        longer = replace(RECORD, spec={**RECORD.spec, "n_trials": 9}, text="n_trials: 9", file="/b.yaml")
        assert doors.store().open(longer, this_process(), lease_s=LONG_S).existed
        summary = doors.archive().study("digits")
        assert (summary.spec["n_trials"], summary.text, summary.file) == (9, "n_trials: 9", "/b.yaml")
        # That there were fewer is not forgotten: how large a cohort was follows from it.
        (extended,) = doors.archive().decisions("digits")
        assert (extended.kind, extended.subject, extended.reason) == ("extended", "n_trials", "9, was 4")
        assert extended.details == {"old": 4, "new": 9}

    def test_changed_code_is_refused_unless_allowed(self, doors):
        begun(doors).close("stopped")
        other = replace(RECORD, code_hash="d" * 64)
        with pytest.raises(StudyChangedError, match="code"):
            doors.store().open(other, this_process(), lease_s=LONG_S)
        assert doors.archive().study("digits").code_hash == "c" * 64
        doors.store().open(other, this_process(), lease_s=LONG_S, allow_changed=True)
        assert doors.archive().study("digits").code_hash == "d" * 64

    # The lease

    def test_a_live_holder_keeps_its_study(self, doors):
        doors.store().open(RECORD, ELSEWHERE, lease_s=LONG_S)
        with pytest.raises(StudyHeldError, match="process 1 on elsewhere"):
            again(doors)
        with pytest.raises(StudyHeldError):
            doors.store().delete("digits")

    def test_a_living_process_of_this_machine_keeps_its_study(self, doors):
        parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            ticks = int(Path(f"/proc/{parent.pid}/stat").read_text().rpartition(")")[2].split()[19])
            doors.store().open(RECORD, replace(this_process(), pid=parent.pid, started=ticks), lease_s=LONG_S)
            with pytest.raises(StudyHeldError):
                again(doors)
        finally:
            parent.communicate(b"\n")
        assert again(doors).existed

    @pytest.mark.parametrize("dead", ["process", "boot", "reused pid"])
    def test_a_dead_holder_is_replaced_at_once(self, doors, dead):
        holder = {
            "process": a_dead_process(),
            "boot": replace(this_process(), boot_id="an earlier boot/pid"),
            "reused pid": replace(this_process(), started=this_process().started + 1),
        }[dead]
        doors.store().open(RECORD, holder, lease_s=LONG_S)
        summary = doors.archive().study("digits")
        assert (summary.state, summary.holder) == ("interrupted", "")
        assert again(doors).existed

    def test_another_pid_namespace_is_not_judged(self, doors):
        boot = this_process().boot_id.partition("/")[0]
        doors.store().open(RECORD, replace(this_process(), boot_id=f"{boot}/pid:[1]", pid=2**22 + 1), lease_s=LONG_S)
        with pytest.raises(StudyHeldError):
            again(doors)

    def test_a_lease_that_ran_out_is_taken_and_fences_its_holder(self, doors):
        first = doors.store()
        first.open(RECORD, ELSEWHERE, lease_s=0.05)
        first.write(Turn(trials=[trial(0)]))
        time.sleep(0.1)
        assert doors.archive().study("digits").state == "interrupted"
        again(doors)
        with pytest.raises(StudyHeldError):
            first.write(Turn(trials=[trial(1)]))
        with pytest.raises(StudyHeldError):
            first.renew(1.0)
        first.close("complete")
        summary = doors.archive().study("digits")
        assert (summary.state, summary.rev, summary.seconds) == ("running", 1, 0.0)
        assert [one.number for one in doors.archive().trials("digits")] == [0]

    def test_writing_and_renewing_prolong_the_lease(self, doors):
        store = doors.store()
        store.open(RECORD, ELSEWHERE, lease_s=0.4)
        for k in range(4):
            time.sleep(0.15)
            store.write(Turn(fenced=1)) if k % 2 else store.renew(0.5)
        with pytest.raises(StudyHeldError):
            again(doors)
        summary = doors.archive().study("digits")
        assert (summary.fenced, summary.rev, summary.seconds) == (2, 2, 1.0)

    @pytest.mark.parametrize("state", ["complete", "stopped", "interrupted", "failed"])
    def test_closing_frees_the_study(self, doors, state):
        begun(doors).close(state, "for a reason")
        summary = doors.archive().study("digits")
        assert (summary.state, summary.reason, summary.holder) == (state, "for a reason", "")
        assert doors.store().open(RECORD, ELSEWHERE, lease_s=LONG_S).existed

    def test_nothing_is_written_without_a_lease(self, doors):
        with pytest.raises(StudyHeldError):
            doors.store().write(Turn(fenced=1))
        store = begun(doors)
        store.close("stopped")
        with pytest.raises(StudyHeldError):
            store.write(Turn(trials=[trial(5)]))
        assert len(doors.archive().trials("digits")) == 1

    # Turns

    def test_a_snapshot_gives_back_what_was_written(self, doors):
        store = doors.store()
        store.open(RECORD, this_process(), lease_s=LONG_S)
        first, second = trial(0, (7, 3), baseline=True), trial(1, (7, 3), batch=2, history_seq=5)
        odd = {"a": True, "b": None, "c": 1e-300, "d": 2**60, "e": "é\0\udc80", "lr": 0.1 + 0.2}
        second = replace(second, params=odd)
        store.write(Turn(trials=[first, second], claims=[Claim(run=RunKey(0, 7), attempt=1)], seconds=1.5))
        good = {"best_epoch": 3, "last_epoch": 4, "seconds": 2.5, "worker": "h:1", "environment": ENVIRONMENT}
        store.write(
            Turn(
                finished=[done(RunKey(0, 7), 0.1 + 0.2, **good)],
                claims=[Claim(run=RunKey(0, 3), attempt=1)],
                seconds=0.5,
            )
        )
        store.write(
            Turn(
                finished=[done(RunKey(0, 3), None, State.FAILED, reason="exception", error="Traceback")],
                scores=[score(0, None, State.FAILED)],
            )
        )
        snapshot = again(doors)
        assert (snapshot.existed, snapshot.rev, snapshot.seconds) == (True, 3, 2.0)
        one, two = snapshot.trials
        assert two == second
        assert (one.number, one.params, one.state, one.baseline, one.tell_seq) == (
            0, first.params, State.FAILED, True, 1,
        )  # fmt: skip
        run, failed = one.runs
        assert (run.key, run.state, run.attempt, run.value) == (RunKey(0, 7), State.COMPLETE, 1, 0.1 + 0.2)
        assert {name: getattr(run, name) for name in good} == good
        assert 0 < run.started <= run.ended
        assert (failed.key, failed.reason, failed.error) == (RunKey(0, 3), "exception", "Traceback")
        assert doors.archive().trials("digits") == list(snapshot.trials)
        assert doors.archive().trials("digits", [1, 8]) == [two]

    def test_the_values_are_those_of_the_complete_trials(self, doors):
        store = begun(doors, trials=4)
        states = {0: State.COMPLETE, 1: State.PRUNED, 2: State.COMPLETE}
        ends = [done(RunKey(n, 0), 0.5 + n, state) for n, state in states.items()]
        store.write(Turn(finished=ends, scores=[score(n, 0.5 + n, state) for n, state in states.items()]))
        assert doors.archive().values("digits") == [(0, 0.5), (2, 2.5)]
        with pytest.raises(NotFoundError):
            doors.archive().values("digitt")

    def test_a_turn_with_a_bad_row_writes_nothing(self, doors):
        store = begun(doors, trials=2)
        before = doors.archive().trials("digits")
        for bad in [
            Turn(trials=[trial(2)], finished=[done(RunKey(0, 0)), done(RunKey(1, 0), math.inf)]),
            Turn(trials=[trial(2)], finished=[done(RunKey(0, 0)), done(RunKey(1, 0), math.nan)]),
            Turn(trials=[trial(2)], finished=[done(RunKey(0, 0), None)]),
            Turn(trials=[trial(2)], finished=[done(RunKey(0, 0), 1.0, State.DIVERGED)]),
            Turn(trials=[trial(2)], finished=[done(RunKey(0, 0), None, State.RUNNING)]),
            Turn(trials=[trial(2)], finished=[done(RunKey(0, 0), attempt=2)]),
            Turn(trials=[trial(2)], finished=[done(RunKey(9, 0))]),
            Turn(trials=[trial(2), trial(1)]),
            Turn(trials=[trial(2)], claims=[Claim(run=RunKey(0, 0), attempt=2)]),
            Turn(trials=[trial(2)], cancelled=[RunKey(0, 0)]),
            Turn(trials=[trial(2)], losses=[Lost(run=RunKey(0, 0), attempt=3, cause="oom")]),
            Turn(trials=[trial(2)], scores=[score(0, None)]),
            Turn(trials=[trial(2)], scores=[score(0, math.inf)]),
        ]:
            with pytest.raises(StoreError):
                store.write(bad)
            assert doors.archive().trials("digits") == before, bad
        store.write(Turn(finished=[done(RunKey(0, 0))], scores=[score(0)]))
        assert doors.archive().study("digits").rev == 2

    @pytest.mark.parametrize(
        ("turn", "words"),
        [
            (Turn(seconds=math.nan), "seconds of a turn is nan"),
            (Turn(finished=[done(RunKey(0, 0), math.nan)]), "value of run 0/0 is nan"),
            (Turn(finished=[done(RunKey(0, 0), -math.inf)]), "value of run 0/0 is -inf"),
            (Turn(finished=[done(RunKey(0, 0), seconds=math.inf)]), "seconds of run 0/0 is inf"),
            (Turn(finished=[done(RunKey(0, 0), last_epoch=2**31)]), "from 0 to 2147483647, not 2147483648"),
            (Turn(finished=[done(RunKey(0, 0), metrics={"n" * 201: 1.0})]), "200 characters, not 201"),
            (
                Turn(epochs=[EpochReport(run=RunKey(0, 0), attempt=1, epoch=2**63, metrics={})]),
                "not 9223372036854775808",
            ),
            (Turn(epochs=[EpochReport(run=RunKey(0, 0), attempt=1, epoch=-1, metrics={})]), "not -1"),
            (
                Turn(epochs=[EpochReport(run=RunKey(0, 0), attempt=1, epoch=10**5000, metrics={})]),
                "thousands of digits",
            ),
            (Turn(epochs=[EpochReport(run=RunKey(0, 0), attempt=1, epoch=0, metrics={"é" * 5000: 1.0})]), "not 5000"),
            (Turn(pauses=[PausedReport(run=RunKey(0, 0), attempt=1, epoch=0, seconds=math.nan)]), "seconds of run 0/0"),
            (Turn(losses=[Lost(run=RunKey(0, 0), attempt=1, cause="oom", seconds=math.nan)]), "seconds of run 0/0"),
            (Turn(scores=[replace(score(0), sd=math.nan)]), r"its sd \(trial 0\) is nan"),
            (Turn(trials=[trial(1, (2**31,))]), "not 2147483648"),
            (Turn(trials=[trial(1, batch=2**40)]), "not 1099511627776"),
        ],
    )
    def test_what_not_every_database_can_hold_is_refused_by_all_alike(self, doors, turn, words):
        store = begun(doors)
        before = doors.archive().trials("digits")
        with pytest.raises(StoreError, match=words):
            store.write(turn)
        assert doors.archive().trials("digits") == before
        store.write(Turn(finished=[done(RunKey(0, 0))], scores=[score(0)]))

    def test_odd_values_come_back_the_same_from_all(self, doors):
        store, key = begun(doors), RunKey(0, 0)
        odd = {"nan": math.nan, "inf": -math.inf, "huge": 10**40, "nul": "a\0b", "lone": "\udc80", "long": "x" * 10**6}
        odd |= {"tiny": 5e-324, "large": 1.7976931348623157e308, "minus": -0.0, "none": None, "é\0": True}
        numbers = {"tiny": 5e-324, "large": -1.7976931348623157e308, "third": 1 / 3, "n" * 200: 2.0, "nan": math.nan}
        names = {"a\0b": 1.0, "\udc80": 2.0, "\U0001f600" * 200: 3.0}
        store.write(Turn(trials=[replace(trial(1, (2**31 - 1,)), params=odd)]))
        store.write(Turn(epochs=[EpochReport(run=key, attempt=1, epoch=2**31 - 1, metrics=numbers | names)]))
        seen = doors.archive().trials("digits")[1]
        assert repr(dict(seen.params)) == repr(odd)
        curves = {curve.metric: list(curve.values) for curve in doors.archive().curves("digits", [0])}
        spelled = {"a\\x00b": [1.0], "\\udc80": [2.0], "\U0001f600" * 200: [3.0]}
        assert curves == {name: [value] for name, value in numbers.items() if name != "nan"} | spelled

    def test_a_turn_written_twice_counts_once(self, doors):
        store = begun(doors)
        turn = Turn(trials=[trial(1)], seconds=3.0, fenced=1)
        store.write(turn)
        store.write(turn)
        summary = doors.archive().study("digits")
        assert (summary.seconds, summary.fenced, summary.rev) == (3.0, 1, 2)

    def test_final_states_never_change(self, doors):
        store = begun(doors)
        store.write(Turn(finished=[done(RunKey(0, 0))], scores=[score(0)]))
        before = doors.archive().trials("digits")
        for late in [
            Turn(finished=[done(RunKey(0, 0), 9.0)]),
            Turn(pauses=[PausedReport(run=RunKey(0, 0), attempt=1, epoch=1)]),
            Turn(losses=[Lost(run=RunKey(0, 0), attempt=1, cause="oom")]),
            Turn(cancelled=[RunKey(0, 0)]),
            Turn(claims=[Claim(run=RunKey(0, 0), attempt=2)]),
            Turn(scores=[score(0, 9.0, seq=2)]),
        ]:
            with pytest.raises(StoreError):
                store.write(late)
        assert doors.archive().trials("digits") == before

    def test_further_runs_of_a_final_trial_come_after_those_of_its_search(self, doors):
        store = begun(doors, seeds=(3, 1))
        ends = [done(RunKey(0, 3)), done(RunKey(0, 1))]
        store.write(Turn(finished=ends, scores=[score(0)]))
        more = [Run(key=RunKey(0, 0), stage=Stage.CONFIRM), Run(key=RunKey(0, 3, 1), stage=Stage.EXTRA)]
        store.write(Turn(runs=more))
        store.write(Turn(claims=[Claim(run=run.key, attempt=1) for run in more]))
        store.write(Turn(finished=[done(RunKey(0, 0), 0.25)]))
        found = doors.archive().trials("digits")[0]
        assert [run.key for run in found.runs] == [RunKey(0, 3), RunKey(0, 1), RunKey(0, 0), RunKey(0, 3, 1)]
        assert [run.stage for run in found.runs[2:]] == [Stage.CONFIRM, Stage.EXTRA]
        assert (found.state, found.value) == (State.COMPLETE, 0.5)
        assert found.values(Stage.CONFIRM) == {0: 0.25}
        assert found.values() == {3: 0.5, 1: 0.5}
        assert again(doors, this_process()).running == [RunKey(0, 3, 1)]

    @pytest.mark.parametrize("key", [RunKey(0, 5), RunKey(1, 0), RunKey(7, 0)])
    def test_a_further_run_needs_a_final_trial_and_a_key_of_its_own(self, doors, key):
        store = begun(doors, trials=2, seeds=(5,))
        store.write(Turn(finished=[done(RunKey(0, 5))], scores=[score(0)]))
        with pytest.raises(StoreError):
            store.write(Turn(runs=[Run(key=key, stage=Stage.CONFIRM)]))
        assert [len(one.runs) for one in doors.archive().trials("digits")] == [1, 1]

    def test_runs_in_flight_are_found_at_a_takeover(self, doors):
        begun(doors, trials=3, seeds=(0, 1))
        running = [RunKey(n, s) for n in range(3) for s in (0, 1)]
        snapshot = again(doors)
        assert list(snapshot.running) == running
        assert {one.state for one in snapshot.trials} == {State.RUNNING}
        store = doors.store()
        store.open(RECORD, this_process(), lease_s=LONG_S)
        lost = [Lost(run=key, attempt=1, cause="coordinator") for key in running]
        store.write(Turn(losses=lost, claims=[Claim(run=running[0], attempt=2)]))
        snapshot = again(doors)
        assert list(snapshot.running) == running[:1]
        assert snapshot.trials[0].runs[0].attempt == 2
        assert snapshot.losses == {key: {"coordinator": 1} for key in running}

    def test_losses_are_counted_by_cause(self, doors):
        store, key = begun(doors), RunKey(0, 0)
        for attempt, cause in enumerate(["signal:9", "oom", "signal:9"], start=1):
            store.write(
                Turn(
                    losses=[Lost(run=key, attempt=attempt, cause=cause, seconds=1.0, worker="h:2")],
                    claims=[Claim(run=key, attempt=attempt + 1)],
                )
            )
        lost = [(one.run, one.attempt, one.cause, one.seconds, one.worker) for one in doors.archive().losses("digits")]
        assert lost == [(key, k + 1, cause, 1.0, "h:2") for k, cause in enumerate(["signal:9", "oom", "signal:9"])]
        assert again(doors).losses == {key: {"signal:9": 2, "oom": 1}}

    def test_a_run_can_pause_and_go_on_as_the_same_attempt(self, doors):
        store, key = begun(doors), RunKey(0, 0)
        points = [EpochReport(run=key, attempt=1, epoch=e, metrics={"loss": 1.0 / (e + 1)}) for e in range(4)]
        store.write(Turn(epochs=points[:2], pauses=[PausedReport(run=key, attempt=1, epoch=1)]))
        (seen,) = doors.archive().trials("digits")
        assert (seen.state, seen.runs[0].state) == (State.PAUSED, State.PAUSED)
        assert doors.archive().study("digits").counts == {State.PAUSED: 1}
        store = doors.store()
        snapshot = store.open(RECORD, this_process(), lease_s=LONG_S)
        assert snapshot.trials[0].state is State.PAUSED
        store.write(Turn(claims=[Claim(run=key, attempt=1)]))
        store.write(Turn(epochs=points))  # it came back without its checkpoint, and told its first epochs again
        assert doors.archive().trials("digits")[0].runs[0].attempt == 1
        (curve,) = doors.archive().curves("digits", [0])
        assert list(curve.epochs) == [0, 1, 2, 3]
        assert list(curve.values) == [1.0, 0.5, 1 / 3, 0.25]

    def test_a_paused_run_keeps_who_trained_it_and_its_seconds_add_up(self, doors):
        store, key = begun(doors, trials=2), RunKey(0, 0)
        how = {"worker": "h:1", "engine": "vmap, cpu, 64 lanes", "environment": ENVIRONMENT}
        pauses = [PausedReport(run=RunKey(number, 0), attempt=1, epoch=0, seconds=1.5, **how) for number in (0, 1)]
        store.write(Turn(pauses=pauses))
        (run,) = doors.archive().trials("digits")[0].runs
        assert (run.seconds, run.last_epoch) == (1.5, 0)
        assert {name: getattr(run, name) for name in how} == how
        store.write(Turn(claims=[Claim(run=key, attempt=1)]))
        alone = replace(done(key, 0.5, worker="h:2", engine="solo, cpu"), seconds=2.0, last_epoch=5)
        # The other one is pruned where it waits.
        pruned = done(RunKey(1, 0), 0.25, State.PRUNED, best_epoch=0, last_epoch=0, reason="not among the best", **how)
        store.write(Turn(finished=[alone, pruned], scores=[score(0), score(1, 0.25, State.PRUNED)]))
        one, two = (trial.runs[0] for trial in again(doors).trials)
        assert (one.seconds, one.worker, one.engine, one.environment) == (3.5, "h:2", "solo, cpu", None)
        assert (two.state, two.value, two.seconds, two.engine) == (State.PRUNED, 0.25, 1.5, how["engine"])
        assert two.environment == ENVIRONMENT
        assert doors.archive().study("digits").best == (0, 0.5, None)

    def test_a_snapshot_holds_the_curves_that_were_asked_for_as_they_were_told_first(self, doors):
        store, key = begun(doors, trials=2), RunKey(0, 0)
        told = [EpochReport(run=key, attempt=1, epoch=e, metrics={"loss": e + 0.5, "acc": 0.1}) for e in range(3)]
        bad = EpochReport(run=RunKey(1, 0), attempt=1, epoch=0, metrics={"loss": math.nan, "acc": 0.2})
        store.write(Turn(epochs=[*told, bad]))
        store.write(Turn(losses=[Lost(run=key, attempt=1, cause="coordinator")], claims=[Claim(run=key, attempt=2)]))
        later = [EpochReport(run=key, attempt=2, epoch=e, metrics={"loss": 9.0}) for e in range(1, 4)]
        store.write(Turn(epochs=later))
        assert again(doors).curves == {}
        asked = doors.store().open(RECORD, this_process(), lease_s=LONG_S, curves="loss").curves
        assert {run: dict(curve) for run, curve in asked.items()} == {key: {0: 0.5, 1: 1.5, 2: 2.5, 3: 9.0}}

    def test_a_snapshot_says_how_runs_were_trained(self, doors):
        store = begun(doors)
        grouped = Decision(kind="grouped", subject="64", reason="vmap", details={"device": "cpu", "lanes": 64})
        store.write(Turn(decisions=[grouped, Decision(kind="zoom", subject="lr", reason="r")]))
        assert again(doors).grouped == [grouped]

    def test_cancelled_runs_end(self, doors):
        store = doors.store()
        store.open(RECORD, this_process(), lease_s=LONG_S)
        store.write(Turn(trials=[trial(0)]))
        store.write(Turn(cancelled=[RunKey(0, 0), RunKey(0, 1)], scores=[score(0, None, State.CANCELLED)]))
        (one,) = again(doors).trials
        assert {run.state for run in one.runs} == {State.CANCELLED}
        assert one.state is State.CANCELLED

    # Curves

    def test_curves_are_of_the_attempt_that_counts(self, doors):
        store, key = begun(doors), RunKey(0, 0)
        store.write(Turn(epochs=[EpochReport(run=key, attempt=1, epoch=e, metrics={"loss": 9.0}) for e in range(5)]))
        assert len(doors.archive().curves("digits", [0])) == 1
        store.write(Turn(losses=[Lost(run=key, attempt=1, cause="oom")]))
        assert doors.archive().curves("digits", [0]) == []
        store.write(Turn(claims=[Claim(run=key, attempt=2)]))
        assert doors.archive().curves("digits", [0]) == []
        layers = {"fc": (0.5, math.inf), "out": (0.25, 2.0)}
        report = EpochReport(run=key, attempt=2, epoch=0, metrics={"loss": 1.0, "acc": math.nan}, layers=layers)
        store.write(Turn(epochs=[report, replace(report, epoch=1, metrics={"loss": 0.5, "acc": 0.9}, layers={})]))
        acc, loss = doors.archive().curves("digits", [0])
        assert (loss.run, loss.metric, list(loss.epochs), list(loss.values)) == (key, "loss", [0, 1], [1.0, 0.5])
        assert (acc.metric, list(acc.epochs), list(acc.values)) == ("acc", [1], [0.9])
        assert doors.archive().curves("digits", [0], ["acc"]) == [acc]
        assert doors.archive().curves("digits", []) == []
        ((epoch, norms),) = doors.archive().layers("digits", key)
        assert (epoch, norms["out"], norms["fc"][0]) == (0, (0.25, 2.0), 0.5)
        assert not math.isfinite(norms["fc"][1])
        assert doors.archive().layers("digits", RunKey(5, 5)) == []

    def test_the_curve_of_an_attempt_that_went_on_begins_with_the_one_before(self, doors):
        store, key = begun(doors), RunKey(0, 0)
        layers = {"fc": (0.5, 0.25)}
        first = [
            EpochReport(run=key, attempt=1, epoch=e, metrics={"loss": 1.0 + e, "acc": 0.5}, layers=layers)
            for e in range(4)
        ]
        store.write(Turn(epochs=first, pauses=[PausedReport(run=key, attempt=1, epoch=3)]))
        store.write(Turn(claims=[Claim(run=key, attempt=1)]))
        store.write(Turn(losses=[Lost(run=key, attempt=1, cause="coordinator")], claims=[Claim(run=key, attempt=2)]))
        went_on = [EpochReport(run=key, attempt=2, epoch=e, metrics={"loss": 9.0}, layers=layers) for e in (2, 3, 4)]
        store.write(Turn(epochs=went_on))
        acc, loss = doors.archive().curves("digits", [0])
        assert (list(loss.epochs), list(loss.values)) == ([0, 1, 2, 3, 4], [1.0, 2.0, 9.0, 9.0, 9.0])
        assert (list(acc.epochs), list(acc.values)) == ([0, 1], [0.5, 0.5])
        assert [epoch for epoch, _ in doors.archive().layers("digits", key)] == [0, 1, 2, 3, 4]

    def test_returned_numbers_are_curves_of_one_point(self, doors):
        store, key = begun(doors), RunKey(0, 0)
        store.write(Turn(epochs=[EpochReport(run=key, attempt=1, epoch=3, metrics={"loss": 1.0})]))
        store.write(Turn(finished=[done(key, last_epoch=3, metrics={"loss": 7.0, "acc": 0.9, "bad": math.inf})]))
        acc, loss = doors.archive().curves("digits", [0])
        assert (acc.metric, list(acc.epochs), list(acc.values)) == ("acc", [3], [0.9])
        assert (loss.metric, list(loss.values)) == ("loss", [1.0])

    def test_checkpoints_are_there_until_they_are_forgotten(self, doors):
        store = begun(doors, seeds=(0, 1))
        kept = {seed: Checkpoint(path=f"0/{seed}/best.pt", sha256="a" * 64, bytes=2**33 + seed) for seed in (0, 1)}
        store.write(Turn(finished=[done(RunKey(0, seed), checkpoint=kept[seed]) for seed in kept], scores=[score(0)]))
        assert doors.archive().checkpoints("digits") == {RunKey(0, seed): kept[seed] for seed in kept}
        store.write(Turn(forgotten=[RunKey(0, 1), RunKey(0, 7)]))
        assert doors.archive().checkpoints("digits") == {RunKey(0, 0): kept[0]}

    def test_sealed_metrics_are_shown_nowhere(self, doors):
        store, key = begun(doors), RunKey(0, 0)
        store.write(Turn(epochs=[EpochReport(run=key, attempt=1, epoch=0, metrics={"loss": 1.0, "test_acc": 0.12345})]))
        store.write(
            Turn(finished=[done(key, sealed={"test_acc": 0.12345}, metrics={"test_loss": 0.12345})], scores=[score(0)])
        )
        archive = doors.archive()
        assert [curve.metric for curve in archive.curves("digits", [0])] == ["loss"]
        assert archive.curves("digits", [0], ["test_acc", "test_loss"]) == []
        assert "12345" not in repr([archive.studies(), archive.trials("digits"), archive.decisions("digits")])

    # Reading

    def test_counts_best_and_order(self, doors):
        store = begun(doors, trials=5)
        store.write(
            Turn(
                finished=[done(RunKey(0, 0), 0.5), done(RunKey(1, 0), 0.25), done(RunKey(2, 0), None, State.DIVERGED)],
                scores=[score(0, 0.5), score(1, 0.25), score(2, None, State.DIVERGED)],
                losses=[Lost(run=RunKey(3, 0), attempt=1, cause="oom")],
            )
        )
        summary = doors.archive().study("digits")
        assert summary.best == (1, 0.25, None)
        assert summary.counts == {State.COMPLETE: 2, State.DIVERGED: 1, State.QUEUED: 1, State.RUNNING: 1}
        other = replace(RECORD, name="second", spec={"direction": "maximize"})
        store = doors.store()
        store.open(other, this_process(), lease_s=LONG_S)
        store.write(Turn(trials=[trial(0, (0,)), trial(1, (0,)), trial(2, (0,))]))
        ends = [0.5, 0.75, 0.75]
        finished = [done(RunKey(n, 0), value, attempt=0) for n, value in enumerate(ends)]
        store.write(Turn(finished=finished, scores=[score(n, value) for n, value in enumerate(ends)]))
        latest, first = doors.archive().studies()
        assert (latest.name, first.name) == ("second", "digits")
        assert latest.best == (1, 0.75, None)
        assert first == summary

    def test_nothing_runs_in_a_study_that_nobody_holds(self, doors):
        begun(doors).close("interrupted", "by the user")
        (seen,) = doors.archive().trials("digits")
        assert (seen.state, seen.runs[0].state) == (State.QUEUED, State.QUEUED)
        assert doors.archive().study("digits").counts == {State.QUEUED: 1}

    def test_an_unknown_study_names_the_near_ones(self, doors):
        again(doors)
        archive = doors.archive()
        for read in [
            lambda: archive.study("digit"),
            lambda: archive.trials("digit"),
            lambda: archive.curves("digit", [0]),
            lambda: archive.changes("digit", {}),
            lambda: Mirror(archive, "digit").refresh(),
            lambda: archive.layers("digit", RunKey(0, 0)),
            lambda: archive.decisions("digit"),
            lambda: doors.store().delete("digit"),
            lambda: doors.store().send("digit", Command(verb="stop")),
        ]:
            with pytest.raises(NotFoundError, match="digits") as caught:
                read()
            assert "hpsearch list" in caught.value.hint

    def test_decisions_keep_their_order(self, doors):
        store = begun(doors)
        made = [
            Decision(kind="zoom", subject=name, reason="é", details={"old": [0, 1]}, batch=k)
            for k, name in enumerate("ba")
        ]
        store.write(Turn(decisions=made[:1]))
        store.write(Turn(decisions=made[1:]))
        assert doors.archive().decisions("digits") == made

    def test_hostile_strings_come_back_or_are_spelled_out(self, doors):
        store = doors.store()
        hostile = '\'; DROP TABLE run; -- "%s" :x \u202e <script> \U0001f600 \r\n'
        name = "loss'\";--%(x)s:y"
        store.open(
            replace(RECORD, text=hostile, spec={"direction": "minimize", "x": hostile}), this_process(), lease_s=9
        )
        key = RunKey(0, 0)
        store.write(
            Turn(trials=[replace(trial(0, (0,)), params={hostile: hostile})], claims=[Claim(run=key, attempt=1)])
        )
        store.write(Turn(epochs=[EpochReport(run=key, attempt=1, epoch=0, metrics={name: 1.0})]))
        broken = done(key, None, State.FAILED, reason="a\0b", error=hostile + "\udc80", worker="w" * 100_000)
        store.write(Turn(finished=[broken], scores=[score(0, None, State.FAILED)]))
        (one,) = doors.archive().trials("digits")
        assert one.params == {hostile: hostile}
        assert (one.runs[0].reason, one.runs[0].error) == ("a\\x00b", hostile + "\\udc80")
        assert one.runs[0].worker == "w" * 100_000
        assert [curve.metric for curve in doors.archive().curves("digits", [0])] == [name]
        summary = doors.archive().study("digits")
        assert (summary.text, summary.spec["x"]) == (hostile, hostile)

    # Reading again and again

    def test_a_revision_changes_with_all_that_a_reader_sees(self, doors):
        archive, seen = doors.archive, []

        def look():
            (revision,) = archive().revisions().values()
            assert revision == archive().changes("digits", {}).revision == archive().revisions()["digits"]
            assert str(revision).isascii()
            assert revision.state == archive().study("digits").state
            seen.append(str(revision))

        store = doors.store()
        store.open(RECORD, ELSEWHERE, lease_s=LONG_S)
        look()
        store.write(Turn(trials=[trial(0, (0,))]))
        look()
        doors.store().send("digits", Command(verb="note", payload={"address": "digits", "text": "odd"}))
        look()
        doors.store().send("digits", Command(verb="tag", payload={"address": "digits", "text": "paper"}))
        look()
        store.renew(1.0)
        assert str(archive().revisions()["digits"]) == seen[-1]
        store.open(RECORD, ELSEWHERE, lease_s=0.05)
        time.sleep(0.1)
        look()
        assert seen[-1].endswith("interrupted")
        store = doors.store()
        store.open(RECORD, this_process(), lease_s=LONG_S)
        look()
        store.close("stopped")
        look()
        doors.store().delete("digits")
        assert archive().revisions() == {}
        doors.store().open(RECORD, ELSEWHERE, lease_s=LONG_S)
        look()
        assert len(set(seen)) == len(seen) == 8

    def test_revisions_are_of_all_studies(self, doors):
        begun(doors).close("complete")
        doors.store().open(replace(RECORD, name="second"), this_process(), lease_s=LONG_S)
        states = {name: revision.state for name, revision in doors.archive().revisions().items()}
        assert states == {"digits": "complete", "second": "running"}

    def test_changes_are_what_a_reader_lacks(self, doors):
        store = begun(doors, trials=5)
        store.write(Turn(finished=[done(RunKey(n, 0)) for n in (0, 1)], scores=[score(0), score(1)]))
        store.write(Turn(trials=[trial(5, (0,))], decisions=[Decision(kind="a", subject="x", reason="r")]))
        read = doors.archive().changes
        all_ = read("digits", {})
        assert (list(all_.trials), all_.left) == (doors.archive().trials("digits"), 0)
        assert all_.outlines == {one.number: outline_of(one) for one in all_.trials}
        assert all_.summary == doors.archive().study("digits")
        assert [one.kind for one in all_.decisions] == ["a"]
        known = dict(all_.outlines)
        again = read("digits", known, decisions=1)
        # Those with running runs may have changed: nothing else is read again.
        assert ([one.number for one in again.trials], again.decisions) == ([2, 3, 4], [])
        part = read("digits", {}, most=4)
        assert ([one.number for one in part.trials], part.left) == ([0, 1, 2, 3], 2)
        rest = read("digits", part.outlines, most=4)
        assert ([one.number for one in rest.trials], rest.left) == ([2, 3, 4, 5], 0)
        store.write(Turn(cancelled=[RunKey(5, 0)], scores=[score(5, None, State.CANCELLED, seq=3)]))
        assert [one.number for one in read("digits", known).trials] == [2, 3, 4, 5]

    def test_a_mirror_is_the_record_after_every_turn(self, doors):
        store, mirror, key = begun(doors, trials=3, seeds=(0, 1)), Mirror(doors.archive(), "digits"), RunKey(0, 0)
        point = EpochReport(run=key, attempt=1, epoch=0, metrics={"loss": 1.0})
        ends = [done(RunKey(n, s)) for n in (0, 1) for s in (0, 1) if (n, s) != (0, 0)]
        further = RunKey(1, 7)
        turns = [
            Turn(epochs=[point], pauses=[PausedReport(run=key, attempt=1, epoch=0, seconds=1.0)]),
            Turn(finished=ends, scores=[score(1)], decisions=[Decision(kind="zoom", subject="lr", reason="r")]),
            Turn(claims=[Claim(run=key, attempt=1)]),
            Turn(pauses=[PausedReport(run=key, attempt=1, epoch=4, seconds=1.0)]),
            Turn(losses=[Lost(run=key, attempt=1, cause="oom")]),
            Turn(claims=[Claim(run=key, attempt=2)], trials=[trial(3)]),
            Turn(finished=[done(key, attempt=2)], scores=[score(0)]),
            Turn(runs=[Run(key=further, stage=Stage.CONFIRM)]),
            Turn(claims=[Claim(run=further, attempt=1)]),
            Turn(finished=[done(further)]),
            Turn(cancelled=[RunKey(3, 0), RunKey(3, 1)], scores=[score(3, None, State.CANCELLED, seq=3)]),
        ]
        for turn in turns:
            before = mirror.refresh()
            assert before is mirror.refresh()
            store.write(turn)
            after = mirror.refresh()
            assert before.revision != after.revision
            self._assert_same(doors, after)
        # As above, but two turns between two looks.
        for turn in [Turn(losses=[Lost(run=RunKey(2, 0), attempt=1, cause="oom")]), Turn()]:
            store.write(turn)
        self._assert_same(doors, mirror.refresh())
        store.close("interrupted", "by the user")
        self._assert_same(doors, mirror.refresh())
        assert mirror.refresh().trials[2].state is State.QUEUED

    def _assert_same(self, doors, view):
        archive = doors.archive()
        assert list(view.trials) == archive.trials("digits")
        assert list(view.decisions) == archive.decisions("digits")
        assert view.summary == archive.study("digits")

    def test_a_mirror_sees_that_a_study_was_replaced(self, doors):
        store, mirror = begun(doors, trials=2), Mirror(doors.archive(), "digits")
        store.write(Turn(decisions=[Decision(kind="a", subject="x", reason="r")]))
        assert len(mirror.refresh().trials) == 2
        store.close("stopped")
        doors.store().delete("digits")
        with pytest.raises(NotFoundError):
            mirror.refresh()
        other = doors.store()
        other.open(RECORD, this_process(), lease_s=LONG_S)
        other.write(Turn(trials=[replace(trial(0, (0,)), params={"lr": 7.0})]))
        self._assert_same(doors, mirror.refresh())

    # Commands and deletion

    def test_a_command_is_given_once_to_a_live_coordinator(self, doors):
        store = begun(doors)
        door = doors.store()
        assert door.send("digits", Command(verb="stop", payload={"now": True}))
        assert door.send("digits", Command(verb="stop"))
        assert store.renew(1.0) == [Command(verb="stop", payload={"now": True}), Command(verb="stop")]
        assert store.renew(1.0) == []
        assert door.send("digits", Command(verb="stop"))
        store.close("stopped")
        assert not door.send("digits", Command(verb="stop"))
        store = doors.store()
        store.open(RECORD, this_process(), lease_s=LONG_S)
        assert store.renew(0.0) == []

    def test_a_command_to_a_dead_coordinator_is_not_left(self, doors):
        store = doors.store()
        store.open(RECORD, a_dead_process(), lease_s=LONG_S)
        assert not doors.store().send("digits", Command(verb="stop"))
        assert store.renew(0.0) == []

    def test_notes_and_tags_need_no_coordinator(self, doors):
        begun(doors).close("complete")
        door = doors.store()
        assert door.send("digits", Command(verb="note", payload={"address": "digits/0", "text": "odd"}))
        for text in ("paper", "first"):
            assert door.send("digits", Command(verb="tag", payload={"address": "digits", "text": text}))
        summary = doors.archive().study("digits")
        assert list(summary.notes) == [("digits/0", "odd")]
        assert list(summary.tags) == ["first", "paper"]

    def test_delete_removes_all_and_fences_the_rest(self, doors):
        store = begun(doors)
        store.write(
            Turn(
                epochs=[EpochReport(run=RunKey(0, 0), attempt=1, epoch=0, metrics={"loss": 1.0})],
                finished=[done(RunKey(0, 0), environment=ENVIRONMENT)],
                scores=[score(0)],
            )
        )
        store.close("complete")
        doors.store().delete("digits")
        assert doors.archive().studies() == []
        snapshot = again(doors)
        assert (snapshot.existed, snapshot.trials) == (False, [])
        with pytest.raises(StudyHeldError):
            store.write(Turn(trials=[trial(3)]))

    # Size

    def test_ten_thousand_trials_open_within_a_second(self, doors):
        store = doors.store()
        store.open(RECORD, this_process(), lease_s=LONG_S)
        store.write(Turn(trials=[trial(number, (0,)) for number in range(10_000)]))
        start = time.process_time()
        snapshot = again(doors)
        cost = time.process_time() - start
        assert [one.number for one in snapshot.trials] == list(range(10_000))
        assert cost < 2.0  # measured: 0.2; a busy machine must not fail it
