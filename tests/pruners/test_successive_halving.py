import math
import random

import pytest

from hpsearch.pruner import Bracket, Verdict
from hpsearch.pruners.successive_halving import SuccessiveHalving
from tests.conformance.pruners import PrunerSuite, rung, train


class TestThirds(PrunerSuite):
    @pytest.fixture
    def pruner(self):
        return SuccessiveHalving()


class TestHalvesFromTheSecondEpoch(PrunerSuite):
    @pytest.fixture
    def pruner(self):
        return SuccessiveHalving(eta=2, min_epochs=2)


def noisy(k, epoch):
    """Trial k ends at k; early on it looks better or worse than that."""
    return k + random.Random(f"{k}/{epoch}").gauss(0, 5) / epoch


@pytest.mark.parametrize(
    ("epochs", "rungs", "came", "cost"),
    [
        # 81 + 27 * 2 + 9 * 6 + 3 * 18
        (27, (1, 3, 9), [81, 27, 9, 3], 243),
        # .. + 1 * 54: the textbook's 81 -> 27 -> 9 -> 3 -> 1
        (81, (1, 3, 9, 27), [81, 27, 9, 3, 1], 297),
    ],
)
def test_the_textbook_table(epochs, rungs, came, cost):
    trained, ((bracket, counts),) = train(SuccessiveHalving(), 81, epochs, noisy)
    assert bracket == Bracket(trials=81, rungs=rungs)
    assert counts == came
    assert sum(trained.values()) == cost
    best = [k for k, count in trained.items() if count == epochs]
    assert max(best) < 27


def test_kept_lanes_would_cost_nine_times_as_much():
    """The issue's arithmetic: 81 lanes of 27 epochs are 2,187, what the algorithm needs is a ninth of it."""
    trained, _ = train(SuccessiveHalving(), 81, 27, noisy)
    assert 9 * sum(trained.values()) == 81 * 27 == 2187


@pytest.mark.parametrize(
    ("n", "eta", "kept"), [(1, 3, 1), (2, 3, 1), (3, 3, 1), (5, 3, 1), (6, 3, 2), (10, 3, 3), (10, 4, 2), (7, 2, 3)]
)
def test_the_best_floor_of_n_over_eta_go_on_and_at_least_one(n, eta, kept):
    verdict = SuccessiveHalving(eta=eta).decide(rung({k: [10.0 - k] for k in range(n)}))
    assert sorted(verdict.go) == list(range(n - kept, n))
    assert verdict.reason == f"best {kept} of {n} at epoch 3"


def test_those_that_diverged_count_and_leave_their_places_empty():
    values = {k: [math.inf] for k in range(2, 9)} | {0: [0.5], 1: [0.1]}
    verdict = SuccessiveHalving().decide(rung(values, waiting=frozenset({0, 1})))
    assert verdict == Verdict(go=frozenset({0, 1}), reason="best 2 of 9 at epoch 3: no other is finite")
    one = SuccessiveHalving().decide(rung({0: [0.5], 1: [0.1], 2: [math.nan]}, waiting=frozenset({0, 1})))
    assert (one.go, one.stop) == ({1}, {0})


def test_a_trial_that_has_ended_already_keeps_its_place():
    values = {k: [float(k)] for k in range(6)}
    verdict = SuccessiveHalving().decide(rung(values, waiting=frozenset({1, 2, 3, 4, 5})))
    assert (verdict.go, verdict.stop) == ({1}, {2, 3, 4, 5})


@pytest.mark.parametrize(
    ("pruner", "trials", "epochs", "rungs"),
    [
        (SuccessiveHalving(), 81, 28, (1, 3, 9, 27)),
        (SuccessiveHalving(), 81, 3, (1,)),
        (SuccessiveHalving(), 81, 1, ()),
        (SuccessiveHalving(min_epochs=2), 81, 100, (2, 6, 18, 54)),
        (SuccessiveHalving(eta=4), 100, 100, (1, 4, 16)),
        (SuccessiveHalving(max_epochs=9), 81, 100, (1, 3)),
        (SuccessiveHalving(max_epochs=100), 81, 9, (1, 3)),
        (SuccessiveHalving(max_epochs=9), 81, None, (1, 3)),
        # One trial alone waits for nobody.
        (SuccessiveHalving(), 9, 81, (1, 3)),
        (SuccessiveHalving(), 8, 81, (1, 3)),
        (SuccessiveHalving(), 5, 81, (1,)),
        (SuccessiveHalving(), 1, 81, ()),
        (SuccessiveHalving(), 81, None, (1, 3, 9, 27)),
        (SuccessiveHalving(asynchronous=True), 9, 81, (1, 3, 9)),
        (SuccessiveHalving(asynchronous=True), 9, None, (1, 3, 9)),
    ],
)
def test_the_rungs(pruner, trials, epochs, rungs):
    assert pruner.brackets(trials, epochs) == [Bracket(trials=trials, rungs=rungs)]


def test_asynchronously_a_trial_goes_on_as_soon_as_it_is_among_the_best_third():
    """Algorithm 2 of Li et al. (2020), with trials that come one by one."""
    pruner = SuccessiveHalving(asynchronous=True)
    came = [5.0, 4.0, 6.0, 3.0, 9.0, 8.0, 1.0, 7.0, 2.0]
    waiting, promoted = set(), []
    for k in range(len(came)):
        waiting.add(k)
        here = {number: [came[number]] for number in range(k + 1)}
        verdict = pruner.decide(rung(here, waiting=frozenset(waiting), expected=20 - k))
        assert not verdict.stop
        if verdict.go:
            promoted.append((k + 1, sorted(verdict.go), verdict.reason))
        waiting -= verdict.go
    assert promoted == [
        (3, [1], "best 1 of 3 so far at epoch 3"),
        (4, [3], "best 1 of 4 so far at epoch 3"),
        (7, [6], "best 2 of 7 so far at epoch 3"),
        (9, [8], "best 3 of 9 so far at epoch 3"),
    ]


def test_problems():
    assert SuccessiveHalving().problems(None) == []
    fields = [p.field for p in SuccessiveHalving(eta=1, min_epochs=0, cohort=1).problems(20)]
    assert fields == ["pruner.eta", "pruner.min_epochs", "pruner.cohort"]
    (problem,) = SuccessiveHalving(min_epochs=20).problems(20)
    assert "below the last epoch (20)" in problem.message
    (problem,) = SuccessiveHalving(min_epochs=5, max_epochs=4).problems(20)
    assert "below the last epoch (4)" in problem.message
