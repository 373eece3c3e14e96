import math
from itertools import combinations, product
from statistics import fmean

import numpy as np
import pytest

from hpsearch.gain import ahead, ahead_of, area, best_so_far, expected_best, more_trials, repeated, resampled
from hpsearch.trial import Direction

DOWN, UP = Direction.MINIMIZE, Direction.MAXIMIZE


def test_best_so_far_skips_what_has_no_value():
    values = [None, math.inf, 3.0, math.nan, 5.0, 1.0]
    assert best_so_far(values, DOWN) == (None, None, 3.0, 3.0, 3.0, 1.0)
    assert best_so_far(values, UP) == (None, None, 3.0, 3.0, 5.0, 5.0)
    assert area(best_so_far(values, DOWN), 6) == pytest.approx((5 * 3 + 1) / 6)
    assert area([None, None], 2) is None


@pytest.mark.parametrize("direction", Direction)
def test_resampling_is_all_draws_counted(direction):
    a, b = [3.0, 1.0, 4.0, 1.5], [2.0, 1.0, 5.0]
    best = min if direction is DOWN else max
    pairs = [(best(x), best(y)) for x in product(a, repeat=3) for y in product(b, repeat=3)]
    counted = fmean(0.5 if x == y else direction.better(x, y) for x, y in pairs)
    assert ahead(a, b, direction, 3) == pytest.approx(counted)
    assert ahead(b, a, direction, 3) == pytest.approx(1 - counted)
    drawn = sorted((best(x) for x in product(a, repeat=2)), reverse=direction is UP)
    band = resampled(a, direction)
    assert band.better[1] == drawn[math.ceil(0.1 * 16) - 1]
    assert band.middle[1] == drawn[math.ceil(0.5 * 16) - 1]
    assert band.worse[1] == drawn[math.ceil(0.9 * 16) - 1]
    assert band.method == "resampled"


def test_repetitions_make_a_band_of_their_own():
    curves = [[3.0, 1.0], [4.0, 2.0], [None, 3.0], [5.0, 3.0, 0.0]]
    band = repeated(curves, DOWN)
    assert (band.better, band.worse, band.method) == ((3.0, 1.0), (math.inf, 3.0), "repetitions")
    assert ahead_of([1.0, 2.0], [2.0, 3.0], DOWN) == pytest.approx(3.5 / 4)


def test_the_expected_best_is_the_mean_over_all_choices():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    for m in range(1, 6):
        assert expected_best(values, DOWN, m) == pytest.approx(fmean(min(x) for x in combinations(values, m)))
        assert expected_best(values, UP, m) == pytest.approx(fmean(max(x) for x in combinations(values, m)))


def test_what_more_trials_bring_is_near_what_they_bring():
    """Losses of a smooth bowl in three parameters: 64 trials, then 64 more, a thousand times."""
    draws = (np.random.default_rng(3).uniform(-1, 1, (1000, 128, 3)) ** 2).sum(-1)
    real = (draws[:, :64].min(-1) - draws.min(-1)).mean()
    told = [more_trials(row[:64].tolist(), DOWN, 64, 0.1).expected for row in draws]
    assert real < np.mean(told) < 2.5 * real
    found = more_trials(draws[0, :64].tolist(), DOWN, 64, 0.1)
    assert found.words.endswith("more seeds, not more trials, would help")
    assert more_trials(draws[0, :64].tolist(), DOWN, 64, 1e-9).words.endswith("the search is not at its end")
    assert more_trials([1.0] * 7 + [None], DOWN, 8, None) is None
    assert more_trials([1.0] * 8, UP, 8, None).expected == 0
