import json
from dataclasses import replace
from statistics import median

import pytest

from hpsearch.space import Categorical, Float, Int, SearchSpace
from hpsearch.strategies.coarse_to_fine import CoarseToFine
from hpsearch.strategies.random import Random
from hpsearch.strategy import History, Observation
from hpsearch.trial import Direction, State
from tests.conformance.strategies import CHOICES, StrategySuite, drive


@pytest.fixture(scope="module")
def line():
    return SearchSpace({"x": Float(0.0, 1.0)})


def at(x, value, **more):
    params = x if isinstance(x, dict) else {"x": x}
    return Observation(params=params, state=State.COMPLETE, value=value, **more)


def lost(x, state=State.DIVERGED):
    return Observation(params={"x": x}, state=state, value=None)


def after(space, *rounds, baselines=(), seed=0, direction=Direction.MINIMIZE):
    """The history after some rounds of two trials each."""
    finished = (*baselines, *(trial for trials in rounds for trial in trials))
    return History(search_space=space, direction=direction, seed=seed, batch=len(rounds), finished=finished)


PAIRS = CoarseToFine(trials_per_round=2)


class TestSobolRounds(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return CoarseToFine(trials_per_round=8)


class TestIndependentRounds(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return CoarseToFine(trials_per_round=8, points="independent")


class TestGridRounds(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return CoarseToFine(trials_per_round=9, points="grid", rounds=6)


def test_the_first_window_is_low_to_high(line):
    history = after(line)
    assert PAIRS.window(history) == {"x": (0.0, 1.0)}
    assert PAIRS.decisions(history) == []


def test_a_best_inside_halves_the_window_about_it(line):
    assert PAIRS.window(after(line, [at(0.4, 1), at(0.9, 2)])) == {"x": pytest.approx((0.15, 0.65))}
    third = replace(PAIRS, shrink=0.2)
    assert third.window(after(line, [at(0.4, 1), at(0.9, 2)])) == {"x": pytest.approx((0.3, 0.5))}


def test_a_best_at_the_edge_moves_the_window_without_narrowing_it(line):
    first = [at(0.4, 1), at(0.9, 2)]
    low = after(line, first, [at(0.19, 0.5), at(0.5, 3)])
    assert PAIRS.window(low) == {"x": pytest.approx((0.0, 0.5))}
    high = after(line, first, [at(0.61, 0.5), at(0.5, 3)])
    assert PAIRS.window(high) == {"x": pytest.approx((0.36, 0.86))}
    (decision,) = PAIRS.decisions(high)
    assert (decision.kind, decision.subject, decision.batch) == ("zoom", "x", 1)
    assert decision.details["old"] == pytest.approx([0.15, 0.65])
    assert decision.details["new"] == pytest.approx([0.36, 0.86])
    assert decision.reason.startswith("best 0.61 lies at the edge of [0.15, 0.65]")


def test_the_edge_is_a_part_of_the_windows_width(line):
    history = after(line, [at(0.4, 1), at(0.9, 2)], [at(0.21, 0.5), at(0.5, 3)])
    assert PAIRS.window(history) == {"x": pytest.approx((0.085, 0.335))}
    wide = replace(PAIRS, edge=0.2)
    assert wide.window(history) == {"x": pytest.approx((0.0, 0.5))}


def test_a_best_at_the_end_of_the_space_is_narrowed_upon(line):
    history = after(line, [at(0.98, 1), at(0.5, 2)])
    assert PAIRS.window(history) == {"x": pytest.approx((0.5, 1.0))}
    assert "end of the space" in PAIRS.decisions(history)[0].reason


def test_hard_bounds_let_the_window_move_out_of_low_and_high():
    space = SearchSpace({"lr": Float(1e-3, 1e-1, log=True, hard_low=1e-6, hard_high=1.0)})
    history = after(space)
    assert all(1e-3 <= p["lr"] <= 1e-1 for p in CoarseToFine(trials_per_round=64).ask(history, 64))
    history = after(space, [at({"lr": 1.1e-3}, 1), at({"lr": 1e-2}, 2)])
    (decision,) = PAIRS.decisions(history)
    assert decision.details["old"] == pytest.approx([1e-3, 1e-1])
    assert decision.details["new"] == pytest.approx([1.1e-4, 1.1e-2])
    settled = after(space, *[[at({"lr": 1e-6}, 1), at({"lr": 1e-2}, 2)]] * 2)
    assert PAIRS.decisions(settled)[0].details["new"][0] == pytest.approx(1e-6)


def test_a_log_scale_narrows_in_orders_of_magnitude():
    space = SearchSpace({"lr": Float(1e-5, 1e-1, log=True)})
    (decision,) = PAIRS.decisions(after(space, [at({"lr": 1e-3}, 1), at({"lr": 1e-1}, 2)]))
    assert decision.details["new"] == pytest.approx([1e-4, 1e-2])


def test_the_best_is_that_of_all_rounds_and_the_first_of_equals(line):
    first = [at(0.4, 1), at(0.9, 2)]
    worse = after(line, first, [at(0.3, 1.5), at(0.6, 1)])
    assert PAIRS.window(worse) == {"x": pytest.approx((0.275, 0.525))}


def test_the_larger_value_is_best_where_the_metric_is_maximised(line):
    history = after(line, [at(0.4, 1), at(0.6, 2)], direction=Direction.MAXIMIZE)
    assert PAIRS.window(history) == {"x": pytest.approx((0.35, 0.85))}


def test_diverged_trials_are_never_best_and_a_diverged_round_keeps_the_windows(line):
    assert PAIRS.window(after(line, [lost(0.9), at(0.4, 9e9)])) == {"x": pytest.approx((0.15, 0.65))}
    history = after(line, [at(0.4, 1), at(0.9, 2)], [lost(0.2), lost(0.3, State.FAILED)])
    assert PAIRS.window(history) == {"x": pytest.approx((0.15, 0.65))}
    (decision,) = PAIRS.decisions(history)
    assert decision.details["old"] == decision.details["new"]
    assert "no trial of the round has a value" in decision.reason
    again = PAIRS.ask(history, 2)
    assert again != PAIRS.ask(after(line, [at(0.4, 1), at(0.9, 2)]), 2), "a kept window is drawn from afresh"


def test_a_baseline_in_the_space_counts_for_the_best(line):
    base = at(0.7, 0.1, baseline=True)
    far = at(7.0, 0.0, baseline=True)
    history = after(line, [at(0.4, 1), at(0.9, 2)], baselines=(base, far))
    assert PAIRS.window(history) == {"x": pytest.approx((0.45, 0.95))}


def test_categoricals_keep_all_their_choices():
    space = SearchSpace({"x": Float(0, 1), "c": Categorical(("a", "b"))})
    history = after(space, *[[at({"x": 0.5, "c": "a"}, 1), at({"x": 0.9, "c": "b"}, 2)]] * 3)
    assert list(PAIRS.window(history)) == ["x"]
    assert [d.subject for d in PAIRS.decisions(history)] == ["x"]
    strategy = CoarseToFine(trials_per_round=8)
    assert {t.params["c"] for t in drive(strategy, space, 40)[32:]} == {"a", "b"}


def test_it_is_over_after_its_rounds_or_when_every_window_is_narrow(line):
    strategy = CoarseToFine(trials_per_round=2, rounds=3)
    assert len(drive(strategy, line, 100)) == strategy.size(line) == 6
    free = CoarseToFine(trials_per_round=2, min_width=0.2)
    rounds = [[at(0.5, 1), at(0.9, 2)]]
    assert len(free.ask(after(line, *rounds * 2), 2)) == 2
    assert free.ask(after(line, *rounds * 3), 2) == [], "0.125 of the first width"
    assert free.size(line) is None
    assert len(drive(CoarseToFine(trials_per_round=8), CHOICES, 200)) == 200, "nothing to narrow, no end"


def test_a_window_of_whole_numbers_ends_at_one_of_them():
    space = SearchSpace({"n": Int(1, 9)})
    chosen = [[at({"n": 4}, 1), at({"n": 9}, 2)]]
    shown = [PAIRS.decisions(after(space, *chosen * k))[0].details["new"] for k in range(1, 6)]
    assert shown[0] == [2, 6]
    assert shown[-1] == [4, 4]
    assert PAIRS.ask(after(space, *chosen * 6), 2) == []


@pytest.mark.parametrize("number", [Int(1, 1000, log=True), Int(0, 40, step=4), Float(0.0, 1.0, step=0.1), Int(1, 2)])
def test_whole_numbers_and_steps_settle_and_end(number):
    space = SearchSpace({"n": number})
    best = number.from_unit(0.62)

    def outcome(space, params):
        return at(dict(params), abs(space.to_unit(params)[0] - space.to_unit({"n": best})[0]))

    trials = drive(CoarseToFine(trials_per_round=8), space, 400, outcome=outcome)
    assert len(trials) < 400
    assert trials[-1].value <= 0.01, "the last window is at most min_width wide, or one value"


def test_steps_stay_on_their_lattice_beyond_low_and_high():
    space = SearchSpace({"p": Float(0.1, 0.5, step=0.2, hard_low=-1.0, hard_high=1.0)})
    outcome = lambda space, params: at(dict(params), params["p"])  # noqa: E731
    trials = drive(CoarseToFine(trials_per_round=8), space, 64, outcome=outcome)
    assert all(space.contains(t.params) for t in trials)
    assert min(t.params["p"] for t in trials) == -0.9


def test_a_round_on_a_grid_covers_its_window_cell_by_cell():
    space = SearchSpace({"x": Float(0, 1), "y": Float(0, 1), "c": Categorical(("a", "b"))})
    strategy = CoarseToFine(trials_per_round=18, points="grid")
    drawn = strategy.ask(after(space), 18)
    assert sorted({round(p["x"], 6) for p in drawn}) == [0.166667, 0.5, 0.833333]
    assert len({tuple(p.values()) for p in drawn}) == 18
    uneven = CoarseToFine(trials_per_round=11, points="grid").ask(after(space), 11)
    assert len({tuple(p.values()) for p in uneven}) == 11


def test_decisions_can_be_written_down_also_for_whole_numbers():
    space = SearchSpace({"n": Int(1, 64, log=True), "lr": Float(1e-4, 1, log=True)})
    history = after(space, [at({"n": 8, "lr": 1e-2}, 1), at({"n": 64, "lr": 1.0}, 2)])
    for decision in PAIRS.decisions(history):
        assert json.loads(json.dumps(dict(decision.details))) == decision.details


def test_options_out_of_range_are_named_all_at_once(line):
    wrong = CoarseToFine(rounds=0, trials_per_round=0, shrink=1.0, edge=0.5, min_width=0.0, points="halton")
    fields = [p.field for p in wrong.problems(line)]
    assert fields == [f"strategy.{o}" for o in ("rounds", "trials_per_round", "shrink", "edge", "min_width", "points")]


def test_it_finds_a_smooth_optimum_closer_than_random_search():
    space = SearchSpace({"x": Float(0, 1), "y": Float(0, 1)})

    def outcome(space, params):
        return at(dict(params), (params["x"] - 0.3) ** 2 + 2 * (params["y"] - 0.8) ** 2)

    def best(strategy, seed):
        return min(t.value for t in drive(strategy, space, 40, outcome=outcome, seed=seed))

    typical = median(best(Random(), seed) for seed in range(9))
    assert all(best(CoarseToFine(trials_per_round=8), seed) < typical / 3 for seed in range(9))
