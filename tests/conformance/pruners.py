"""What every pruner promises. A member's test file subclasses ``PrunerSuite`` with the fixture ``pruner``."""

from __future__ import annotations

import json
import math
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import pytest

from hpsearch.pruner import Bracket, Pruner, Rung, Verdict
from hpsearch.trial import Direction

Values = dict[int, list[float]]

DECIDE_ELSEWHERE = """
import pickle, sys
pruner, rungs = pickle.load(sys.stdin.buffer)
for rung in rungs:
    verdict = pruner.decide(rung)
    print(sorted(verdict.go), sorted(verdict.stop), verdict.reason)
print(pruner.brackets(50, 30))
"""


def rung(values: Mapping[int, Sequence[float]], **changes) -> Rung:
    """A rung at which all of ``values`` wait and nobody is expected any more."""
    fields = {"epoch": 3, "direction": Direction.MINIMIZE, "values": dict(values), "waiting": frozenset(values)}
    return Rung(**{**fields, "expected": 0, **changes})


def drawn(seed: int, *, seeds: int = 1, holes: bool = False) -> Values:
    """Some trials with some numbers; with ``holes`` a few that diverged, and a few equal ones."""
    draw = random.Random(seed)
    numbers = draw.sample(range(500), draw.randint(1, 40))
    values = {number: [draw.gauss(0, 1) for _ in range(seeds)] for number in numbers}
    for number in numbers if holes else ():
        if draw.random() < 0.2:
            values[number][-1] = draw.choice([math.nan, math.inf, -math.inf])
        elif draw.random() < 0.3:
            values[number] = [0.5] * seeds
    return values


def train(
    pruner: Pruner, trials: int, epochs: int, value: Callable[[int, int], float]
) -> tuple[dict[int, int], list[tuple[Bracket, list[int]]]]:
    """A whole cohort, synchronously. ``value(trial, epoch)``: the metric, less is better.

    The epochs that each trial was trained, and for each bracket how many came to each rung and, last, to the end.
    """
    trained = dict.fromkeys(range(trials), 0)
    came: list[tuple[Bracket, list[int]]] = []
    first = 0
    for bracket in pruner.brackets(trials, epochs):
        alive = set(range(first, first + bracket.trials))
        first += bracket.trials
        counts = []
        for epoch in bracket.rungs:
            trained.update(dict.fromkeys(alive, epoch))
            counts.append(len(alive))
            alive &= pruner.decide(rung({k: [value(k, epoch)] for k in alive}, epoch=epoch)).go
        trained.update(dict.fromkeys(alive, epochs))
        came.append((bracket, [*counts, len(alive)]))
    return trained, came


class PrunerSuite:
    @pytest.fixture
    def pruner(self) -> Pruner:
        raise NotImplementedError

    @pytest.fixture
    def eager(self, pruner) -> Pruner:
        """The same, asynchronous."""
        return replace(pruner, asynchronous=True)

    def test_its_options_are_in_order_and_can_be_written_down(self, pruner):
        assert not pruner.asynchronous
        assert pruner.problems(81) == []
        assert json.loads(json.dumps(asdict(pruner))) == asdict(pruner)

    def test_the_brackets_are_the_cohort_and_their_rungs_lie_within_a_run(self, pruner, eager):
        for each in (pruner, eager):
            for trials in [*range(1, 40), 81, 100, 143, 1000]:
                for epochs in [1, 2, 3, 5, 20, 26, 27, 28, 81, 100, 243, 1000]:
                    brackets = each.brackets(trials, epochs)
                    assert sum(bracket.trials for bracket in brackets) == trials
                    for bracket in brackets:
                        assert bracket.trials >= 1
                        assert list(bracket.rungs) == sorted(set(bracket.rungs))
                        assert all(1 <= epoch < epochs for epoch in bracket.rungs)
                    assert brackets == each.brackets(trials, epochs)

    def test_without_known_epochs_there_still_is_an_end_of_rungs(self, pruner):
        brackets = pruner.brackets(81, None)
        assert sum(bracket.trials for bracket in brackets) == 81
        assert all(len(bracket.rungs) < 81 for bracket in brackets)

    def test_its_word_depends_on_the_rung_alone_also_in_another_process(self, pruner, eager):
        rungs = [rung(drawn(seed, holes=True), expected=seed % 2) for seed in range(6)]
        for each in (pruner, eager):
            verdicts = [each.decide(one) for one in rungs]
            assert verdicts == [each.decide(one) for one in rungs]
            there = subprocess.run(
                [sys.executable, "-c", DECIDE_ELSEWHERE], input=pickle.dumps((each, rungs)), capture_output=True
            )
            assert there.returncode == 0, there.stderr.decode()
            here = [f"{sorted(v.go)} {sorted(v.stop)} {v.reason}" for v in verdicts]
            assert there.stdout.decode().splitlines() == [*here, str(each.brackets(50, 30))]

    def test_the_order_in_which_trials_came_does_not_matter(self, pruner, eager):
        for seed in range(20):
            values, earlier = drawn(seed, holes=True), drawn(seed + 100, holes=True)
            shuffled = list(values.items())
            random.Random(seed).shuffle(shuffled)
            back = dict(reversed(earlier.items()))
            for each in (pruner, eager):
                assert each.decide(rung(values, earlier=earlier)) == each.decide(rung(dict(shuffled), earlier=back))

    def test_nothing_is_decided_while_trials_are_expected(self, pruner):
        for seed in range(20):
            assert pruner.decide(rung(drawn(seed, holes=True), expected=1)) == Verdict()

    def test_everything_is_decided_when_all_have_come(self, pruner, eager):
        for seed in range(40):
            values = drawn(seed, holes=True)
            waiting = frozenset(random.Random(seed).sample(sorted(values), (len(values) + 1) // 2))
            for each in (pruner, eager):
                verdict = each.decide(rung(values, waiting=waiting))
                assert verdict.go | verdict.stop == waiting
                assert not verdict.go & verdict.stop
                assert "epoch 3" in verdict.reason

    def test_where_nobody_waits_there_is_nothing_to_say(self, pruner, eager):
        for each in (pruner, eager):
            assert each.decide(rung(drawn(1), waiting=frozenset())) == Verdict()
            assert each.decide(rung({}, waiting=frozenset())) == Verdict()

    def test_one_goes_on_at_least_and_it_is_the_best(self, pruner, eager):
        for seed in range(40):
            values = drawn(seed)
            best = min(values, key=lambda number: (values[number], number))
            for each in (pruner, eager):
                assert best in each.decide(rung(values)).go

    def test_what_goes_on_is_no_worse_than_what_stops(self, pruner, eager):
        for seed in range(40):
            values = drawn(seed, holes=True)
            for each in (pruner, eager):
                verdict = each.decide(rung(values))
                stopped = [values[k][0] if math.isfinite(values[k][0]) else math.inf for k in verdict.stop]
                assert max((values[k][0] for k in verdict.go), default=-math.inf) <= min(stopped, default=math.inf)

    def test_of_equal_trials_the_lower_number_goes_on(self, pruner, eager):
        for count in range(1, 30):
            values = {3 * k + 1: [0.25] for k in range(count)}
            for each in (pruner, eager):
                verdict = each.decide(rung(values))
                assert max(verdict.go) < min(verdict.stop, default=math.inf)

    @pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_the_worst_and_never_goes_on(self, pruner, eager, hole):
        for seed in range(20):
            values = drawn(seed, seeds=2)
            holes = set(random.Random(seed).sample(sorted(values), len(values) // 3))
            broken = {k: [v[0], hole] if k in holes else v for k, v in values.items()}
            worst = {k: [math.inf, math.inf] if k in holes else v for k, v in values.items()}
            for each in (pruner, eager):
                verdict = each.decide(rung(broken))
                assert holes <= verdict.stop
                assert verdict == each.decide(rung(worst))

    @pytest.mark.parametrize("direction", Direction)
    def test_where_all_have_diverged_all_stop(self, pruner, eager, direction):
        values = {k: [direction.worst] for k in range(9)}
        for each in (pruner, eager):
            verdict = each.decide(rung(values, direction=direction))
            assert (verdict.go, verdict.stop) == (frozenset(), frozenset(values))
            assert "nan" not in verdict.reason

    def test_the_mean_over_the_seeds_counts(self, pruner):
        for seed in range(20):
            # Sixteenths, so that the means are exact.
            means = {k: [round(v[0] * 16) / 16] for k, v in drawn(seed).items()}
            spread = {k: [v[0] - 7.5, v[0] + 7.5] for k, v in means.items()}
            assert pruner.decide(rung(spread)) == pruner.decide(rung(means))

    def test_the_ends_of_the_float_range_are_numbers(self, pruner, eager):
        values = {
            0: [1.7e308, 1.7e308],
            1: [-1.7e308, -1.7e308],
            2: [5e-324, 5e-324],
            **{k: [0.0, 0.0] for k in (3, 4)},
        }
        for each in (pruner, eager):
            verdict = each.decide(rung(values))
            assert 1 in verdict.go
            assert 0 in verdict.stop

    def test_to_maximise_is_to_minimise_the_negative(self, pruner, eager):
        for seed in range(20):
            values, earlier = drawn(seed, seeds=2, holes=True), drawn(seed + 50, seeds=2)
            up, before = ({k: [-x for x in v] for k, v in some.items()} for some in (values, earlier))
            for each in (pruner, eager):
                down = each.decide(rung(values, earlier=earlier))
                mirrored = each.decide(rung(up, earlier=before, direction=Direction.MAXIMIZE))
                assert (down.go, down.stop) == (mirrored.go, mirrored.stop)

    def test_asynchronously_each_trial_is_decided_once_in_whatever_order_they_come(self, eager):
        for seed in range(20):
            values = drawn(seed, holes=True)
            order = list(values)
            random.Random(seed).shuffle(order)
            waiting: set[int] = set()
            went: set[int] = set()
            stopped: set[int] = set()
            for k, number in enumerate(order, 1):
                waiting.add(number)
                here = {n: values[n] for n in order[:k]}
                verdict = eager.decide(rung(here, waiting=frozenset(waiting), expected=len(order) - k))
                assert verdict.go | verdict.stop <= waiting
                waiting -= verdict.go | verdict.stop
                went |= verdict.go
                stopped |= verdict.stop
            assert not waiting
            assert went | stopped == set(order)
            assert not went & stopped
            assert all(math.isfinite(values[number][0]) for number in went)

    def test_asynchronously_with_all_there_it_says_the_same(self, pruner, eager):
        for seed in range(20):
            values = drawn(seed, holes=True)
            assert eager.decide(rung(values)) == pruner.decide(rung(values))

    def test_pruning_never_costs_more_epochs_and_somebody_trains_to_the_end(self, pruner):
        for trials in (1, 2, 5, 16, 81):
            trained, came = train(pruner, trials, 30, lambda k, epoch: math.sin(7 * k) / epoch)
            assert sum(trained.values()) <= trials * 30
            assert all(counts[-1] >= 1 for _, counts in came)
            assert max(trained.values()) == 30
