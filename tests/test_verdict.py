import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hpsearch.trial import Direction
from hpsearch.verdict import min_seeds, optimism, paired, pairs, seeds_needed, spread

DOWN, UP = Direction.MINIMIZE, Direction.MAXIMIZE
RNG = np.random.default_rng(5)
BASE = RNG.normal(size=40)


def seeded(values):
    return dict(enumerate(map(float, values)))


A = seeded(0.060 + 0.01 * BASE[:8] + 0.001 * RNG.normal(size=8))
B = seeded(0.063 + 0.01 * BASE[:8] + 0.001 * RNG.normal(size=8))


def test_a_spread_is_scipys():
    values = list(A.values())
    found = spread(values)
    low, high = stats.t.interval(0.95, 7, statistics.fmean(values), stats.sem(values))
    assert (found.mean, found.sd) == pytest.approx((statistics.fmean(values), statistics.stdev(values)))
    assert (found.low, found.high, found.n, found.method) == (pytest.approx(low), pytest.approx(high), 8, "t")
    boot = spread(values, method="bootstrap")
    assert boot == spread(values, method="bootstrap")
    assert boot.method == "bootstrap"
    assert found.low < boot.low < boot.mean < boot.high < found.high


def test_one_value_has_no_spread_and_a_diverged_one_no_mean():
    one = spread([2.0])
    assert (one.mean, one.sd, one.low, one.n, one.method) == (2.0, None, None, 1, "")
    lost = spread([2.0, math.inf, math.nan])
    assert (lost.mean, lost.low, lost.n, lost.diverged) == (None, None, 3, 2)
    assert spread([]).n == 0
    same = spread([2.0] * 5, method="bootstrap")
    assert (same.sd, same.low, same.high) == (0.0, 2.0, 2.0)


def test_a_pair_is_scipys_paired_t_test():
    found = paired(A, B, DOWN, names=("#1", "#2"))
    ours, theirs = list(A.values()), list(B.values())
    expected = stats.ttest_rel(theirs, ours)
    interval = expected.confidence_interval(0.95)
    # The smallest step among eight differences is counted as their rounding error: a little on the safe side.
    assert expected.pvalue <= found.p == pytest.approx(expected.pvalue, rel=0.1)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.02)
    differences = [b - a for a, b in zip(ours, theirs, strict=True)]
    assert found.difference == pytest.approx(statistics.fmean(differences))
    assert found.effect == pytest.approx(statistics.fmean(differences) / statistics.stdev(differences))
    assert (found.n, found.wins, found.min_p) == (8, 8, 2 / 2**8)
    assert (found.beats, found.beaten) == (True, False)
    assert found.words == f"#1 beats #2 by {found.low:.3g} to {found.high:.3g}"


def test_the_other_way_round_it_is_beaten():
    found, turned = paired(B, A, DOWN), paired(A, B, UP)
    assert found.beaten
    assert not found.beats
    assert turned.beaten
    assert found.words == f"B beats A by {-found.high:.3g} to {-found.low:.3g}"
    assert turned.difference == found.difference == -paired(A, B, DOWN).difference


def test_pairing_takes_out_what_seeds_do_to_both():
    """The seeds' own deviation is three times the gap: unpaired, nothing would be seen."""
    assert stats.ttest_ind(list(A.values()), list(B.values())).pvalue > 0.4
    assert paired(A, B, DOWN).p < 0.002


def test_few_seeds_show_nothing_however_clear():
    few = {s: A[s] for s in range(5)}
    found = paired(few, B, DOWN)
    assert not found.beats
    assert found.p < 0.05
    assert found.words.startswith(
        "not shown: 5 seeds can show nothing (an exact p is at least 0.062); about 1 more seed"
    )
    assert paired({0: 1.0}, {0: 2.0}, DOWN).words.startswith("not shown: 1 seed can show nothing; about 5 more seeds")
    assert paired({0: 1.0}, {1: 2.0}, DOWN).words == "not shown: no seed in common"
    assert [min_seeds(alpha) for alpha in (0.5, 0.05, 0.01)] == [2, 6, 8]


def test_alike_is_never_equal():
    found = paired(A, A, DOWN)
    assert (found.difference, found.p, found.effect, found.ties) == (0.0, 1.0, None, 8)
    assert found.words == "not shown: alike on all 8 seeds"
    rounded = {seed: value * (1 + 1e-9) for seed, value in A.items()}
    assert paired(A, rounded, DOWN).words == found.words


def test_a_deterministic_objective_is_shown_once_there_are_seeds():
    assert paired(seeded([0.1] * 6), seeded([0.2] * 6), DOWN).beats
    assert not paired(seeded([0.1] * 5), seeded([0.2] * 5), DOWN).beats


def test_a_run_that_diverged_is_worse_than_any():
    lost = {seed: (math.nan if seed else value) for seed, value in A.items()}
    for direction, sick in [(DOWN, lost), (UP, lost), (DOWN, seeded([math.inf] * 8))]:
        found = paired(A, sick, direction, names=("#1", "#2"))
        assert (found.method, found.difference, found.low) == ("sign", None, None)
        assert found.beats
        assert "#2 diverged on" in found.words
    once = paired(A, A | {0: math.nan}, DOWN)
    assert (once.beats, once.diverged) == (False, (0, 1))
    assert once.p == 1.0
    both = paired(lost, lost, DOWN)
    assert (both.p, both.beats, both.ties) == (1.0, False, 8)


@pytest.mark.parametrize("seed", range(5))
def test_corrected_ps_and_who_beats_are_statsmodels_holm(seed):
    from statsmodels.stats.multitest import multipletests

    source = np.random.default_rng(seed)
    common = source.normal(size=8)
    values = {name: seeded(k * 0.4 + common + 0.4 * source.normal(size=8)) for k, name in enumerate("abcd")}
    alone = [paired(values[pair.a], values[pair.b], DOWN, names=(pair.a, pair.b)) for pair in pairs(values, DOWN)]
    rejected, corrected, *_ = multipletests([pair.p for pair in alone], alpha=0.05, method="holm")
    found = pairs(values, DOWN, alpha=0.05)
    assert [pair.corrected for pair in found] == pytest.approx(list(corrected))
    assert [pair.corrected <= 0.05 for pair in found] == list(rejected)
    assert 0 < sum(rejected) < len(found)


def test_the_seeds_that_would_settle_it_are_statsmodels():
    from statsmodels.stats.power import TTestPower

    for effect, alpha in [(0.5, 0.05), (0.3, 0.01), (1.2, 0.05 / 36)]:
        expected = TTestPower().solve_power(effect_size=effect, alpha=alpha, power=0.8)
        assert seeds_needed(effect, alpha) == math.ceil(expected)
    assert [seeds_needed(effect, 0.05) for effect in (0, 0.05, 1e9)] == [None, None, 3]
    near = paired(seeded(BASE[:10]), seeded(0.4 + BASE[10:20]), DOWN)
    assert not near.beats
    if near.seeds_needed:
        assert near.words == f"not shown; about {near.seeds_needed - 10} more seeds would settle it"
        assert near.more == near.seeds_needed - 10
    assert paired(seeded([0.1, 0.3]), seeded([0.2, 0.4]), DOWN).more == 4
    assert [found.more for found in (paired(A, A, DOWN), paired({0: 1.0}, {1: 1.0}, DOWN))] == [None, None]


def test_several_are_corrected_together():
    many = {name: seeded(BASE[k : k + 10]) for k, name in enumerate("abcd")} | {"best": seeded(BASE[:10] - 9)}
    found = pairs(many, DOWN)
    assert len(found) == 10
    ps, corrected = [pair.p for pair in found], [pair.corrected for pair in found]
    by_hand, highest = {}, 0.0
    for rank, k in enumerate(sorted(range(10), key=ps.__getitem__)):
        highest = by_hand[k] = max(highest, min(1.0, ps[k] * (10 - rank)))
    assert corrected == pytest.approx([by_hand[k] for k in range(10)])
    for pair in found:
        assert (pair.beats or pair.beaten) == (pair.low > 0 or pair.high < 0) == (pair.corrected <= 0.05)
        assert ("best" in (pair.a, pair.b)) == pair.beaten
    assert pairs({"a": A}, DOWN) == ()
    assert paired(A, B, DOWN, comparisons=10).corrected == pytest.approx(10 * paired(A, B, DOWN).p)


def test_the_best_of_many_is_optimistic():
    found = optimism(0.042, [0.045, 0.047, 0.046], DOWN)
    assert found.by == pytest.approx(0.004)
    assert found.words == "0.042 in the search, 0.046 on 3 fresh seeds: 0.004 worse than the search said"
    assert optimism(0.9, [0.92], UP).by == pytest.approx(-0.02)
    assert optimism(0.9, [], UP).words == "0.9 in the search; no fresh seed yet"
    assert optimism(0.9, [math.nan, 1.0], UP).by is None


number = st.floats(allow_nan=True, allow_infinity=True, width=64)
runs = st.dictionaries(st.integers(0, 12), number, max_size=12)


@settings(max_examples=150, deadline=None)
@given(runs, runs, st.sampled_from(Direction))
def test_whatever_the_values_a_pair_has_an_answer(a, b, direction):
    found, turned = paired(a, b, direction), paired(b, a, direction)
    assert found.words
    assert (found.beats, found.beaten) == (turned.beaten, turned.beats)
    assert found.p is None or 0 <= found.p <= 1
    assert not (found.beats and found.beaten)
    assert not any(name in found.words for name in ("nan", "equal"))
