"""What every executor keeps. A member's test subclasses ``ExecutorConformance`` and gives ``make``."""

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from pathlib import Path

import pytest

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.trial import EpochReport, Finished, Lost, Report, RunKey, State

OBJECTIVES = Path(__file__).parents[1] / "objectives"


def workload(name: str, files: Path, *, source: str = "small.py", **options) -> Workload:
    """Runs of one of the functions in tests/objectives."""
    address = ObjectiveAddress(source=source, name=name, folder=OBJECTIVES)
    return Workload(
        study="s", objective=address, metric="loss", direction="minimize", seed=0, device="cpu", files=files, **options
    )


def assignment(trial: int, *, seed: int = 0, attempt: int = 1, **params) -> Assignment:
    """An attempt at a run; lr is 0.1 where nothing else is said."""
    return Assignment(run=RunKey(trial, seed), params={"lr": 0.1, **params}, attempt=attempt)


def drive(executor: Executor, todo: list[Assignment], work: Workload, limit_s: float = 60.0) -> list[Report]:
    """Run all of them as the search loop would, and give all reports in the order in which they came."""
    waiting, said, end = list(todo), [], time.monotonic() + limit_s
    while sum(not isinstance(report, EpochReport) for report in said) < len(todo):
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


class ExecutorConformance(ABC):
    """The promises of ``hpsearch.executor.Executor``."""

    @abstractmethod
    def make(self) -> Executor:
        """A fresh executor on the CPU."""

    @pytest.fixture
    def executor(self):
        executor = self.make()
        yield executor
        executor.close()

    def test_every_run_ends_once_after_its_epochs_in_order(self, executor, tmp_path):
        todo = [assignment(t, seed=s, attempt=1 + t % 3) for t in range(12) for s in range(2)]
        by_run = defaultdict(list)
        for report in drive(executor, todo, workload("quadratic", tmp_path)):
            by_run[report.run].append(report)
        assert by_run.keys() == {a.run for a in todo}
        for a in todo:
            *epochs, last = by_run[a.run]
            assert [e.epoch for e in epochs] == [0, 1, 2]
            assert isinstance(last, Finished)
            assert (last.state, last.last_epoch) == (State.COMPLETE, 2)
            assert last.value == epochs[-1].metrics["loss"]
            assert {r.attempt for r in by_run[a.run]} == {a.attempt}
        assert executor.poll(0.05) == []

    def test_the_same_seed_gives_the_same_value_whoever_ran_before(self, executor, tmp_path):
        work = workload("quadratic", tmp_path)
        todo = [assignment(t, seed=t % 2) for t in range(6)]
        first, again = (
            {r.run: r.value for r in drive(executor, order, work) if isinstance(r, Finished)}
            for order in (todo, todo[::-1])
        )
        assert first == again
        assert len(set(first.values())) == 2
        assert len({value for run, value in first.items() if run.seed == 0}) == 1

    def test_capacity_is_what_it_takes(self, executor, tmp_path):
        work, room = workload("quadratic", tmp_path), executor.capacity()
        assert room >= 1
        executor.start([assignment(t) for t in range(room)], work)
        assert executor.capacity() == 0
        with pytest.raises(ExecutorError, match="room for 0"):
            executor.start([assignment(99)], work)
        ended: list[Report] = []
        while len(ended) < room:
            ended += [r for r in executor.poll(1.0) if not isinstance(r, EpochReport)]
        assert executor.capacity() == room
        assert RunKey(99, 0) not in {r.run for r in ended}

    def test_a_stopped_run_ends_at_its_next_report(self, executor, tmp_path):
        run = assignment(0)
        executor.start([run], workload("endless", tmp_path))
        executor.stop([run.run, RunKey(77, 0)])
        last = self._last(executor)
        assert isinstance(last, Finished)
        assert (last.state, last.run) == (State.CANCELLED, run.run)
        # The order was for that run alone.
        after = outcome(executor, assignment(1), workload("quadratic", tmp_path))
        assert after.state is State.COMPLETE

    def test_a_run_stopped_now_is_lost_and_can_be_run_again(self, executor, tmp_path):
        run, work = assignment(0), workload("quadratic", tmp_path)
        executor.start([run], workload("naps", tmp_path))
        executor.stop([run.run], now=True)
        last = self._last(executor)
        assert isinstance(last, Lost)
        assert (last.cause, last.run, last.attempt) == ("stopped", run.run, 1)
        again = outcome(executor, assignment(0, attempt=2), work)
        assert (again.state, again.attempt) == (State.COMPLETE, 2)

    def test_an_exception_costs_its_run(self, executor, tmp_path):
        bad = outcome(executor, assignment(0, how="raises"), workload("train", tmp_path, source="abuse.py"))
        assert (bad.state, bad.reason) == (State.FAILED, "exception")
        assert "no luck" in bad.error
        assert outcome(executor, assignment(1), workload("quadratic", tmp_path)).state is State.COMPLETE

    def test_polling_for_nothing_says_nothing_and_does_not_wait_longer(self, executor):
        began = time.monotonic()
        assert executor.poll(0.05) == []
        assert time.monotonic() - began < 5

    def test_closing_is_quick_and_may_be_done_twice(self, executor, tmp_path):
        outcome(executor, assignment(0), workload("quadratic", tmp_path))
        began = time.monotonic()
        executor.close()
        executor.close()
        assert time.monotonic() - began < 10
        assert executor.capacity() == 0
        assert executor.poll(0.0) == []
        with pytest.raises(ExecutorError, match="closed"):
            executor.start([assignment(1)], workload("quadratic", tmp_path))

    @staticmethod
    def _last(executor: Executor) -> Report:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for report in executor.poll(0.5):
                if not isinstance(report, EpochReport):
                    return report
        raise AssertionError("no end within 30 s")
