import math

import numpy as np
import pytest

from hpsearch.race import judge, schedule
from hpsearch.trial import Direction

DOWN, UP = Direction.MINIMIZE, Direction.MAXIMIZE
RNG = np.random.default_rng(2)
SEEDS = RNG.normal(size=16)


def runs(mean, n=16, noise=0.2, first=0):
    return {first + k: float(mean + SEEDS[k] + noise * x) for k, x in enumerate(RNG.normal(size=n))}


def look(values, direction=DOWN, **said):
    return judge(values, direction, **({"contenders": len(values), "look": 1, "looks": 4, "max_seeds": 16} | said))


def test_looks_are_spread_over_the_seeds():
    assert schedule() == (8, 12, 16)
    assert schedule(8, 20) == (8, 12, 16, 20)
    assert schedule(8, 6) == schedule(6, 6) == (6,)
    assert schedule(4, 9) == (4, 6, 8, 9)
    assert schedule(1, 4) == (1, 3, 4)


@pytest.mark.parametrize("direction", Direction)
def test_who_is_far_behind_is_dropped_with_numbers(direction):
    sign = 1 if direction is DOWN else -1
    found = look({"a": runs(0, 6), "b": runs(5 * sign, 6), "c": runs(0.1 * sign, 6)}, direction)
    assert (found.leader in "ac", found.drop) == (True, ("b",))
    b = found.standings["b"]
    assert 4 < b.behind < 6
    assert 0 < b.low < b.behind < b.high
    assert b.p <= b.threshold
    assert b.words.startswith(f"worse than {found.leader} by ")
    assert found.standings[found.leader].words == "leads"


def test_nobody_is_dropped_on_fewer_seeds_than_an_exact_test_needs():
    found = look({"a": runs(0, 5), "b": runs(50, 5)})
    assert (found.drop, found.over, found.winner) == ((), False, None)
    assert found.words == "2 are left after 5 seeds"


def test_a_winner_ends_it():
    found = look({"a": runs(0, 9), "b": runs(9, 9)}, look=2)
    assert (found.over, found.winner, found.words, found.ties) == (True, "a", "a wins", ())
    assert look({"a": runs(0, 6)}, contenders=5).words == "a is alone"


def test_a_tie_is_told_when_more_seeds_are_not_worth_it():
    tied = runs(0, 6)
    found = look({"a": tied, "b": {s: v + 1e-3 * (-1) ** s for s, v in tied.items()}, "c": dict(tied)})
    assert (found.over, found.winner, set(found.ties)) == (True, None, {"a", "b", "c"})
    assert found.words.startswith("no difference worth more seeds: ")
    assert found.words.endswith(" tie; take the cheapest")
    close = {"a": runs(0, 6), "b": runs(0.25, 6)}
    assert not look(close).over
    assert look(close, look=4).over


def test_who_diverged_is_out_whatever_its_other_values():
    lucky = runs(-50, 3) | {2: math.nan}
    found = look({"a": runs(0, 3), "b": lucky, "c": runs(0, 3)})
    assert found.drop == ("b",)
    assert found.leader in "ac"
    assert found.standings["b"].words == "diverged on seed 2"
    assert found.standings["b"].value.diverged == 1
    none = look({"a": {0: math.inf}, "b": {0: math.nan}}, UP)
    assert (none.over, none.winner, none.leader, none.drop) == (True, None, None, ("a", "b"))
    assert none.words == "all diverged on new seeds: there is no winner"


def test_seeds_that_one_lacks_are_left_out():
    a, b = runs(0, 9), runs(5, 9)
    del b[3], a[5]
    found = look({"a": a, "b": b}, look=2)
    assert found.standings["b"].n == 7
    assert found.drop == ("b",)
    empty = look({"a": a, "b": {}}, look=2)
    assert (empty.drop, empty.standings["b"].words) == ((), "has no seed yet")


def test_values_of_any_size_race():
    for scale in (1e-300, 1e300):
        values = {name: {s: v * scale for s, v in runs(mean, 9).items()} for name, mean in [("a", 0), ("b", 8)]}
        assert look(values, look=2).winner == "a"


def test_a_race_is_what_it_says():
    with pytest.raises(ValueError, match="3 of 2 contenders"):
        look({"a": {}, "b": {}, "c": {}}, contenders=2)
    with pytest.raises(ValueError, match="look 5 of 4"):
        look({"a": {}}, look=5)
