"""How the value depends on one hyperparameter, or on two, and where the best lies.

Plain data, no drawing. Diverged trials count as what they are: a share of each bin, and worse than any value.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from hpsearch.parameter import Categorical, Float, Int, Parameter, Value
from hpsearch.space import SearchSpace
from hpsearch.trial import Direction, State, Trial, best_trials

#: what part of a range, on its own scale, counts as its edge
EDGE = 0.05
#: ... and where others of the best count as being there too
NEAR = 0.15
#: in an extension, what part of the range's width is added, on its own scale; of a log range, a factor of 3 at least
FURTHER, FURTHER_LOG = 0.5, 0.2


@final
@dataclass(frozen=True, kw_only=True)
class Bin:
    """A part of a parameter's range, on its own scale, with the trials that lie in it."""

    #: values at its ends; equal for a choice or a single whole number
    low: Value
    high: Value
    #: its middle on the unit interval
    middle: float
    #: trials that ended, of any state but cancelled
    n: int
    complete: int
    diverged: int
    failed: int
    #: the best value, and its trial's number; None without a complete trial
    best: float | None
    trial: int | None


@final
@dataclass(frozen=True, kw_only=True)
class Profile:
    """One parameter over its range (``space.hard()``)."""

    name: str
    bins: Sequence[Bin]


@final
@dataclass(frozen=True, kw_only=True)
class Edge:
    """The best trial lies at an end of a parameter's range beyond which better values may be."""

    name: str
    #: of the best trial
    value: float
    trial: int
    #: ``low`` or ``high``
    side: str
    low: float
    high: float
    #: of the ``top`` best trials, so many lie near this end too (the best one counted)
    near: int
    top: int
    #: the line for the study file: ``lr: {log: [1e-05, 3]}``
    suggestion: str

    @property
    def words(self) -> str:
        """One sentence."""
        where = f"{self.name} {self.value:.4g} lies at the {self.side} end of {self.low:.4g} … {self.high:.4g}"
        seen = f"{self.near} of the best {self.top} trials are near it"
        return f"The best trial's {where}; {seen}" + ("." if self.near > 1 else ", so this may be chance.")


@final
@dataclass(frozen=True, kw_only=True)
class Interaction:
    """The value over two parameters, smoothed over the trials near each point of a grid."""

    x: str
    y: str
    #: grid points of both axes on the unit interval, ``cells`` each
    grid: Sequence[float]
    #: [y][x]: the smoothed value; None where fewer than about two trials are near
    values: Sequence[Sequence[float | None]]


def profile_of(
    name: str, parameter: Parameter, trials: Sequence[Trial], direction: Direction, cells: int = 12
) -> Profile:
    """The best value and the share that diverged over one parameter's range.

    Args:
        name: the parameter's name.
        parameter: itself; its hard bounds are the range. Trials outside of it are left out.
        trials: any.
        direction: which way the metric gets better.
        cells: how many bins a range has at most; a choice or one of few whole numbers has a bin of its own.
    """
    whole = parameter.hard()
    size = whole.size
    count = size if size is not None and (size <= cells or isinstance(whole, Categorical)) else cells
    inside: list[list[Trial]] = [[] for _ in range(count)]
    for trial in trials:
        if trial.state.final and trial.state is not State.CANCELLED and whole.contains(trial.params[name]):
            inside[min(int(whole.to_unit(trial.params[name]) * count), count - 1)].append(trial)
    return Profile(name=name, bins=[_bin(whole, k, count, here, direction) for k, here in enumerate(inside)])


def _bin(whole: Parameter, k: int, count: int, here: Sequence[Trial], direction: Direction) -> Bin:
    best = next(iter(best_trials(here, direction, 1)), None)
    own = whole.size == count
    ends = [(k + 0.5) / count] * 2 if own else [k / count, (k + 1) / count]
    return Bin(
        low=whole.from_unit(ends[0]),
        high=whole.from_unit(ends[1]),
        middle=(k + 0.5) / count,
        n=len(here),
        complete=sum(t.state is State.COMPLETE for t in here),
        diverged=sum(t.state is State.DIVERGED for t in here),
        failed=sum(t.state is State.FAILED for t in here),
        best=best.value if best else None,
        trial=best.number if best else None,
    )


def edges_of(
    space: SearchSpace, trials: Sequence[Trial], direction: Direction, *, of: Trial | None = None
) -> list[Edge]:
    """Where the best trial (or ``of``) lies within 5 % of an end of a range (on its own scale), or outside of it.

    An end beyond which nothing makes sense is none: 0 of a plain range, 1 of one within [0, 1], the 1 of a count.
    """
    ranked = best_trials(trials, direction, max(3, min(10, len(trials) // 10)))
    if of is not None:
        ranked = [of, *(trial for trial in ranked if trial.number != of.number)]
    if not ranked:
        return []
    found = []
    for name, parameter in space.searched.items():
        whole = parameter.hard()
        if isinstance(whole, Categorical):
            continue
        places = [whole.to_unit(t.params[name]) for t in ranked]
        value = ranked[0].params[name]
        assert isinstance(value, int | float)
        for side, depth in (("low", places[0]), ("high", 1 - places[0])):
            if not _at_end(whole, depth) or _natural(whole, side):
                continue
            near = [u if side == "low" else 1 - u for u in places]
            found.append(
                Edge(
                    name=name,
                    value=value,
                    trial=ranked[0].number,
                    side=side,
                    low=whole.low,
                    high=whole.high,
                    near=sum(u <= NEAR or _at_end(whole, u) for u in near),
                    top=len(ranked),
                    suggestion=f"{name}: {_written(_extended(whole, side, value))}",
                )
            )
    return found


def _at_end(p: Float | Int, depth: float) -> bool:
    """``depth``: how far inside the range, 0 to 1. Of few values the last one only, and only of more than two."""
    if p.size is not None and p.size < 1 / EDGE:
        return p.size > 2 and depth < 1 / p.size
    return depth <= EDGE


def _natural(p: Float | Int, side: str) -> bool:
    if side == "low":
        return p.low == 0 or (isinstance(p, Int) and p.low == 1)
    return isinstance(p, Float) and not p.log and p.low >= 0 and p.high == 1


def _extended(p: Float | Int, side: str, value: float) -> Float | Int:
    """The range with more on that side, and far enough to hold ``value``; short numbers."""
    if isinstance(p, Float) and p.reverse_log:
        a, b = -math.log1p(-p.low), -math.log1p(-min(p.high, 1 - 1e-12))
        if side == "high":
            return Float(p.low, 1 - _short(math.exp(-(b + FURTHER * (b - a))), up=False), reverse_log=True)
        return Float(max(0.0, _short(-math.expm1(-(a - FURTHER * (b - a))), up=False)), p.high, reverse_log=True)
    if p.log:
        ratio = max((p.high / p.low) ** FURTHER_LOG, 3.0)
        end = max(p.high, value) * ratio if side == "high" else min(p.low, value) / ratio
    else:
        width = FURTHER * (p.high - p.low)
        end = max(p.high, value) + width if side == "high" else min(p.low, value) - width
        if p.low >= 0:
            end = max(end, 0.0)
        if isinstance(p, Float) and p.low >= 0 and p.high < 1:
            end = min(end, (1 + p.high) / 2)  # a share, like dropout: below 1
    if isinstance(p, Int):
        whole = max(round(end), 1 if p.low >= 1 else round(end))
        whole = p.low + math.ceil((whole - p.low) / p.step) * p.step if side == "high" else whole
        low, high = (p.low, whole) if side == "high" else (whole, p.high)
        return Int(low, high, log=p.log, step=p.step)
    short = _short(end, up=side == "high")
    if p.step is not None:
        steps = math.ceil(abs(end - p.low) / p.step)
        return Float(p.low, p.low + steps * p.step, step=p.step) if side == "high" else Float(short, p.high)
    return Float(*((p.low, short) if side == "high" else (short, p.high)), log=p.log)


def _short(x: float, *, up: bool) -> float:
    """Two digits at most, rounded outward."""
    if x == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(x))) - 1)
    return float(f"{(math.ceil if up else math.floor)(round(x / unit, 6)) * unit:.2g}")


def _written(p: Float | Int) -> str:
    """A range as a study file writes it."""
    if isinstance(p, Int):
        kind = "log_int" if p.log else "int"
        step = f", step: {p.step}" if p.step != 1 else ""
    else:
        kind = "log" if p.log else "reverse_log" if p.reverse_log else "uniform"
        step = f", step: {p.step:.12g}" if p.step is not None else ""
    return f"{{{kind}: [{p.low:.12g}, {p.high:.12g}]{step}}}"


def interaction_of(
    space: SearchSpace, trials: Sequence[Trial], direction: Direction, x: str, y: str, cells: int = 24
) -> Interaction:
    """The value over two parameters, all others averaged: a Gaussian kernel over the trials' ranks.

    Each grid point takes the mean rank of the trials around it (kernel width 0.12 of both ranges), and shows the value
    that has this rank; so values that are far out do not spread. Diverged trials have the worst rank.
    """
    whole = space.hard()
    sign = direction.sign
    seen = [t for t in trials if t.state in (State.COMPLETE, State.DIVERGED) and space.contains(t.params)]
    values = sorted(sign * t.value for t in seen if t.value is not None and t.state is State.COMPLETE)
    losses = [sign * t.value if t.value is not None and t.state is State.COMPLETE else math.inf for t in seen]
    order = sorted(losses)
    ranks = {loss: (bisect_left(order, loss) + bisect_right(order, loss) - 1) / 2 for loss in set(losses)}
    places = [
        (whole.parameters[x].to_unit(t.params[x]), whole.parameters[y].to_unit(t.params[y]), ranks[loss])
        for t, loss in zip(seen, losses, strict=True)
    ]
    grid = [(k + 0.5) / cells for k in range(cells)]
    at = np.array(places, float).reshape(-1, 3)
    across, along = (np.exp(-((np.array(grid)[:, None] - at[:, k]) ** 2) / (2 * 0.12**2)) for k in (0, 1))
    totals = along @ across.T
    sums = along @ (across * at[:, 2]).T

    def value(total: float, ranked: float) -> float | None:
        if total < 1.5 or not values:
            return None
        return sign * values[min(round(ranked / total), len(values) - 1)]

    both = zip(totals.tolist(), sums.tolist(), strict=True)
    rows = [[value(*pair) for pair in zip(*lines, strict=True)] for lines in both]
    return Interaction(x=x, y=y, grid=grid, values=rows)
