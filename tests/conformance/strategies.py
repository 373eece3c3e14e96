"""What every strategy promises. A member's test file subclasses ``StrategySuite`` with the fixture ``strategy``."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable

import pytest

from hpsearch.space import Categorical, Float, Int, Params, SearchSpace
from hpsearch.strategy import History, Observation, Strategy
from hpsearch.trial import Direction, State

SPACE = SearchSpace(
    {
        "lr": Float(1e-5, 1.0, log=True, points=4),
        "optimizer": Categorical(("sgd", "adam")),
        "momentum": Float(0.5, 0.999, reverse_log=True, points=3),
        "layers": Int(1, 3),
        "epochs": Int(5, 5),
    }
)
NUMERIC = SearchSpace({"x": Float(0.0, 1.0, points=7), "y": Float(-2.0, 2.0, points=7)})
ONE = SearchSpace({"lr": Float(1e-4, 1.0, log=True, points=30), "batch_size": Int(64, 64)})
CHOICES = SearchSpace({"act": Categorical(("relu", "gelu", None)), "norm": Categorical((True, False))})
SPACES = {"mixed": SPACE, "numeric": NUMERIC, "one": ONE, "choices": CHOICES}

Outcome = Callable[[SearchSpace, Params], Observation]

ASK_ELSEWHERE = """
import pickle, sys
strategy, history, n = pickle.load(sys.stdin.buffer)
print(repr((strategy.ask(history, n), strategy.decisions(history), strategy.window(history))))
"""


def bowl(space: SearchSpace, params: Params) -> Observation:
    """A bowl with its floor at 0.3 of every axis; it diverges at the far end of the first and fails in a corner."""
    point = space.to_unit(params)
    if point[0] > 0.9:
        return Observation(params=params, state=State.DIVERGED, value=None)
    if point[-1] > 0.9:
        return Observation(params=params, state=State.FAILED, value=None)
    return Observation(params=params, state=State.COMPLETE, value=sum((u - 0.3) ** 2 for u in point))


def diverged(space: SearchSpace, params: Params) -> Observation:
    return Observation(params=params, state=State.DIVERGED, value=None)


def failed(space: SearchSpace, params: Params) -> Observation:
    return Observation(params=params, state=State.FAILED, value=None)


def drive(
    strategy: Strategy,
    space: SearchSpace,
    n: int,
    *,
    outcome: Outcome = bowl,
    seed: int = 7,
    direction: Direction = Direction.MINIMIZE,
    workers: int = 1,
    baselines: tuple[Observation, ...] = (),
) -> list[Observation]:
    """The first ``n`` trials as the loop makes them: whole batches, on workers that finish in an order of their own.

    A strategy without batches is asked for as many as there are free workers, one with batches for the whole batch.
    """
    order = random.Random(workers)
    chosen: list[Params] = []
    results: dict[int, Observation] = {}
    while len(chosen) < n:
        size = strategy.batch_size
        batch, index = (0, len(chosen)) if size is None else divmod(len(chosen), size)
        known = () if size is None else (*baselines, *(results[k] for k in range(batch * size)))
        history = History(search_space=space, direction=direction, seed=seed, batch=batch, index=index, finished=known)
        new = strategy.ask(history, workers if size is None else size)
        if not new:
            break
        running = list(range(len(chosen), len(chosen) + len(new)))
        chosen.extend(new)
        while running:
            number = running.pop(order.randrange(len(running)) if workers > 1 else 0)
            results[number] = outcome(space, chosen[number])
    return [results[k] for k in range(min(n, len(chosen)))]


def history_of(
    strategy: Strategy, space: SearchSpace, batches: int, *, outcome: Outcome = bowl, seed: int = 7
) -> History:
    """The history at the start of batch number ``batches``; for a strategy without batches, after 8 trials a batch."""
    base = History(search_space=space, direction=Direction.MINIMIZE, seed=seed)
    size = strategy.batch_size
    if size is None:
        return base.asked(strategy.ask(base, 8 * batches))
    finished = drive(strategy, space, batches * size, outcome=outcome, seed=seed)
    reached = len(finished) // size
    return History(search_space=space, direction=Direction.MINIMIZE, seed=seed, batch=reached, finished=tuple(finished))


class StrategySuite:
    #: batches finished before the asks that are compared
    batches = 2
    #: trials after which a strategy without end is believed
    many = 60

    @pytest.fixture
    def strategy(self) -> Strategy:
        raise NotImplementedError

    @pytest.fixture(params=list(SPACES))
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        return SPACES[request.param]

    def test_its_options_suit_the_spaces(self, strategy, space):
        assert strategy.problems(space) == []

    def test_every_setting_lies_in_the_space_with_its_fixed_values(self, strategy, space):
        trials = drive(strategy, space, 24)
        assert trials
        for trial in trials:
            assert space.contains(trial.params)
            assert list(trial.params) == list(space.parameters)
            assert space.fixed.items() <= trial.params.items()

    def test_asked_at_once_or_in_parts_it_says_the_same(self, strategy, space):
        history = history_of(strategy, space, self.batches)
        whole = strategy.ask(history, 6)
        head = strategy.ask(history, 2)
        assert head + strategy.ask(history.asked(head), 4) == whole
        single: list[Params] = []
        for _ in whole:
            single += strategy.ask(history.asked(single), 1)
        assert single == whole

    def test_never_more_than_asked_for_nor_than_the_batch_has(self, strategy, space):
        history = history_of(strategy, space, 1)
        assert strategy.ask(history, 0) == []
        assert len(strategy.ask(history, 1)) <= 1
        if strategy.batch_size is not None:
            whole = strategy.ask(history, 10 * strategy.batch_size)
            assert len(whole) == strategy.batch_size
            assert strategy.ask(history.asked(whole), 1) == []

    def test_the_same_history_gives_the_same_answer_also_in_another_process(self, strategy):
        history = history_of(strategy, NUMERIC, self.batches)
        here = repr((strategy.ask(history, 3), strategy.decisions(history), strategy.window(history)))
        assert here == repr((strategy.ask(history, 3), strategy.decisions(history), strategy.window(history)))
        there = subprocess.run(
            [sys.executable, "-c", ASK_ELSEWHERE], input=pickle.dumps((strategy, history, 3)), capture_output=True
        )
        assert there.returncode == 0, there.stderr.decode()
        assert there.stdout.decode().strip() == here

    def test_one_worker_or_four_in_any_order_the_same_trials(self, strategy):
        n = (strategy.batch_size or 8) * 3
        assert drive(strategy, SPACE, n, workers=4) == drive(strategy, SPACE, n, workers=1)

    def test_a_resumed_study_goes_on_to_the_digit(self, strategy):
        size = strategy.batch_size or 8
        whole = drive(strategy, NUMERIC, size * 3)
        # What a killed coordinator finds in its database: two batches done, one trial of the third chosen.
        if strategy.batch_size is None:
            history = History(search_space=NUMERIC, direction=Direction.MINIMIZE, seed=7, index=size * 2 + 1)
        else:
            done = tuple(whole[: size * 2])
            base = History(search_space=NUMERIC, direction=Direction.MINIMIZE, seed=7, batch=2, finished=done)
            history = base.asked([whole[size * 2].params])
        rest = strategy.ask(pickle.loads(pickle.dumps(history)), size - 1)
        assert rest == [trial.params for trial in whole[size * 2 + 1 :]]

    def test_another_seed_gives_other_trials_unless_there_are_only_few(self, strategy):
        one, two = (drive(strategy, NUMERIC, 8, seed=seed) for seed in (1, 2))
        assert one != two

    def test_an_empty_batch_comes_only_at_the_end(self, strategy):
        end = strategy.size(NUMERIC)
        assert len(drive(strategy, NUMERIC, self.many)) == min(self.many, end if end is not None else self.many)

    @pytest.mark.parametrize("outcome", [diverged, failed])
    def test_batches_without_any_value_are_survived(self, strategy, outcome):
        n = (strategy.batch_size or 8) * 3
        trials = drive(strategy, NUMERIC, n, outcome=outcome)
        assert len(trials) == n
        assert len({json.dumps(dict(t.params)) for t in trials}) > n // 2

    def test_baselines_outside_the_space_are_survived(self, strategy):
        outside = Observation(params={"x": 5.0, "y": 0.0}, state=State.COMPLETE, value=-1.0, baseline=True)
        stranger = Observation(params={"z": "other"}, state=State.COMPLETE, value=-2.0, baseline=True)
        inside = Observation(params={"x": 0.5, "y": 0.5}, state=State.COMPLETE, value=0.1, baseline=True)
        n = (strategy.batch_size or 8) * 3
        trials = drive(strategy, NUMERIC, n, baselines=(outside, stranger, inside))
        assert len(trials) == n
        assert all(NUMERIC.contains(t.params) for t in trials)
        without = drive(strategy, NUMERIC, n, baselines=(inside,))
        assert trials == without

    def test_decisions_are_pure_and_can_be_written_down(self, strategy):
        history = history_of(strategy, SPACE, self.batches)
        decisions = strategy.decisions(history)
        assert decisions == strategy.decisions(history)
        for decision in decisions:
            assert json.loads(json.dumps(dict(decision.details))) == dict(decision.details)
            assert decision.reason
            assert decision.batch == history.batch - 1

    def test_the_window_lies_in_the_unit_interval_of_searched_parameters(self, strategy, space):
        window = strategy.window(history_of(strategy, space, self.batches))
        assert window.keys() <= space.hard().searched.keys()
        assert all(0 <= start <= end <= 1 for start, end in window.values())

    def test_the_larger_value_wins_where_the_metric_is_maximised(self, strategy):
        def hill(space: SearchSpace, params: Params) -> Observation:
            seen = bowl(space, params)
            return Observation(params=params, state=seen.state, value=None if seen.value is None else -seen.value)

        n = (strategy.batch_size or 8) * 3
        up = drive(strategy, NUMERIC, n, outcome=hill, direction=Direction.MAXIMIZE)
        down = drive(strategy, NUMERIC, n, outcome=bowl)
        assert [t.params for t in up] == [t.params for t in down]
