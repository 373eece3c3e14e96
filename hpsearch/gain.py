"""What a search gains by its trials: best so far, its band, who is ahead after n trials, and what n more would bring.

Two sources of a band, never mixed: **repetitions** (several studies of one strategy), or one study **resampled**: its
trials drawn again, with replacement, in any order. The second holds for trials that do not depend on each other (random
search, a grid); a strategy that learns has an order that means something, and one study of it is one draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from hpsearch.trial import Direction

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
    """What more trials of a random search would bring."""

    trials: int
    more: int
    #: by how much the best is expected to improve, in the metric's units, at least 0
    expected: float
    #: standard deviation of one run over seeds; None where nobody knows
    noise: float | None
    words: str


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
    sign = 1.0 if direction is Direction.MINIMIZE else -1.0
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


def more_trials(values: Sequence[float | None], direction: Direction, more: int, noise: float | None) -> Gain | None:
    """What another ``more`` trials of a random search are expected to bring, against the noise over seeds.

    The gain of the last doubling, E[best of N/2] - E[best of N], goes on evenly in the logarithm of the number of
    trials. As a rule a doubling brings less than the one before, so it is rather too much; and part of it is luck.
    None below 8 trials with a value.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    many = len(values)
    if len(finite) < FEWEST:
        return None
    half = many // 2
    last = abs(expected_best(values, direction, half) - expected_best(values, direction, many))
    last = 0.0 if min(finite) == max(finite) else last
    expected = last * math.log1p(more / many) / math.log(many / half)
    words = f"another {more:,} trials would bring about {expected:.2g} at most"
    if noise is not None:
        other = "more seeds, not more trials, would help" if expected < noise else "the search is not at its end"
        words += f"; one run varies by {noise:.2g} over seeds: {other}"
    return Gain(trials=many, more=more, expected=expected, noise=noise, words=words)


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
