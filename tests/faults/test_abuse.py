"""Training code that misbehaves costs its own run, and the next run on the same executor is clean."""

import math
import time
from pathlib import Path

import psutil
import pytest

from hpsearch.executors._guard import LOG_LIMIT, MARKER
from hpsearch.executors.local import LocalExecutor
from hpsearch.trial import Lost, State
from tests.conformance.executors import assignment, drive, ends, listen, outcome, workload

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def executor():
    executor = LocalExecutor(1, device="cpu")
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def clean(executor, tmp_path_factory):
    """The value of a clean run before anything has happened."""
    return _fine(executor, tmp_path_factory.mktemp("clean"))


def _fine(executor, files):
    last = outcome(executor, assignment(99, how="fine"), workload("train", files, source="abuse.py"))
    assert last.state is State.COMPLETE, last.error
    assert (files / "99/0/log.txt").read_text().splitlines()[-1] == "all is fine"
    return last.value


def _abuse(executor, files, how, timeout_s=None, **params):
    work = workload("train", files, source="abuse.py", timeout_s=timeout_s)
    return drive(executor, [assignment(0, how=how, **params)], work)


def _dead(pid):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("how", "reason", "error"),
    [
        ("raises", "exception", "no luck with"),
        ("interrupt", "exception", "KeyboardInterrupt"),
        ("sys_exit", "exit:3", "SystemExit"),
        ("os_exit", "exit:4", "last words"),
        pytest.param("os_exit_0", "exit:0", "exit code 0", marks=pytest.mark.full),
        ("segfault", "signal:11", "Segmentation fault"),
        # Like a segmentation fault; each costs the start of a worker.
        pytest.param("abort", "signal:6", "Abort", marks=pytest.mark.full),
        pytest.param("bus", "signal:7", "Bus error", marks=pytest.mark.full),
        pytest.param("alarm", "signal:14", "Alarm", marks=pytest.mark.full),
        ("closes_everything", None, ""),
    ],
)
def test_a_run_that_ends_badly_fails_with_its_reason(executor, clean, tmp_path, how, reason, error):
    last = _abuse(executor, tmp_path, how)[-1]
    assert last.state is State.FAILED
    assert last.value is None
    assert reason in (None, last.reason)
    assert last.reason
    assert error in last.error
    assert _fine(executor, tmp_path) == clean


def test_what_was_reported_before_a_crash_arrives(executor, clean, tmp_path):
    epoch, last = _abuse(executor, tmp_path, "segfault")
    assert (epoch.epoch, epoch.metrics) == (0, {"loss": 2.0})
    assert last.reason == "signal:11"


def test_a_killed_worker_is_lost(executor, clean, tmp_path):
    last = _abuse(executor, tmp_path, "kill_itself")[-1]
    assert (type(last), last.cause) == (Lost, "signal:9")
    assert _fine(executor, tmp_path) == clean


@pytest.mark.parametrize(
    "how", ["loops", pytest.param("sleeps", marks=pytest.mark.full), "holds_the_lock", "ignores_sigterm", "stopped"]
)
def test_a_run_that_hangs_ends_at_its_timeout(executor, clean, tmp_path, how):
    _fine(executor, tmp_path)  # a warm worker: its start does not count
    began, pids = time.monotonic(), tmp_path / "pids"
    last = _abuse(executor, tmp_path, how, timeout_s=TIMEOUT_S, pids=str(pids))[-1]
    assert (last.state, last.reason) == (State.FAILED, "timeout")
    assert last.error.startswith("ran longer than 1 s")
    assert TIMEOUT_S <= time.monotonic() - began < TIMEOUT_S + 10
    assert TIMEOUT_S <= last.seconds < TIMEOUT_S + 10
    if how == "loops":
        assert "round and round" in last.error
    if how in ("ignores_sigterm", "stopped"):
        assert _dead(int(pids.read_text()))
    assert _fine(executor, tmp_path) == clean


def test_a_stopped_run_without_a_timeout_is_waited_for(executor, clean, tmp_path):
    pids = tmp_path / "pids"
    executor.start([assignment(0, how="stopped", pids=str(pids))], workload("train", tmp_path, source="abuse.py"))
    end = time.monotonic() + 30
    while not (pids.exists() and pids.read_text()) or psutil.Process(int(pids.read_text())).status() != "stopped":
        assert time.monotonic() < end
        assert executor.poll(0.02) == []
    assert executor.poll(1.0) == []
    psutil.Process(int(pids.read_text())).resume()
    (last,) = listen(executor)
    assert (last.state, last.value, last.attempt) == (State.COMPLETE, 0.5, 1)
    assert _fine(executor, tmp_path) == clean


@pytest.mark.parametrize("what", ["none", "str", "bytes", "true", "list", "tensor", "complex", "no metric", "nested"])
def test_a_result_that_is_no_number_fails(executor, tmp_path, what):
    last = _abuse(executor, tmp_path, "result", what=what)[-1]
    assert (last.state, last.reason, last.value) == (State.FAILED, "invalid_result", None)
    assert "return loss as a number" in last.error


@pytest.mark.parametrize("what", ["nan", "inf", "-inf", "huge"])
def test_a_result_that_is_not_finite_has_diverged(executor, tmp_path, what):
    last = _abuse(executor, tmp_path, "result", what=what)[-1]
    assert (last.state, last.value) == (State.DIVERGED, None)


@pytest.mark.parametrize(("what", "value"), [("numpy", 0.5), ("int", 3.0), ("dict", 0.25)])
def test_a_result_that_is_a_number_is_taken(executor, tmp_path, what, value):
    last = _abuse(executor, tmp_path, "result", what=what)[-1]
    assert (last.state, last.value) == (State.COMPLETE, value)


def test_a_flood_of_output_is_capped_and_stalls_nothing(executor, clean, tmp_path):
    began = time.monotonic()
    assert _abuse(executor, tmp_path, "floods")[-1].state is State.COMPLETE
    assert time.monotonic() - began < 60
    log = (tmp_path / "0/0/log.txt").read_text()
    assert LOG_LIMIT <= len(log) < LOG_LIMIT + 500
    assert log.startswith("--- attempt 1, ")
    assert log.endswith(MARKER)
    assert _fine(executor, tmp_path) == clean


def test_a_log_holds_every_attempt_and_is_always_text(executor, tmp_path):
    work = workload("train", tmp_path, source="abuse.py")
    for attempt in (1, 2):
        outcome(executor, assignment(3, seed=5, attempt=attempt, how="strange_bytes"), work)
    log = (tmp_path / "3/5/log.txt").read_bytes().decode()
    assert log.count("--- attempt") == 2
    assert log.count("\\xff\0\x1b[31m\r café \\xc3\\udcff\n") == 2


def test_children_left_behind_are_ended(executor, clean, tmp_path):
    pids = tmp_path / "pids"
    last = _abuse(executor, tmp_path, "leaves_children", pids=str(pids))[-1]
    assert (last.state, last.value) == (State.COMPLETE, 1.0)
    assert all(_dead(int(pid)) for pid in pids.read_text().split())
    assert _fine(executor, tmp_path) == clean


@pytest.mark.parametrize("how", ["leaves_a_thread", "closes_its_output", "changes_everything"])
def test_what_a_run_does_to_its_process_does_not_reach_the_next(executor, clean, tmp_path, how):
    said = _abuse(executor, tmp_path, how)
    assert [r.value for r in said if r.run == (0, 0, 0) and not hasattr(r, "epoch")] == [1.0]
    assert _fine(executor, tmp_path) == clean
    assert executor.poll(0.05) == []


def test_bytes_in_the_wrong_socket_cost_the_run(executor, clean, tmp_path):
    last = _abuse(executor, tmp_path, "writes_into_the_socket", timeout_s=5.0)[-1]
    assert last.state is State.FAILED
    assert last.reason in ("protocol", "exit:1")
    assert _fine(executor, tmp_path) == clean


def test_a_run_of_no_file_fails_and_says_so(executor, clean, tmp_path):
    last = outcome(executor, assignment(0), workload("train", Path(tmp_path), source="missing.py"))
    assert last.state is State.FAILED
    assert "missing.py" in last.error
    assert not math.isnan(clean)


def test_a_forged_report_is_nobodys(executor, clean, tmp_path):
    (last,) = _abuse(executor, tmp_path, "forges")
    assert (last.run, last.attempt, last.value) == ((0, 0, 0), 1, 1.0)
    assert executor.poll(0.05) == []
    assert _fine(executor, tmp_path) == clean


# The same with other runs in hand: nobody can tell whose doing it was


@pytest.fixture(scope="module")
def wide():
    executor = LocalExecutor(1, device="cpu", lanes=4)
    yield executor
    executor.close()


def _in_company(executor, files, how, timeout_s=None, **params):
    """The ends of the first and the last of three runs with one that misbehaves as the second."""
    work = workload("train", files, source="abuse.py", lanes=4, timeout_s=timeout_s)
    hows = ("fine", how, "fine", "fine")
    executor.start([assignment(t, how=hows[t], **params) for t in range(4)], work)
    return {last.run.trial: last for last in ends(listen(executor, 4))}


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("os_exit", "exit:4"),
        ("segfault", "signal:11"),
        ("kill_itself", "signal:9"),
        ("sleeps", "timeout"),
        ("writes_into_the_socket", "protocol"),
    ],
)
def test_who_takes_its_worker_down_takes_those_that_wait_with_it(wide, clean, tmp_path, how, cause):
    _fine(wide, tmp_path)  # a warm worker: its start does not count
    # The second trains when the first has ended: that one is not lost any more.
    found = _in_company(wide, tmp_path, how, timeout_s=1.5)
    assert found[0].state is State.COMPLETE
    assert {type(found[t]) for t in (1, 2, 3)} == {Lost}
    causes = {found[t].cause for t in (1, 2, 3)}
    assert causes == {cause} or (cause == "protocol" and causes == {"signal:9"})  # the guard's socket was hit as well
    assert {other.trial for other in found[2].company} == {1, 3}
    assert _fine(wide, tmp_path) == clean


@pytest.mark.parametrize("how", ["sleeps", "sleeps_later"])
def test_who_hangs_alone_is_not_given_the_time_of_those_that_wait(wide, clean, tmp_path, how):
    _fine(wide, tmp_path)
    found = _in_company(wide, tmp_path, how, timeout_s=TIMEOUT_S)
    assert {found[t].cause for t in (1, 2, 3)} == {"timeout"}
    assert TIMEOUT_S <= found[1].seconds < 2.5 * TIMEOUT_S
    assert _fine(wide, tmp_path) == clean


@pytest.mark.parametrize("how", ["raises", "sys_exit", "forges", "closes_its_output", "leaves_a_thread"])
def test_who_misbehaves_within_python_costs_the_others_nothing(wide, clean, tmp_path, how):
    found = _in_company(wide, tmp_path, how)
    assert found[0].state is State.COMPLETE
    if how != "leaves_a_thread":  # `fine` fails where it finds a thread of another
        assert {found[t].state for t in (2, 3)} == {State.COMPLETE}
    assert found[1].state is (State.FAILED if how in ("raises", "sys_exit") else State.COMPLETE)
    assert _fine(wide, tmp_path) == clean
