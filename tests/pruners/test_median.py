import math

import pytest

from hpsearch.pruner import Bracket
from hpsearch.pruners.median import Median
from hpsearch.trial import Direction
from tests.conformance.pruners import PrunerSuite, rung


class TestEveryFifthEpoch(PrunerSuite):
    @pytest.fixture
    def pruner(self):
        return Median()


class TestFromTheFirstEpochOn(PrunerSuite):
    @pytest.fixture
    def pruner(self):
        return Median(warmup_epochs=1, every=1, min_trials=2)


def test_what_is_worse_than_the_median_stops():
    odd = Median().decide(rung({k: [float(k)] for k in range(7)}))
    assert (odd.go, odd.stop) == ({0, 1, 2, 3}, {4, 5, 6})
    assert odd.reason == "median 3 of 7 at epoch 3"
    even = Median().decide(rung({k: [float(k)] for k in range(6)}))
    assert (even.go, even.reason) == ({0, 1, 2}, "median 2.5 of 6 at epoch 3")
    up = Median().decide(rung({k: [float(k)] for k in range(7)}, direction=Direction.MAXIMIZE))
    assert (up.go, up.reason) == ({3, 4, 5, 6}, "median 3 of 7 at epoch 3")


def test_of_equals_nobody_stops():
    assert Median().decide(rung({k: [0.5] for k in range(8)})).stop == frozenset()
    assert Median().decide(rung({k: [5e-324] for k in range(8)})).stop == frozenset()


def test_earlier_cohorts_count():
    values, earlier = {k: [float(k)] for k in (10, 11, 12)}, {k: [float(k)] for k in range(6)}
    verdict = Median().decide(rung(values, earlier=earlier))
    assert (verdict.go, verdict.stop) == (frozenset(), {10, 11, 12})
    assert verdict.reason == "median 4 of 9 at epoch 3"


def test_with_too_few_trials_nobody_is_compared():
    values = {k: [float(k)] for k in range(3)} | {3: [math.nan]}
    verdict = Median().decide(rung(values))
    assert (verdict.go, verdict.stop) == ({0, 1, 2}, {3})
    assert verdict.reason == "fewer than 5 trials at epoch 3: none is compared"
    assert Median(min_trials=4).decide(rung(values)).go == {0, 1}
    assert Median().decide(rung(values, earlier={9: [0.5]})).go == {0, 1}


def test_diverged_trials_count_as_the_worst():
    values = {k: [float(k)] for k in range(4)} | {k: [math.inf] for k in range(4, 9)}
    verdict = Median().decide(rung(values, waiting=frozenset(range(4))))
    assert (verdict.go, verdict.reason) == ({0, 1, 2, 3}, "median inf of 9 at epoch 3")


def test_asynchronously_each_is_compared_with_those_before_it():
    pruner = Median(asynchronous=True, min_trials=3)
    values = {0: [1.0], 1: [3.0]}
    assert pruner.decide(rung(values, expected=5)).go == {0, 1}
    values[2] = [2.5]
    verdict = pruner.decide(rung(values, waiting=frozenset({2}), expected=4))
    assert (verdict.go, verdict.stop) == ({2}, frozenset())
    values[3] = [2.9]
    verdict = pruner.decide(rung(values, waiting=frozenset({3}), expected=3))
    assert (verdict.go, verdict.stop) == (frozenset(), {3})


@pytest.mark.parametrize(
    ("pruner", "epochs", "rungs"),
    [
        (Median(), 20, (5, 10, 15)),
        (Median(), 21, (5, 10, 15, 20)),
        (Median(), 5, ()),
        (Median(warmup_epochs=2, every=1), 6, (2, 3, 4, 5)),
        (Median(max_epochs=12), 100, (5, 10)),
        (Median(max_epochs=12), None, (5, 10)),
        (Median(), None, ()),
    ],
)
def test_the_rungs(pruner, epochs, rungs):
    assert pruner.brackets(16, epochs) == [Bracket(trials=16, rungs=rungs)]


def test_problems():
    (problem,) = Median().problems(None)
    assert problem.field == "pruner.max_epochs"
    assert Median(max_epochs=6).problems(None) == []
    (problem,) = Median().problems(5)
    assert (problem.field, "below the last epoch (5)" in problem.message) == ("pruner.warmup_epochs", True)
    fields = [p.field for p in Median(warmup_epochs=0, every=0, min_trials=1, cohort=1).problems(20)]
    assert fields == [f"pruner.{name}" for name in ("warmup_epochs", "every", "min_trials", "cohort")]
