"""Whether one trial beats another, how sure that is, and how many seeds would settle it: values by seed in, words out.

``docs/verdict.md`` has the methods, their sources and what they assume. In short:

- Trials are compared by their differences on **common seeds**: a t-test on them, and the interval that belongs to it.
- Nothing is said to beat anything on fewer seeds than an exact test would need (``min_seeds``): 6 at alpha 0.05.
- A seed that one side lacks (a failed run) is left out. **A diverged run** (its value is not finite) **is worse than
  any**: there is no mean, so such a pair is decided by a sign test, and a race drops who diverged.
- Numbers come in steps (float32 at the finest, 1/360 for an accuracy on 360 images). The smallest step among the
  differences is taken as their rounding error, so that equal differences of a coarse metric are not infinitely sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from hpsearch.trial import Direction

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: what a number of seeds that "would settle it" promises: the chance to show a difference of the size seen
POWER = 0.8
#: beyond this many seeds nobody is told a number
MOST_SEEDS = 1000
#: two values nearer than this, relative to the larger, are one, as in float32
NEAR = 2.0**-23


@final
@dataclass(frozen=True, kw_only=True)
class Spread:
    """A value over seeds, with the interval for its mean."""

    #: None without values, and where a run diverged: then there is no mean
    mean: float | None
    #: of a sample (n - 1); None below two values
    sd: float | None
    #: values, diverged ones among them
    n: int
    #: the interval; None below two values
    low: float | None
    high: float | None
    confidence: float
    #: how the interval was made; empty where there is none
    method: Literal["t", "bootstrap", ""]
    #: how many were not finite
    diverged: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Paired:
    """Trial a against trial b on their common seeds. Differences are positive where a is better."""

    a: str
    b: str
    #: common seeds
    n: int
    #: mean difference; None without a common seed, or where a run diverged
    difference: float | None
    #: of the differences; None below two
    sd: float | None
    #: the interval for the mean difference, at ``confidence``; None below two seeds
    low: float | None
    high: float | None
    #: 1 - alpha for one comparison; nearer to 1 where it is one of several
    confidence: float
    #: two-sided; None below two seeds
    p: float | None
    #: p corrected for all comparisons (Holm, or Bonferroni for ``paired`` alone), to be held against alpha
    corrected: float | None
    #: the least two-sided p that an exact test (of flipped signs) can give on so many seeds
    min_p: float
    #: Cohen's d_z: mean difference / sd of the differences; None where the sd is none or zero
    effect: float | None
    #: seeds on which a is better; on which they are alike
    wins: int
    ties: int
    #: seeds on which a, b diverged
    diverged: tuple[int, int]
    #: seeds in all that would show a difference of the size seen with probability 0.8; None: above 1000, or unknown
    seeds_needed: int | None
    #: seeds to come that would, or could, settle it; None: it is shown, or nobody knows
    more: int | None
    #: ``t``, ``sign`` (a run diverged) or empty (too little to test)
    method: Literal["t", "sign", ""]
    #: shown, at alpha after correction
    beats: bool
    beaten: bool
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class Optimism:
    """The value by which a trial was chosen, against its value on fresh seeds."""

    searched: float
    fresh: Spread
    #: how much better the search's value looked; None where a fresh run diverged
    by: float | None
    words: str


def spread(values: Sequence[float], *, confidence: float = 0.95, method: Literal["t", "bootstrap"] = "t") -> Spread:
    """Mean, deviation and the interval for the mean.

    ``t`` assumes that the mean is about normal (Student 1908). ``bootstrap`` does not (BCa, Efron 1987; 9999 resamples,
    always the same ones), but is too narrow below about ten values.
    """
    n, diverged = len(values), sum(not math.isfinite(value) for value in values)
    if not n or diverged:
        return Spread(mean=None, sd=None, n=n, low=None, high=None, confidence=confidence, method="", diverged=diverged)
    scale = scale_of(values)
    x = np.asarray(values, float) / scale
    mean = float(x.mean())
    sd = float(x.std(ddof=1)) if n > 1 else None
    by_t = by_moments(mean * scale, None if sd is None else sd * scale, n, confidence=confidence)
    if method == "t" or not sd:
        return by_t
    from scipy import stats

    rng = np.random.default_rng(0)
    found = stats.bootstrap((x,), np.mean, confidence_level=confidence, rng=rng).confidence_interval
    return replace(by_t, low=float(found.low) * scale, high=float(found.high) * scale, method="bootstrap")


def by_moments(mean: float, sd: float | None, n: int, *, confidence: float = 0.95) -> Spread:
    """A spread with its t interval, of n values of which only the mean and the deviation are known."""
    if sd is None or n < 2:
        return Spread(mean=mean, sd=None, n=n, low=None, high=None, confidence=confidence, method="")
    half = quantile(1 - confidence, n - 1) * sd / math.sqrt(n)
    return Spread(mean=mean, sd=sd, n=n, low=mean - half, high=mean + half, confidence=confidence, method="t")


def min_seeds(alpha: float) -> int:
    """Common seeds below which an exact test cannot reach alpha (2 / 2**n), and nothing beats anything: 6 at 0.05."""
    return max(2, math.ceil(math.log2(2 / alpha)))


def paired(
    a: Mapping[int, float],
    b: Mapping[int, float],
    direction: Direction,
    *,
    alpha: float = 0.05,
    comparisons: int = 1,
    names: tuple[str, str] = ("A", "B"),
) -> Paired:
    """Trial a against trial b: seed -> value of each; NaN or an infinity for a run that diverged.

    Args:
        alpha: how often "beats" may be said of two that are alike.
        comparisons: how many are made in all; p is corrected by Bonferroni. ``pairs`` is sharper.
    """
    found = _facts(a, b, direction, names)
    corrected = None if found.p is None else min(1.0, found.p * comparisons)
    return _finish(found, corrected, alpha, alpha / comparisons)


def pairs(
    values: Mapping[str, Mapping[int, float]], direction: Direction, *, alpha: float = 0.05
) -> tuple[Paired, ...]:
    """All pairs of these trials (name -> seed -> value), corrected together (Holm 1979).

    "Beats" is said anywhere among trials that are alike with a probability of at most alpha. An interval belongs to its
    step of Holm's test: it excludes zero where "beats" is said.
    """
    found = [_facts(values[a], values[b], direction, (a, b)) for a, b in combinations(values, 2)]
    if not found:
        return ()
    ps = np.array([1.0 if pair.p is None else pair.p for pair in found])
    corrected, ranks = holm(ps)
    rejected = int((corrected <= alpha).sum())
    steps = [len(found) - min(int(rank), rejected) for rank in ranks]
    return tuple(
        _finish(pair, None if pair.p is None else float(p), alpha, alpha / max(1, step))
        for pair, p, step in zip(found, corrected, steps, strict=True)
    )


def holm(ps: Array) -> tuple[Array, NDArray[np.intp]]:
    """p (..., tests) corrected together along the last axis (Holm 1979), and the rank of each, from 0."""
    ranks = np.argsort(np.argsort(ps, axis=-1, kind="stable"), axis=-1, kind="stable")
    ordered = np.sort(ps, axis=-1) * np.arange(ps.shape[-1], 0, -1)
    corrected = np.minimum(np.maximum.accumulate(ordered, axis=-1), 1.0)
    return np.take_along_axis(corrected, ranks, -1), ranks


def optimism(searched: float, fresh: Sequence[float], direction: Direction) -> Optimism:
    """How much of a search's best value was luck.

    The best of many noisy values is better than what it stands for; on new seeds it has not been chosen.
    """
    now = spread(fresh)
    if now.mean is None:
        what = f"{now.diverged} of {now.n} fresh runs diverged" if now.n else "no fresh seed yet"
        return Optimism(searched=searched, fresh=now, by=None, words=f"{figure(searched)} in the search; {what}")
    by = direction.sign * (now.mean - searched)
    how = f"{figure(abs(by))} {'worse' if by > 0 else 'better'} than the search said" if by else "as the search said"
    words = f"{figure(searched)} in the search, {figure(now.mean)} on {_seeds(now.n, 'fresh ')}: {how}"
    return Optimism(searched=searched, fresh=now, by=by, words=words)


def seeds_needed(effect: float, alpha: float, *, power: float = POWER, least: int = 2) -> int | None:
    """Common seeds with which a paired t-test shows an effect of this size (Cohen's d_z), two-sided; None above 1000.

    From the noncentral t distribution (as statsmodels' ``TTestPower``), and no fewer than ``least``. Shown is meant in
    the right direction; the other tail, all but nothing, can come out as NaN.
    """
    from scipy.special import nctdtr

    effect = min(abs(effect), 10.0)

    def enough(n: int) -> bool:
        # one seed has no spread, and shows nothing
        return n > 1 and bool(1 - nctdtr(n - 1, effect * math.sqrt(n), quantile(alpha, n - 1)) >= power)

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(high, least) if high <= MOST_SEEDS else None


def t_test(differences: Array) -> tuple[Array, Array, Array, Array]:
    """(n, mean, sd, two-sided p) of differences (..., seeds) against zero; NaN where a seed is missing.

    The sd has the rounding error of the differences in it, so it is above zero unless all of them are zero; then, and
    below two seeds, p is 1.
    """
    from scipy.special import stdtr

    there = ~np.isnan(differences)
    n = there.sum(-1).astype(float)
    x = np.where(there, differences, 0.0)
    mean = x.sum(-1) / np.maximum(n, 1)
    squares = (np.where(there, x - mean[..., None], 0.0) ** 2).sum(-1)
    # two numbers, each rounded to a step, are off by step**2 / 12 each (Sheppard 1898)
    sd = np.sqrt(squares / np.maximum(n - 1, 1) + _step(x) ** 2 / 6)
    t = np.divide(mean, sd / np.sqrt(np.maximum(n, 1)), out=np.zeros_like(mean), where=sd > 0)
    p = np.where(n > 1, 2 * stdtr(np.maximum(n - 1, 1), -np.abs(t)), 1.0)
    return n, mean, sd, p


def _step(differences: Array) -> Array:
    """The smallest step between any two of them, or of one and zero."""
    zero = np.zeros((*differences.shape[:-1], 1))
    ordered = np.sort(np.concatenate([differences, zero], -1), -1)
    gaps = np.diff(ordered, axis=-1)
    least = NEAR * np.abs(ordered).max(-1)
    smallest = np.where(gaps > least[..., None], gaps, np.inf).min(-1)
    steps: Array = np.where(np.isfinite(smallest), smallest, least)
    return steps


def difference(a: Array, b: Array) -> Array:
    """a - b of values over their ``scale_of``; zero where float32 would not tell them apart."""
    found = a - b
    near = np.maximum(NEAR * np.maximum(np.abs(a), np.abs(b)), 1e-140)  # whose square is still a number
    return np.where((np.abs(found) <= near) & np.isfinite(found), 0.0, found)


def quantile(alpha: float, df: float) -> float:
    """Of Student's t: what a two-sided test at alpha asks for."""
    from scipy.special import stdtrit  # not scipy.stats, which is 45 MB of a server that shows intervals

    return float(-stdtrit(df, alpha / 2))


@final
@dataclass(frozen=True, kw_only=True)
class _Facts:
    """A pair before anything is corrected; lengths in ``scale``."""

    names: tuple[str, str]
    n: int
    scale: float
    #: None where a run diverged, or without a common seed
    mean: float | None
    #: of the differences, as it is, and with their rounding error
    sd: float | None
    sd_rounded: float
    p: float | None
    min_p: float
    wins: int
    losses: int
    diverged: tuple[int, int]
    method: Literal["t", "sign", ""]


def _facts(a: Mapping[int, float], b: Mapping[int, float], direction: Direction, names: tuple[str, str]) -> _Facts:
    seeds = sorted(a.keys() & b.keys())
    n, min_p = len(seeds), min(1.0, 2.0 ** (1 - len(seeds)))
    worst = direction.worst
    ours, theirs = ([value if math.isfinite(value) else worst for value in (x[s] for s in seeds)] for x in (a, b))
    diverged = (sum(map(math.isinf, ours)), sum(map(math.isinf, theirs)))
    scale = scale_of([*ours, *theirs])
    x, y = (np.array(side, float) / scale for side in (ours, theirs))
    with np.errstate(invalid="ignore"):
        gaps = np.where(x == y, 0.0, direction.sign * difference(y, x))
    wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
    common: dict[str, Any] = {"names": names, "n": n, "scale": scale, "min_p": min_p, "wins": wins, "losses": losses}
    if any(diverged):
        from scipy import stats

        p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        return _Facts(**common, diverged=diverged, mean=None, sd=None, sd_rounded=0, p=p, method="sign")
    if n < 2:
        mean = float(gaps[0]) if n else None
        return _Facts(**common, diverged=diverged, mean=mean, sd=None, sd_rounded=0, p=None, method="")
    _, mean_of, sd, p_of = t_test(gaps)
    spread_of = float(gaps.std(ddof=1))
    return _Facts(
        **common, diverged=diverged, mean=float(mean_of), sd=spread_of, sd_rounded=float(sd), p=float(p_of), method="t"
    )


def _finish(facts: _Facts, corrected: float | None, alpha: float, step: float) -> Paired:
    """The verdict: p corrected against ``alpha``; the interval and the seeds to come at ``step``, a share of alpha."""
    least, scale = min_seeds(alpha), facts.scale
    shown = facts.n >= least and corrected is not None and corrected <= alpha
    ahead = facts.wins > facts.losses if facts.mean is None or facts.method == "sign" else facts.mean > 0
    low = high = effect = needed = None
    if facts.mean is not None and facts.sd is not None:
        half = quantile(step, facts.n - 1) * facts.sd_rounded / math.sqrt(facts.n)
        low, high = (facts.mean - half) * scale, (facts.mean + half) * scale
        effect = facts.mean / facts.sd if facts.sd > 0 else None
        needed = seeds_needed(facts.mean / facts.sd_rounded, step, least=least) if facts.mean else None
    found = Paired(
        a=facts.names[0], b=facts.names[1], n=facts.n, difference=None if facts.mean is None else facts.mean * scale,
        sd=None if facts.sd is None else facts.sd * scale, low=low, high=high, confidence=1 - step, p=facts.p,
        corrected=corrected, min_p=facts.min_p, effect=effect, wins=facts.wins,
        ties=facts.n - facts.wins - facts.losses, diverged=facts.diverged, seeds_needed=needed,
        more=None if shown else _more(facts, needed, least), method=facts.method, beats=shown and ahead,
        beaten=shown and not ahead, words="",
    )  # fmt: skip
    return replace(found, words=_words(found, least))


def _words(pair: Paired, least: int) -> str:
    if pair.beats or pair.beaten:
        better, worse = (pair.a, pair.b) if pair.beats else (pair.b, pair.a)
        if pair.low is None or pair.high is None:
            wins = pair.wins if pair.beats else pair.n - pair.wins - pair.ties
            theirs = pair.diverged[1 if pair.beats else 0]
            return f"{better} beats {worse} on {wins} of {_seeds(pair.n)}; {worse} diverged on {theirs}"
        low, high = sorted(map(abs, (pair.low, pair.high)))
        return f"{better} beats {worse} by {figure(low)} to {figure(high)}"
    if not pair.n:
        return "not shown: no seed in common"
    if any(pair.diverged) and pair.n >= least:
        one, two = pair.diverged
        return f"not shown: {pair.a} diverged on {one}, {pair.b} on {two} of {_seeds(pair.n)}"
    if pair.n < least:
        few = f"{_seeds(pair.n)} can show nothing" + (f" (an exact p is at least {pair.min_p:.2g})" * (pair.n > 1))
        return f"not shown: {few}; about {_seeds(pair.more or 0, 'more ')} could settle it"
    if pair.ties == pair.n:
        return f"not shown: alike on all {_seeds(pair.n)}"
    if pair.seeds_needed is None:
        return f"not shown; more than {MOST_SEEDS:,} seeds would be needed to settle it"
    return f"not shown; about {_seeds(pair.more or 0, 'more ')} would settle it"


def _more(facts: _Facts, needed: int | None, least: int) -> int | None:
    """Seeds to come: to ``needed``, and to as many as can show anything; None without a common seed, or a number."""
    if not facts.n or (any(facts.diverged) and facts.n >= least):
        return None
    if facts.n < least:
        return max(needed or 0, least) - facts.n
    return None if needed is None else max(1, needed - facts.n)


def scale_of(values: Sequence[float]) -> float:
    """The largest finite magnitude, or 1: squares of values over it neither overflow nor vanish."""
    return max((abs(value) for value in values if math.isfinite(value)), default=0.0) or 1.0


def _seeds(n: int, kind: str = "") -> str:
    return f"{n:,} {kind}seed{'s' * (n != 1)}"


def figure(value: float) -> str:
    """``0.00412``."""
    return f"{value:.3g}"
