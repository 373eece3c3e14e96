"""The rule by which trials race on common new seeds: after each look, who is worse with confidence is dropped.

**What holds**: with a probability of at least 1 - alpha, over the whole race, no contender is dropped that is truly
the best or equal to it. So among trials that are all alike, "A beats B" is said in at most alpha of the races.

**Why.** Call i one of the truly best. Each p here is that of "the leader is better than i", and the leader, whoever it
is, is one of the k - 1 others, none of which is truly better: so k - 1 times the least of them is a p-value of "i is a
best". These hypotheses, one for each contender, are tested together by Holm's method: while j are left, i is dropped at
a one-sided p of alpha / looks / (j (k - 1)). As long as no best is lost, j is at least their number m, so a look loses
one with a probability of at most m (k - 1) alpha / looks / (m (k - 1)) = alpha / looks, and all looks together with
alpha (Bonferroni). The leader may be chosen by the same values, since all that it could be are counted.

A contender that **diverged** on a seed is dropped by rule, not by a test: it has no mean, and a run that diverged is
worse than any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from hpsearch.trial import Direction
from hpsearch.verdict import (
    Array,
    Flags,
    Spread,
    difference,
    figure,
    min_seeds,
    quantile,
    scale_of,
    seeds_needed,
    spread,
    t_test,
)

#: a race ends where even a difference at the far end of this interval would need more seeds than there are
FUTILE = 0.8


@final
@dataclass(frozen=True, kw_only=True)
class Standing:
    """A contender after a look, against the leader."""

    name: str
    value: Spread
    #: seeds in common with the leader
    n: int
    #: mean difference to the leader, positive where this one is worse; None where it diverged
    behind: float | None
    #: the interval for it, at 1 - ``threshold``; None for the leader, and below two seeds
    low: float | None
    high: float | None
    #: two-sided; None for the leader
    p: float | None
    #: what p was held against; 0 for the leader and who diverged
    threshold: float
    #: seeds in all that would show a difference of this size with probability 0.8; None: above 1000, or unknown
    seeds_needed: int | None
    drop: bool
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a look at a race says."""

    look: int
    #: None where all diverged
    leader: str | None
    standings: Mapping[str, Standing]
    #: whom to drop now
    drop: tuple[str, ...]
    #: nothing is left that more seeds would settle
    over: bool
    #: the one that is left; None while there are several, or none
    winner: str | None
    #: who ties at the end, the leader first; empty while the race goes on, and where there is a winner
    ties: tuple[str, ...]
    words: str


def schedule(first: int = 8, max_seeds: int = 16) -> tuple[int, ...]:
    """After how many seeds a race is looked at: ``first``, then after half as many more each time: 8, 12, 16.

    Args:
        first: seeds before the first look; >= 1.
        max_seeds: seeds at the last look, which is the first where ``first`` is not below it.
    """
    first = min(first, max_seeds)
    return tuple(sorted({*range(first, max_seeds, max(2, first // 2)), max_seeds}))


def judge(
    values: Mapping[str, Mapping[int, float]],
    direction: Direction,
    *,
    contenders: int,
    look: int,
    looks: int,
    alpha: float = 0.05,
    max_seeds: int | None = None,
) -> Judgement:
    """One look at a race.

    Args:
        values: name -> seed -> value, of those still in it; NaN or an infinity where a run diverged, no entry where
            it failed.
        contenders: how many there were at the start.
        look: from 1; each counts, also one that drops nobody.
        looks: how many there will be at most, fixed before the first.
        max_seeds: seeds a contender has at the last look; None: the race goes on to its last look.

    Raises:
        ValueError: no contender, more than at the start, or a look after the last.
    """
    if not 1 <= len(values) <= contenders or not 1 <= look <= looks:
        raise ValueError(f"{len(values)} of {contenders} contenders, look {look} of {looks}")
    names = list(values)
    lost = {name: [s for s, value in values[name].items() if not math.isfinite(value)] for name in names}
    alive = np.array([not lost[name] and bool(values[name]) for name in names])
    seeds = sorted({seed for name in names for seed in values[name]})
    losses = np.array([[values[name].get(seed, np.nan) for seed in seeds] for name in names], float)
    losses = losses.reshape(len(names), len(seeds))
    losses[~alive] = np.nan
    scale = scale_of(losses.ravel().tolist())
    losses = losses / scale * direction.sign
    leader, drop, behind = worse(losses, alive, level=alpha / looks, contenders=contenders, least=min_seeds(alpha))
    first = names[int(leader)] if alive.any() else None
    standings = {}
    for k, name in enumerate(names):
        numbers = [float(part[k]) for part in behind]
        standings[name] = _standing(name, values[name], lost[name], first, numbers, bool(drop[k]), scale)
    return _judgement(
        standings, first, look=look, looks=looks, max_seeds=max_seeds, level=alpha / looks, least=min_seeds(alpha)
    )


def worse(
    losses: Array, alive: Flags, *, level: float, contenders: int, least: int
) -> tuple[NDArray[np.intp], Flags, tuple[Array, Array, Array, Array, Array]]:
    """Who is worse than the leader, for many races at once.

    Args:
        losses: (..., k, seeds), lower is better; NaN where a seed is missing.
        alive: (..., k), who is in the race.
        level: of this look.
        least: common seeds below which nobody is dropped.

    Returns:
        the leader's place (...), who is to be dropped (..., k), and (n, mean, sd, p, threshold) of each
        one's difference to the leader (..., k).
    """
    there = ~np.isnan(losses)
    sums = np.where(there, losses, 0.0).sum(-1)
    means = np.where(alive & there.any(-1), sums / np.maximum(there.sum(-1), 1), np.inf)
    leader = means.argmin(-1)
    best = np.take_along_axis(losses, leader[..., None, None], -2)
    n, mean, sd, p = t_test(difference(losses, best))
    rival = alive & (np.arange(losses.shape[-2]) != leader[..., None])
    counted = np.where(rival & (mean > 0) & (n >= least), p, np.inf)
    order = np.argsort(counted, axis=-1, kind="stable")
    left = np.maximum(alive.sum(-1)[..., None] - np.arange(losses.shape[-2]), 1)
    thresholds = 2 * level / (left * max(1, contenders - 1))
    passed = np.logical_and.accumulate(np.take_along_axis(counted, order, -1) <= thresholds, axis=-1)
    drop = np.zeros(counted.shape, bool)
    np.put_along_axis(drop, order, passed, -1)
    threshold = np.zeros(counted.shape)
    np.put_along_axis(threshold, order, thresholds, -1)
    return leader, drop, (n, mean, sd, p, threshold)


def _standing(
    name: str,
    values: Mapping[int, float],
    lost: list[int],
    leader: str | None,
    numbers: list[float],
    drop: bool,
    scale: float,
) -> Standing:
    n, mean, sd, p, threshold = numbers
    value = spread(list(values.values()))
    common: dict[str, Any] = {"name": name, "value": value}
    if lost or not values or name == leader:
        some = ", ".join(map(str, lost[:5])) + ", ..." * (len(lost) > 5)
        words = "leads" if name == leader else f"diverged on seed {some}" if lost else "has no seed yet"
        return Standing(
            **common, n=len(values), behind=0.0 if name == leader else None, low=None, high=None, p=None, threshold=0.0,
            seeds_needed=None, drop=bool(lost), words=words,
        )  # fmt: skip
    low = high = needed = None
    if n > 1:
        half = quantile(threshold, n - 1) * sd / math.sqrt(n)
        low, high = (mean - half) * scale, (mean + half) * scale
        needed = seeds_needed(mean / sd, threshold) if mean > 0 else None
    words = f"behind {leader} by {figure(mean * scale)}" if mean else f"alike with {leader} so far"
    if drop and low is not None and high is not None:
        words = f"worse than {leader} by {figure(low)} to {figure(high)} (p {p:.1g}, needs {threshold:.1g})"
    return Standing(
        **common, n=int(n), behind=mean * scale, low=low, high=high, p=p if n > 1 else None, threshold=threshold,
        seeds_needed=needed, drop=drop, words=words,
    )  # fmt: skip


def _judgement(
    standings: Mapping[str, Standing],
    leader: str | None,
    *,
    look: int,
    looks: int,
    max_seeds: int | None,
    level: float,
    least: int,
) -> Judgement:
    drop = tuple(name for name, standing in standings.items() if standing.drop)
    left = [name for name in standings if name not in drop]
    rest = [name for name in left if name != leader]
    rest.sort(key=lambda name: standings[name].behind or 0.0)
    futile = (
        max_seeds is not None and bool(rest) and all(_is_futile(standings[name], max_seeds, least) for name in rest)
    )
    over = len(left) <= 1 or look == looks or futile
    winner = left[0] if len(left) == 1 else None
    ties = (leader, *rest) if over and len(left) > 1 and leader is not None else ()
    if leader is None and not left:
        words = "all diverged on new seeds: there is no winner"
    elif winner is not None:
        words = f"{winner} wins" if len(standings) > 1 else f"{winner} is alone"
    elif over:
        several = f"{', '.join(ties[:-1])} and {ties[-1]}"
        words = f"no difference worth more seeds: {several} tie; take the cheapest"
    else:
        seeds = max(standings[name].value.n for name in left)
        words = f"{len(left)} are left after {seeds} seeds" + (f"; {', '.join(drop)} dropped" if drop else "")
    return Judgement(
        look=look, leader=leader, standings=standings, drop=drop, over=over, winner=winner, ties=ties, words=words
    )


def _is_futile(standing: Standing, max_seeds: int, least: int) -> bool:
    """True where even a difference at the far end of its interval would need more than ``max_seeds``."""
    if standing.behind is None or standing.low is None or standing.high is None or standing.n < least:
        return False
    half = (standing.high - standing.low) / 2 / quantile(standing.threshold, standing.n - 1)
    if half == 0:
        return True
    far = standing.behind / half + quantile(1 - FUTILE, standing.n - 1)
    needed = seeds_needed(far / math.sqrt(standing.n), standing.threshold, power=0.5)
    return needed is None or needed > max_seeds
