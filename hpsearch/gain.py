"""What a search gains by its trials: best so far, its band, who is ahead after n trials, and what n more would bring.

Two sources of a band, never mixed: **repetitions** (several studies of one strategy), or one study **resampled**: its
trials drawn again, with replacement, in any order. The second holds for trials that do not depend on each other (random
search, a grid); a strategy that learns has an order that means something, and one study of it is one draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_high
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from hpsearch.trial import Direction, State, Trial

#: strategies whose trials do not depend on each other's results
INDEPENDENT = ("random", "grid")
#: the band has so much of the probability between its ends
BAND = 0.8
#: trials below which nothing is said of more
FEWEST = 8


@final
@dataclass(frozen=True, kw_only=True)
class Band:
    """Best so far after 1, 2, ... trials, with what it could have been. ``better`` and ``worse`` bound 80 %."""

    better: tuple[float, ...]
    middle: tuple[float, ...]
    worse: tuple[float, ...]
    method: Literal["repetitions", "resampled"]


@final
@dataclass(frozen=True, kw_only=True)
class Gain:
    """What more trials would bring."""

    #: trials that ended, baselines aside, and how many more of them
    trials: int
    more: int
    #: by how much the best is expected to improve, in the metric's units, at least 0
    expected: float
    #: True: from all orders of the trials, which are independent; False: from the order in which they were chosen
    any_order: bool
    #: median over complete trials of the standard deviation over seeds; None where there was one seed
    noise: float | None

    @property
    def words(self) -> str:
        """Whether the search was enough, in a sentence or two."""
        how = "over all orders" if self.any_order else "in the order they were tried"
        gained = f"another {self.more:,} trials would gain about {self.expected:.2g}, rather less"
        text = f"Going by the last doubling of the {self.trials:,} trials, {how}, {gained}."
        if self.noise is None:
            return f"{text} With one seed nobody knows whether that is more than noise."
        if self.expected > self.noise:
            return f"{text} It is more than the {self.noise:.2g} by which a trial's seeds differ (one sd): search on."
        less = f"It is no more than the {self.noise:.2g} by which a trial's seeds differ (one sd)"
        return f"{text} {less}: more seeds, not more trials, would help."


def best_so_far(values: Sequence[float | None], direction: Direction) -> tuple[float | None, ...]:
    """The best of the first 1, 2, ... values; None before the first. None and what is not finite count as no value."""
    best: float | None = None
    curve = []
    for value in values:
        if value is not None and math.isfinite(value) and (best is None or direction.better(value, best)):
            best = value
        curve.append(best)
    return tuple(curve)


def area(curve: Sequence[float | None], n: int) -> float | None:
    """The mean of a best-so-far curve over its first n trials: low is good where the metric is minimised.

    Trials before the first value count as that value, the worst of the curve. None without a value.
    """
    first = next((value for value in curve[:n] if value is not None), None)
    return None if first is None else float(np.mean([first if value is None else value for value in curve[:n]]))


def repeated(curves: Sequence[Sequence[float | None]], direction: Direction) -> Band:
    """The band of several studies of one strategy, over as many trials as each has."""
    n = min(map(len, curves))
    rows = np.array([[math.nan if v is None else v for v in curve[:n]] for curve in curves], float)
    rows = np.where(np.isnan(rows), direction.worst, rows)
    tail = (1 - BAND) / 2
    low, middle, high = (np.quantile(rows, q, axis=0, method="nearest").tolist() for q in (tail, 0.5, 1 - tail))
    better, worse = (low, high) if direction is Direction.MINIMIZE else (high, low)
    return Band(better=tuple(better), middle=tuple(middle), worse=tuple(worse), method="repetitions")


def resampled(values: Sequence[float | None], direction: Direction, n: int | None = None) -> Band:
    """The band of one study whose trials do not depend on each other (the bootstrap's law, computed, not drawn)."""
    ordered = _ranked(values, direction)
    tail = (1 - BAND) / 2
    rows = []
    for count in range(1, (n or len(ordered)) + 1):
        reached = np.cumsum(_law(len(ordered), count))
        rows.append([ordered[min(len(ordered) - 1, int(np.searchsorted(reached, q)))] for q in (tail, 0.5, 1 - tail)])
    better, middle, worse = (tuple(map(float, column)) for column in zip(*rows, strict=True))
    return Band(better=better, middle=middle, worse=worse, method="resampled")


def ahead(a: Sequence[float | None], b: Sequence[float | None], direction: Direction, n: int) -> float:
    """The probability that the best of n trials like a's is better than that of n like b's; ties count half.

    Each side's trials are taken to be independent draws: resampled with replacement.
    """
    ours, theirs = _ranked(a, direction), _ranked(b, direction)
    joint = np.outer(_law(len(ours), n), _law(len(theirs), n))
    sign = direction.sign
    x, y = sign * ours[:, None], sign * theirs[None, :]
    return float((joint * ((x < y) + 0.5 * (x == y))).sum())


def ahead_of(a: Sequence[float], b: Sequence[float], direction: Direction) -> float:
    """The share of pairs of repetitions in which a is better (their bests after n trials each); ties count half."""
    return float(np.mean([0.5 if x == y else direction.better(x, y) for x in a for y in b]))


def expected_best(values: Sequence[float | None], direction: Direction, m: int) -> float:
    """The mean of the best of m trials, over all choices of m among these: unbiased for independent trials, m <= N.

    After Dodge et al. (EMNLP 2019), without replacement as Tang et al. (ACL 2020) recommend.
    """
    ordered = _ranked(values, direction)
    many = len(ordered)
    rank = np.arange(1, many)
    weights = np.cumprod(np.concatenate([[m / many], np.maximum(many - rank - m + 1, 0) / (many - rank)]))
    return float((ordered * weights).sum())


def more_trials(
    trials: Sequence[Trial], direction: Direction, *, independent: bool, more: int | None = None
) -> Gain | None:
    """What another ``more`` trials are expected to bring, against the noise over seeds; None below eight trials.

    The gain of the last doubling goes on evenly in the logarithm of the number of trials. For independent trials it is
    E[best of N/2] - E[best of N] over all orders (``expected_best``), else what happened. As a rule a doubling brings
    less than the one before, so it is rather too much; and part of it is luck. None too below two values, and where
    trials depend on each other and the first half has no value.

    Args:
        trials: any; baselines are left out, and trials without a value (diverged, failed) can be no best.
        direction: which way the metric gets better.
        independent: no trial was chosen by the results of others (``INDEPENDENT`` strategies).
        more: at least 1; by default as many again.
    """
    ended = [t for t in trials if t.state.final and t.state is not State.CANCELLED and not t.baseline]
    values = [t.value if t.state is State.COMPLETE else None for t in ended]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    many = len(values)
    if many < FEWEST or len(finite) < 2:
        return None
    half, more = many // 2, more or many
    last = 0.0
    if independent:
        # of values that are all alike a weighted mean is off by rounding
        if min(finite) < max(finite):
            last = abs(expected_best(values, direction, half) - expected_best(values, direction, many))
    else:
        curve = best_so_far(values, direction)
        before, after = curve[half - 1], curve[-1]
        if before is None or after is None:
            return None
        last = abs(after - before)
    expected = last * math.log1p(more / many) / math.log(many / half)
    spreads = [t.sd for t in ended if t.sd is not None and t.state is State.COMPLETE]
    noise = median_high(spreads) if spreads else None
    return Gain(trials=many, more=more, expected=expected, any_order=independent, noise=noise)


def _ranked(values: Sequence[float | None], direction: Direction) -> NDArray[np.float64]:
    """Best first; what has no finite value counts as the worst finite one."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        raise ValueError("no trial has a value")
    ordered = sorted(finite, reverse=direction is Direction.MAXIMIZE)
    return np.array(ordered + [ordered[-1]] * (len(values) - len(finite)), float)


def _law(many: int, n: int) -> NDArray[np.float64]:
    """The probability that the best of n draws with replacement has rank 1, 2, ... ``many``."""
    worse = (np.arange(many, -1, -1) / many) ** n
    return worse[:-1] - worse[1:]
