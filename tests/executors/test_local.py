import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpsearch.errors import ExecutorError
from hpsearch.executors import local
from hpsearch.executors.local import LocalExecutor
from hpsearch.settings import group_log
from hpsearch.trial import EpochReport, Finished, Grouped, Lost, RunKey, State
from tests.conformance.executors import (
    ExecutorConformance,
    assignment,
    drive,
    ends,
    listen,
    outcome,
    task,
    workload,
)


class TestLocal(ExecutorConformance):
    def make(self, lanes):
        return LocalExecutor(1, device="cpu", lanes=lanes)


@pytest.fixture
def executor():
    executor = LocalExecutor(2, device="cpu")
    yield executor
    executor.close()


def _gone(pids, within_s=5.0):
    """Wait until none of these processes is alive; the ones that are."""
    end = time.monotonic() + within_s
    alive = set(pids)
    while alive and time.monotonic() < end:
        alive = {p for p in alive if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE}
        time.sleep(0.02)
    return alive


def _written(path: Path, within_s=30.0) -> str:
    end = time.monotonic() + within_s
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.02)
    return path.read_text()


def test_two_workers_give_what_one_gives(executor, tmp_path):
    work, todo = workload("quadratic", tmp_path), [assignment(t, seed=t % 3) for t in range(12)]
    single = LocalExecutor(1, device="cpu")
    try:
        alone = {r.run: r.value for r in drive(single, todo, work) if isinstance(r, Finished)}
    finally:
        single.close()
    both = [r for r in drive(executor, todo, work) if isinstance(r, Finished)]
    assert {r.run: r.value for r in both} == alone
    assert len({r.worker for r in both}) == 2


def test_no_worker_is_started_without_work_for_it(executor, tmp_path):
    me = psutil.Process()
    before = {p.pid for p in me.children()}
    assert executor.capacity() == 2
    workers = [outcome(executor, assignment(t), workload("nothing", tmp_path)).worker for t in range(5)]
    assert len(set(workers)) == 1
    assert len({p.pid for p in me.children()} - before) == 1


def test_a_worker_that_comes_up_ahead_gets_the_first_work(executor, tmp_path):
    me, work = psutil.Process(), workload("nothing", tmp_path)
    before = {p.pid for p in me.children()}
    executor.warm(work)
    executor.warm(work)
    ahead = {p.pid for p in me.children()} - before
    assert len(ahead) == 1
    assert (executor.capacity(), executor.idle()) == (2, 2)
    drive(executor, [assignment(0)], work)
    assert {p.pid for p in me.children()} - before == ahead
    executor.close()
    executor.warm(work)
    assert not {p.pid for p in me.children()} - before


def test_isolation_is_a_process_per_run(executor, tmp_path):
    work = workload("nothing", tmp_path, isolate=True)
    assert len({outcome(executor, assignment(t), work).worker for t in range(2)}) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_killed_from_outside_is_no_fault_of_the_run(executor, tmp_path, number):
    pids = tmp_path / "pids"
    executor.start([assignment(0, pids=str(pids))], workload("family", tmp_path))
    worker, _, *family = map(int, _written(pids).split())
    os.kill(worker, number)
    (lost,) = _until_said(executor)
    assert (type(lost), lost.cause, lost.attempt) == (Lost, f"signal:{int(number)}", 1)
    assert lost.worker.endswith(f":{worker}")
    assert lost.seconds > 0
    assert not _gone(family)


def test_the_guard_killed_from_outside_is_a_lost_worker(executor, tmp_path):
    pids = tmp_path / "pids"
    executor.start([assignment(0, pids=str(pids))], workload("family", tmp_path))
    worker, guard, *family = map(int, _written(pids).split())
    os.kill(guard, signal.SIGKILL)
    (lost,) = _until_said(executor)
    assert (type(lost), lost.cause) == (Lost, "signal:9")
    assert not _gone([worker])
    for pid in family:  # nobody is left who could: what left the worker's group stays
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    assert outcome(executor, assignment(1), workload("nothing", tmp_path)).state is State.COMPLETE


def test_an_idle_worker_killed_costs_nothing(executor, tmp_path):
    work = workload("nothing", tmp_path)
    worker = int(outcome(executor, assignment(0), work).worker.split(":")[1])
    os.kill(worker, signal.SIGKILL)
    assert outcome(executor, assignment(1), work).state is State.COMPLETE


def test_nothing_outlives_a_killed_coordinator(tmp_path):
    pids = tmp_path / "pids"
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from hpsearch.executors.local import LocalExecutor
from tests.conformance.executors import assignment, workload
executor = LocalExecutor(1, device="cpu")
executor.start([assignment(0, pids={str(pids)!r})], workload("family", Path({str(tmp_path)!r})))
while True: executor.poll(1.0)
"""
    # A script without a main guard: a worker that imported it would start workers without end.
    script = tmp_path / "script.py"
    script.write_text(program)
    coordinator = subprocess.Popen([sys.executable, script])
    everyone = [int(pid) for pid in _written(pids).split()]
    assert len(everyone) == 5
    assert all(psutil.pid_exists(pid) for pid in everyone)
    coordinator.kill()
    coordinator.wait()
    assert not _gone(everyone)


def test_close_ends_a_running_family(tmp_path):
    executor, pids = LocalExecutor(1, device="cpu"), tmp_path / "pids"
    executor.start([assignment(0, pids=str(pids))], workload("family", tmp_path))
    everyone = [int(pid) for pid in _written(pids).split()]
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 10
    assert not _gone(everyone)


def test_a_signal_does_not_break_polling(executor, tmp_path):
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        assert outcome(executor, assignment(0), workload("quadratic", tmp_path)).state is State.COMPLETE
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_workers_that_cannot_start_end_the_search_with_what_they_printed(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    executor = LocalExecutor(1, device="cpu")
    try:
        with pytest.raises(ExecutorError, match=r"2 workers in a row could not start(.|\n)*libcudart.so.99"):
            outcome(executor, assignment(0), workload("nothing", tmp_path))
    finally:
        executor.close()


def test_gpus_are_counted_as_cuda_counts_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert LocalExecutor().capacity() == 2
    assert LocalExecutor(3).capacity() == 3
    assert LocalExecutor(device="cpu").capacity() == len(os.sched_getaffinity(0))
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert local.gpus() == []


def test_workers_below_one_are_refused():
    with pytest.raises(ExecutorError, match="at least 1, not 0"):
        LocalExecutor(0)


def _until_said(executor, limit_s=30.0):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if said := executor.poll(1.0):
            return said
    raise AssertionError("nothing was said")


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1])
def test_a_run_can_be_stopped_at_any_moment_of_its_workers_start(executor, tmp_path, delay_s):
    for trial in range(2):
        executor.start([assignment(trial)], workload("naps", tmp_path))
        time.sleep(delay_s)
        executor.stop([(trial, 0, 0)], now=True)
        (lost,) = _until_said(executor)
        assert (type(lost), lost.cause, lost.run.trial) == (Lost, "stopped", trial)


# Several runs in hand


@pytest.fixture
def wide():
    executor = LocalExecutor(1, device="cpu", lanes=4)
    yield executor
    executor.close()


@pytest.fixture
def two():
    executor = LocalExecutor(2, device="cpu", lanes=16)
    yield executor
    executor.close()


def _begun(executor, runs, limit_s=60.0):
    """Wait until each of these runs has reported an epoch; all that was said."""
    said, end = [], time.monotonic() + limit_s
    while {report.run for report in said if isinstance(report, EpochReport)} < set(runs):
        assert time.monotonic() < end, f"after {limit_s} s: {said}"
        said += executor.poll(0.5)
    return said


def test_runs_are_spread_evenly_and_a_group_has_a_worker_of_its_own(two, tmp_path):
    work = task("Line", tmp_path, 16)
    two.start([assignment(t) for t in range(20)], work)
    assert (two.capacity(), two.idle()) == (12, 0)
    workers = [last.worker for last in ends(listen(two, 20))]
    assert sorted(workers.count(worker) for worker in set(workers)) == [10, 10]
    two.start([*(assignment(t, group=3) for t in range(2)), *(assignment(t) for t in range(2, 8))], work)
    assert (two.capacity(), two.idle()) == (10, 0)
    by = {last.run.trial: last.worker for last in ends(listen(two, 8))}
    assert by[0] == by[1]
    assert by[0] not in {by[t] for t in range(2, 8)}
    with pytest.raises(ExecutorError, match="groups of 17 runs"):
        two.start([assignment(t, group=4) for t in range(17)], work)


def test_a_lane_that_is_free_is_filled_while_the_others_go_on(wide, tmp_path):
    work = task("Long", tmp_path, 4)
    wide.start([*(assignment(t) for t in range(3)), assignment(3, lr=1e30)], work)
    assert [(last.run.trial, last.state) for last in ends(listen(wide))] == [(3, State.DIVERGED)]
    assert wide.capacity() == 1
    wide.start([assignment(4)], work)
    everyone = [RunKey(t, 0) for t in range(5) if t != 3]
    _begun(wide, everyone[3:])
    # Those that were there go on beside the new one, from where they were.
    said = _begun(wide, everyone)
    assert not ends(said)
    epochs = {run: min(r.epoch for r in said if isinstance(r, EpochReport) and r.run == run) for run in everyone}
    assert all(epochs[run] > epochs[everyone[3]] for run in everyone[:3])
    wide.stop([RunKey(t, 0) for t in range(5)])
    assert {last.state for last in ends(listen(wide, 4))} == {State.CANCELLED}


def test_the_epochs_of_a_group_come_together(wide, tmp_path):
    runs = [RunKey(t, 0) for t in range(4)]
    wide.start([assignment(t) for t in range(4)], task("Line", tmp_path, 4))
    epochs = [(r.epoch, r.run) for r in listen(wide, 4) if isinstance(r, EpochReport)]
    assert epochs == [(epoch, run) for epoch in range(3) for run in runs]


def test_a_groups_time_is_shared_by_its_runs(wide, tmp_path):
    """The four of them are silent for three seconds, and then train for two."""
    drive(wide, [assignment(t) for t in range(4)], task("Line", tmp_path, 4))  # a warm worker: its start does not count
    said = drive(wide, [assignment(t) for t in range(4)], task("Slow", tmp_path, 4, fixed_lanes=True, timeout_s=1.6))
    assert [(last.state, last.reason) for last in ends(said)] == [(State.COMPLETE, "")] * 4
    assert all(last.seconds < 1.6 for last in ends(said))


def test_a_group_that_hangs_is_ended_when_the_time_of_all_its_runs_is_over(wide, tmp_path):
    drive(wide, [assignment(t) for t in range(4)], task("Line", tmp_path, 4))  # a warm worker: its start does not count
    runs = [assignment(t, sick="hangs" if t == 2 else "no") for t in range(4)]
    found = ends(drive(wide, runs, task("Sick", tmp_path, 4, timeout_s=0.5)))
    assert {(type(last), last.cause) for last in found} == {(Lost, "timeout")}
    assert all(2.0 <= last.seconds < 7.0 for last in found)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_killed_with_four_runs_loses_all_of_them_at_once(wide, tmp_path, number):
    runs = [RunKey(t, 0) for t in range(4)]
    me = psutil.Process()
    before = {p.pid for p in me.children(recursive=True)}
    wide.start([assignment(t, attempt=2) for t in range(4)], task("Long", tmp_path, 4))
    _begun(wide, runs)
    guard, worker = [p.pid for p in me.children(recursive=True) if p.pid not in before]
    os.kill(worker, number)
    said = [report for report in _until_ended(wide) if not isinstance(report, EpochReport | Grouped)]
    assert {(type(r), r.cause, r.attempt) for r in said} == {(Lost, f"signal:{int(number)}", 2)}
    assert {r.run: set(r.company) for r in said} == {run: set(runs) - {run} for run in runs}
    assert all(r.seconds > 0 and r.worker.endswith(f":{worker}") for r in said)
    assert not _gone([guard, worker])
    assert (wide.capacity(), wide.idle()) == (4, 1)
    again = drive(wide, [assignment(t, attempt=3) for t in range(4)], task("Line", tmp_path, 4))
    assert {last.state for last in ends(again)} == {State.COMPLETE}


def _until_ended(executor, limit_s=60.0):
    """The poll that says of the first end."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        said = executor.poll(1.0)
        if ends(said):
            return said
    raise AssertionError("nothing ended")


def test_stopping_one_now_gives_the_others_back(wide, tmp_path):
    wide.start([assignment(t) for t in range(3)], task("Long", tmp_path, 4))
    wide.stop([RunKey(1, 0)], now=True)
    said = ends(_until_ended(wide))
    assert [(type(r), r.cause) for r in said] == [(Lost, "stopped")] * 3
    assert {r.run.trial for r in said} == {0, 1, 2}


def test_a_group_prints_into_one_log_that_the_runs_logs_name(wide, tmp_path):
    drive(wide, [assignment(t, sick="no") for t in range(3)], task("Sick", tmp_path, 4))
    (shared,) = {
        group_log(line)
        for t in range(3)
        for line in (tmp_path / f"{t}/0/log.txt").read_text().splitlines(keepends=True)
    }
    text = (tmp_path / shared).read_text()
    assert text.splitlines()[0].endswith(": 0/0, 1/0, 2/0 ---")
    assert text.count("a model, no\n") == 3
    # Alone it has its own log again.
    drive(wide, [assignment(0, attempt=2, sick="no")], task("Sick", tmp_path, 4))
    pointer, header, printed = (tmp_path / "0/0/log.txt").read_text().splitlines()
    assert group_log(pointer) == shared
    assert header.startswith("--- attempt 2, ")
    assert printed == "a model, no"


def test_much_is_given_to_a_worker_that_does_not_read(tmp_path):
    executor = LocalExecutor(1, device="cpu", lanes=300)
    try:
        work = workload("nothing", tmp_path, lanes=300)
        filler = "x" * 4000  # more than a megabyte in all, more than a socket holds
        executor.start([assignment(0)], workload("naps", tmp_path, lanes=300))
        began = time.monotonic()
        executor.start([assignment(t, filler=filler) for t in range(1, 300)], work)
        assert time.monotonic() - began < 10
        executor.stop([RunKey(0, 0)], now=True)
        assert {r.cause for r in listen(executor, 300)} == {"stopped"}
        said = drive(executor, [assignment(t, filler=filler, attempt=2) for t in range(300)], work, limit_s=120)
        assert {last.state for last in ends(said)} == {State.COMPLETE}
    finally:
        executor.close()
