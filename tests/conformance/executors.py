"""What every executor keeps. A member's test subclasses ``ExecutorConformance`` and gives ``make``."""

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.training.fingerprint import fingerprint
from hpsearch.training.load import load
from hpsearch.trial import EpochReport, Finished, Grouped, Lost, PausedReport, Report, RunKey, State

OBJECTIVES = Path(__file__).parents[1] / "objectives"


def workload(name: str, files: Path, *, source: str = "small.py", **options) -> Workload:
    """Runs of one of the functions in tests/objectives."""
    address = ObjectiveAddress(source=source, name=name, folder=OBJECTIVES)
    return Workload(
        study="s", objective=address, metric="loss", direction="minimize", seed=0, device="cpu", files=files, **options
    )


def task(name: str, files: Path, lanes: int, **options) -> Workload:
    """Runs of one of the tasks in tests/objectives."""
    address = ObjectiveAddress(source="tasks.py", name=name, folder=OBJECTIVES)
    return Workload(
        study="s",
        objective=address,
        metric="val_loss",
        direction="minimize",
        seed=0,
        device="cpu",
        files=files,
        lanes=lanes,
        **options,
    )


def assignment(
    trial: int, *, seed: int = 0, attempt: int = 1, group: int | None = None, until: int | None = None, **params
) -> Assignment:
    """An attempt at a run; lr is 0.1 where nothing else is said."""
    return Assignment(
        run=RunKey(trial, seed), params={"lr": 0.1, **params}, attempt=attempt, group=group, until_epoch=until
    )


def ends(reports: list[Report]) -> list[Finished | PausedReport | Lost]:
    """The last report of each run."""
    return [report for report in reports if isinstance(report, Finished | PausedReport | Lost)]


def drive(executor: Executor, todo: list[Assignment], work: Workload, limit_s: float = 60.0) -> list[Report]:
    """Run all of them as the search loop would, and give all reports in the order in which they came."""
    waiting, said, end = list(todo), [], time.monotonic() + limit_s
    while len(ends(said)) < len(todo):
        assert time.monotonic() < end, f"after {limit_s} s: {said}"
        room = executor.capacity()
        if room and waiting:
            executor.start(waiting[:room], work)
            waiting = waiting[room:]
        said += executor.poll(0.5)
    return said


def outcome(executor: Executor, todo: Assignment, work: Workload, limit_s: float = 60.0) -> Report:
    """The last report of one run."""
    return drive(executor, [todo], work, limit_s)[-1]


def listen(executor: Executor, count: int = 1, limit_s: float = 60.0) -> list[Report]:
    """All that is said until so many runs have ended."""
    said, end = [], time.monotonic() + limit_s
    while len(ends(said)) < count:
        assert time.monotonic() < end, f"after {limit_s} s: {said}"
        said += executor.poll(0.5)
    return said


class ExecutorConformance(ABC):
    """The promises of ``hpsearch.executor.Executor``, with workers of one lane and of four."""

    @abstractmethod
    def make(self, lanes: int) -> Executor:
        """A fresh executor of one worker on the CPU."""

    @pytest.fixture(params=[1, 4])
    def lanes(self, request):
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def idle(cls):
        """Executors without work by their lanes, for the next test: a worker takes seconds to start."""
        idle = {}
        yield idle
        for executor in idle.values():
            executor.close()

    @contextmanager
    def borrowed(self, idle, lanes):
        executor = idle.pop(lanes, None) or self.make(lanes)
        yield executor
        # One that a test has closed, or left at work, is of no use to the next.
        if executor.capacity() == lanes:
            idle[lanes] = executor
        else:
            executor.close()

    @pytest.fixture
    def executor(self, idle, lanes):
        with self.borrowed(idle, lanes) as executor:
            yield executor

    @pytest.fixture
    def wide(self, idle):
        with self.borrowed(idle, 4) as executor:
            yield executor

    def test_every_run_ends_once_after_its_epochs_in_order(self, executor, lanes, tmp_path):
        todo = [assignment(t, seed=s, attempt=1 + t % 3) for t in range(12) for s in range(2)]
        said = drive(executor, todo, workload("quadratic", tmp_path, lanes=lanes))
        for last, epochs in _by_run(said, todo):
            assert [e.epoch for e in epochs] == [0, 1, 2]
            assert isinstance(last, Finished)
            assert (last.state, last.last_epoch) == (State.COMPLETE, 2)
            assert last.value == epochs[-1].metrics["loss"]
        assert executor.poll(0.05) == []

    def test_every_run_of_a_task_ends_once_and_says_how_it_was_trained(self, executor, lanes, tmp_path):
        todo = [assignment(t, seed=s, attempt=1 + t % 3, lr=0.01 * (1 + t)) for t in range(5) for s in range(2)]
        todo.append(assignment(9, lr=1e30))
        said = drive(executor, todo, task("Line", tmp_path, lanes))
        values = {}
        for last, epochs in _by_run(said, todo):
            assert isinstance(last, Finished)
            if last.run.trial == 9:
                assert last.state is State.DIVERGED
                continue
            assert [(e.epoch, e.epochs) for e in epochs] == [(0, 3), (1, 3), (2, 3)]
            assert (last.state, last.last_epoch) == (State.COMPLETE, 2)
            assert last.value == min(e.metrics["val_loss"] for e in epochs)
            values[last.run] = last.value
        assert len(set(values.values())) == 10
        assert executor.poll(0.05) == []
        if lanes > 1:
            assert max(r.lanes for r in said if isinstance(r, Grouped)) > 1
            assert "vmap" in next(r.engine for r in ends(said) if r.run.trial == 0)

    def test_the_same_seed_gives_the_same_value_whoever_ran_before(self, executor, lanes, tmp_path):
        work = workload("quadratic", tmp_path, lanes=lanes)
        todo = [assignment(t, seed=t % 2) for t in range(6)]
        first, again = (
            {r.run: r.value for r in drive(executor, order, work) if isinstance(r, Finished)}
            for order in (todo, todo[::-1])
        )
        assert first == again
        assert len(set(first.values())) == 2
        assert len({value for run, value in first.items() if run.seed == 0}) == 1

    def test_capacity_is_what_it_takes(self, executor, lanes, tmp_path):
        work, room = workload("quadratic", tmp_path, lanes=lanes), executor.capacity()
        assert (room, executor.idle()) == (lanes, 1)
        executor.start([assignment(t) for t in range(room)], work)
        assert (executor.capacity(), executor.idle()) == (0, 0)
        with pytest.raises(ExecutorError, match="room for 0"):
            executor.start([assignment(99)], work)
        said = listen(executor, room)
        assert (executor.capacity(), executor.idle()) == (lanes, 1)
        assert RunKey(99, 0) not in {run.run for run in ends(said)}

    def test_a_stopped_run_ends_at_its_next_report(self, executor, lanes, tmp_path):
        run = assignment(0)
        executor.start([run], workload("endless", tmp_path, lanes=lanes))
        executor.stop([run.run, RunKey(77, 0)])
        last = listen(executor)[-1]
        assert isinstance(last, Finished)
        assert (last.state, last.run) == (State.CANCELLED, run.run)
        # The order was for that run alone.
        after = outcome(executor, assignment(1), workload("quadratic", tmp_path, lanes=lanes))
        assert after.state is State.COMPLETE

    def test_of_several_only_the_stopped_one_ends(self, wide, tmp_path):
        todo = [assignment(t) for t in range(4)]
        wide.start(todo, task("Line", tmp_path, 4))
        wide.stop([RunKey(2, 0)])
        states = {last.run.trial: last.state for last in ends(listen(wide, 4))}
        assert states == {0: State.COMPLETE, 1: State.COMPLETE, 2: State.CANCELLED, 3: State.COMPLETE}

    def test_a_run_stopped_now_is_lost_and_can_be_run_again(self, executor, lanes, tmp_path):
        run, work = assignment(0), workload("quadratic", tmp_path, lanes=lanes)
        executor.start([run], workload("naps", tmp_path, lanes=lanes))
        executor.stop([run.run], now=True)
        last = listen(executor)[-1]
        assert isinstance(last, Lost)
        assert (last.cause, last.run, last.attempt) == ("stopped", run.run, 1)
        again = outcome(executor, assignment(0, attempt=2), work)
        assert (again.state, again.attempt) == (State.COMPLETE, 2)

    @pytest.mark.parametrize("kind", ["function", "task"])
    def test_runs_pause_together_and_go_on_later(self, executor, lanes, tmp_path, kind):
        work = task("Line", tmp_path, lanes) if kind == "task" else workload("quadratic", tmp_path, lanes=lanes)
        first = [assignment(t, until=2) for t in range(4)]
        paused = ends(drive(executor, first, work))
        assert {(type(last), last.epoch) for last in paused} == {(PausedReport, 1)}
        # The same attempt again: a stop that came too late must not meet it.
        executor.stop([RunKey(0, 0)])
        finished = ends(drive(executor, [assignment(t) for t in range(4)], work))
        assert {(last.state, last.last_epoch) for last in finished} == {(State.COMPLETE, 2)}
        seen = fingerprint(load(work.objective).data()) if kind == "task" else ""
        assert {last.environment.data for last in [*paused, *finished]} == {seen}

    def test_a_group_is_alone(self, wide, tmp_path):
        work = task("Line", tmp_path, 4)
        group = [assignment(t, group=7) for t in range(2)]
        with pytest.raises(ExecutorError, match="group"):
            wide.start([*group, assignment(5), assignment(6)], work)
        wide.start(group, work)
        assert (wide.capacity(), wide.idle()) == (0, 0)
        assert {last.state for last in ends(listen(wide, 2))} == {State.COMPLETE}
        assert (wide.capacity(), wide.idle()) == (4, 1)
        wide.start([assignment(5)], work)
        with pytest.raises(ExecutorError, match="group"):
            wide.start(group, work)
        assert ends(listen(wide))[0].run.trial == 5

    def test_an_exception_costs_its_run(self, executor, lanes, tmp_path):
        bad = outcome(executor, assignment(0, how="raises"), workload("train", tmp_path, source="abuse.py"))
        assert (bad.state, bad.reason) == (State.FAILED, "exception")
        assert "no luck" in bad.error
        good = outcome(executor, assignment(1), workload("quadratic", tmp_path, lanes=lanes))
        assert good.state is State.COMPLETE

    def test_polling_for_nothing_says_nothing_and_does_not_wait_longer(self, executor):
        began = time.monotonic()
        assert executor.poll(0.05) == []
        assert time.monotonic() - began < 5

    def test_closing_is_quick_and_may_be_done_twice(self, executor, lanes, tmp_path):
        outcome(executor, assignment(0), workload("quadratic", tmp_path, lanes=lanes))
        began = time.monotonic()
        executor.close()
        executor.close()
        assert time.monotonic() - began < 10
        assert (executor.capacity(), executor.idle()) == (0, 0)
        assert executor.poll(0.0) == []
        with pytest.raises(ExecutorError, match="closed"):
            executor.start([assignment(1)], workload("quadratic", tmp_path, lanes=lanes))

    def test_lanes_below_one_are_refused(self):
        with pytest.raises(ExecutorError, match="lanes must be at least 1, not 0"):
            self.make(0)


def _by_run(said: list[Report], todo: list[Assignment]):
    """(last report, epochs before it) of each run; each has exactly one end, and nothing comes after it."""
    by_run = defaultdict(list)
    for report in said:
        if not isinstance(report, Grouped):
            by_run[report.run].append(report)
    assert by_run.keys() == {a.run for a in todo}
    for a in todo:
        *epochs, last = by_run[a.run]
        assert all(isinstance(report, EpochReport) for report in epochs)
        assert {report.attempt for report in by_run[a.run]} == {a.attempt}
        yield last, epochs
