import math
from dataclasses import replace
from itertools import combinations, product
from statistics import fmean

import numpy as np
import pytest

from hpsearch.gain import ahead, ahead_of, area, best_so_far, expected_best, more_trials, repeated, resampled
from hpsearch.trial import Direction, State, Trial

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


def made(values, sd=None, **more):
    """Trials of these values; None: it diverged."""
    states = {True: State.DIVERGED, False: State.COMPLETE}
    return [Trial(number=k, params={}, value=v, sd=sd, state=states[v is None], **more) for k, v in enumerate(values)]


def test_what_more_trials_bring_is_near_what_they_bring():
    """Losses of a smooth bowl in three parameters: 64 trials, then 64 more, a thousand times."""
    draws = (np.random.default_rng(3).uniform(-1, 1, (1000, 128, 3)) ** 2).sum(-1)
    real = (draws[:, :64].min(-1) - draws.min(-1)).mean()
    told = [more_trials(made(row[:64].tolist()), DOWN, independent=True).expected for row in draws]
    assert real < np.mean(told) < 2.5 * real


def test_the_gain_of_as_many_again_is_that_of_the_last_doubling():
    values = [5.0, 3.0, 8.0, 1.0, 9.0, 2.0, 7.0, 4.0]
    trials = [replace(t, sd=0.5 + t.number) for t in made(values)]
    found = more_trials(trials, DOWN, independent=True)
    assert found.expected == pytest.approx(fmean(min(half) for half in combinations(values, 4)) - 1.0)
    assert (found.trials, found.more, found.any_order, found.noise) == (8, 8, True, 4.5)
    assert more_trials(trials, DOWN, independent=False).expected == 0.0
    up = more_trials(trials, UP, independent=False)
    assert (up.expected, up.any_order) == (pytest.approx(1.0), False)
    assert 0 < more_trials(trials, DOWN, independent=True, more=2).expected < found.expected


def test_more_trials_are_held_against_the_noise():
    values = [5.0, 3.0, 8.0, 1.0, 9.0, 2.0, 7.0, 4.0]
    loud = more_trials(made(values, sd=3.0), DOWN, independent=True)
    assert loud.words.endswith("no more than the 3 by which a trial's seeds differ (one sd): more seeds, not more "
                               "trials, would help.")  # fmt: skip
    quiet = more_trials(made(values, sd=0.01), DOWN, independent=True)
    assert quiet.words.endswith("It is more than the 0.01 by which a trial's seeds differ (one sd): search on.")
    assert "With one seed nobody knows" in more_trials(made(values), DOWN, independent=True).words
    assert "in the order they were tried" in more_trials(made(values), DOWN, independent=False).words


def test_nothing_is_said_of_more_trials_after_too_few():
    values = [1.0, 2.0, *[None] * 6]
    assert more_trials(made(values), DOWN, independent=True).expected > 0
    assert more_trials(made(values[1:]), DOWN, independent=True) is None
    assert more_trials(made([1.0] + [None] * 7), DOWN, independent=True) is None
    assert more_trials(made(values[::-1]), DOWN, independent=False) is None
    assert more_trials(made([1.0] * 8, baseline=True), DOWN, independent=True) is None
    assert more_trials(made([0.1] * 11), UP, independent=True).expected == 0
