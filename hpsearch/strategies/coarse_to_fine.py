"""Coarse to fine: rounds of points over a window that follows the best trial and narrows about it.

Everything happens in the unit cube of the space with its hard bounds, so a log scale narrows in orders of magnitude.
The windows are recomputed from the history at every ask: there is no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from hpsearch import points
from hpsearch.errors import Problem
from hpsearch.space import Categorical, Float, Int, Parameter, Params, SearchSpace, Value, Window
from hpsearch.strategy import Decision, History, Observation, Strategy, broken_rules
from hpsearch.trial import Direction, State

#: how windows are drawn in
POINTS = ("sobol", "independent", "grid")
#: far below any window, far above rounding
_TINY = 1e-9

Interval = tuple[float, float]
Numeric = Float | Int


@final
@dataclass(frozen=True, kw_only=True)
class CoarseToFine(Strategy):
    """After each round, for each numeric parameter, by the best trial of all rounds (the first of equals):

    - the best lies within ``edge`` of the window's width of an edge beyond which the space goes on: the window keeps
      its width and is centred on the best, as far as the space goes;
    - else it shrinks to ``shrink`` of its width, centred on the best, as far as the space goes;
    - no trial of the round has a value: it stays.

    The space goes on up to the hard bounds (``low`` and ``high`` where there are none). An edge at such a bound has
    nothing beyond it, so a best there is narrowed upon like any other. Categoricals keep all choices. A window of whole
    numbers or steps never gets narrower than one of them.
    """

    name: ClassVar[str] = "coarse_to_fine"

    #: >= 1; None: until every window is below ``min_width`` or the study's budget ends
    rounds: int | None = None
    #: >= 1
    trials_per_round: int = 16
    #: what is left of a window's width, in (0, 1)
    shrink: float = 0.5
    #: what part of a window's width counts as its edge, in [0, 0.5)
    edge: float = 0.1
    #: the search is over when every window is narrower than this part of low .. high, in (0, 1)
    min_width: float = 0.01
    #: how the points of a round are spread over its window
    points: Literal["sobol", "independent", "grid"] = "sobol"

    @property
    def batch_size(self) -> int:
        """A round."""
        return self.trials_per_round

    def ask(self, history: History, n: int) -> list[Params]:
        """The next ``n`` points of the round; [] after the last round or when all windows are narrow."""
        over = self.rounds is not None and history.batch >= self.rounds
        wanted = min(n, self.trials_per_round - history.index)
        if over or wanted <= 0:
            return []
        space = history.search_space.hard()
        windows = self._windows(history)
        if history.batch > 0 and self._all_narrow(history, windows):
            return []
        axes = [windows.get(name, (0.0, 1.0)) for name in space.searched]
        sizes = [_cells(p, w) for p, w in zip(space.searched.values(), axes, strict=True)]
        seed = points.derive(history.seed, history.batch)
        rows = self._draw(seed, history, wanted, sizes)
        return [space.from_unit([a + u * (b - a) for u, (a, b) in zip(row, axes, strict=True)]) for row in rows]

    def decisions(self, history: History) -> list[Decision]:
        """A ``zoom`` for each numeric parameter: its old and new window, in its own units, and why."""
        rounds = list(self._replay(history))
        return rounds[-1][1] if rounds else []

    def window(self, history: History) -> Window:
        """The current window of each numeric parameter, in the unit cube of ``search_space.hard()``."""
        space = history.search_space.hard()
        return {name: _inside(_numeric(space, name), w) for name, w in self._windows(history).items()}

    def size(self, search_space: SearchSpace) -> int | None:
        """At most ``rounds * trials_per_round``; None without ``rounds``."""
        return None if self.rounds is None else self.rounds * self.trials_per_round

    def problems(self, search_space: SearchSpace) -> list[Problem]:
        """Options out of range."""
        rules = [
            ("rounds", self.rounds is None or self.rounds >= 1, "must be at least 1"),
            ("trials_per_round", self.trials_per_round >= 1, "must be at least 1"),
            ("shrink", 0 < self.shrink < 1, "must be between 0 and 1"),
            ("edge", 0 <= self.edge < 0.5, "must be at least 0 and below 0.5"),
            ("min_width", 0 < self.min_width < 1, "must be between 0 and 1"),
            ("points", self.points in POINTS, f"must be one of {', '.join(POINTS)}"),
        ]
        return broken_rules(self, rules)

    def _draw(self, seed: int, history: History, n: int, limits: Sequence[int | None]) -> list[list[float]]:
        """The next ``n`` points of a round, in its window's own unit cube. ``limits``: how many values an axis has."""
        start = history.index
        if self.points == "independent":
            return points.independent(seed, start, n, len(limits))
        if self.points == "sobol":
            return points.sobol(seed, start, n, len(limits))
        sizes = _sizes(limits, self.trials_per_round)
        cells = points.lattice(sizes, seed, start, n)
        # Later grids are shifted, so that a window which stays is not trained at the same points again.
        shift = points.independent(seed, 0, 1, len(limits))[0] if history.batch else [0.5] * len(limits)
        rows = [[(k + s) / size for k, s, size in zip(cell, shift, sizes, strict=True)] for cell in cells]
        # What no grid of this size can hold is filled with Sobol points.
        rest = n - len(rows)
        return rows + points.sobol(seed, start + len(rows), rest, len(limits)) if rest else rows

    def _windows(self, history: History) -> dict[str, Interval]:
        rounds = list(self._replay(history))
        return rounds[-1][0] if rounds else _first(history.search_space)

    def _replay(self, history: History) -> Iterator[tuple[dict[str, Interval], list[Decision]]]:
        """The windows after each finished round, with the decisions that led to them."""
        space = history.search_space.hard()
        windows = _first(history.search_space)
        widths = {name: self.min_width * (end - start) for name, (start, end) in windows.items()}
        best = _best([o for o in history.finished if o.baseline and space.contains(o.params)], history.direction)
        own = [o for o in history.finished if not o.baseline]
        for number in range(history.batch):
            trials = own[number * self.trials_per_round : (number + 1) * self.trials_per_round]
            here = _best(trials, history.direction)
            best = _best([o for o in (best, here) if o is not None], history.direction)
            decisions = []
            for name, old in windows.items():
                new, reason = old, "no trial of the round has a value: the window stays"
                if here is not None and best is not None:
                    new, reason = self._move(_numeric(space, name), old, best.params[name], widths[name])
                details = {"old": _shown(space, name, old), "new": _shown(space, name, new)}
                decisions.append(Decision(kind="zoom", subject=name, reason=reason, details=details, batch=number))
                windows = windows | {name: new}
            yield windows, decisions

    def _move(self, p: Numeric, old: Interval, value: Value, narrow: float) -> tuple[Interval, str]:
        """Where the window goes for the best ``value``, and why. ``narrow``: the width at which it stops shrinking."""
        start, end = old
        width, cell, u = end - start, _cell_width(p, value), p.to_unit(value)
        # In a window of few whole numbers every one is near an edge: there is nothing to follow, only to choose.
        near = self.edge * width if width < 3 * cell - _TINY else max(self.edge * width, cell / 2 + _TINY)
        at_edge = u - start <= near or end - u <= near
        goes_on = (u - start <= near and start > _TINY) or (end - u <= near and end < 1 - _TINY)
        best = f"best {_written(value)}"
        where = f"[{', '.join(map(_written, _ends(p, old)))}]"
        if goes_on:
            return _about(u, width), f"{best} lies at the edge of {where}: the window moves there and keeps its width"
        if width <= max(narrow, cell * (1 + _TINY)):
            return _about(u, width), f"{best}: {where} is narrow enough, the window keeps its width"
        inside = "at the end of the space, an end of" if at_edge else "inside"
        return _about(u, max(width * self.shrink, cell)), f"{best} lies {inside} {where}: the window narrows about it"

    def _all_narrow(self, history: History, windows: dict[str, Interval]) -> bool:
        space = history.search_space.hard()
        first = _first(history.search_space)

        def narrow(name: str) -> bool:
            p, (start, end) = _numeric(space, name), windows[name]
            cell = _cell_width(p, p.from_unit((start + end) / 2))
            low, high = first[name]
            return end - start <= max(self.min_width * (high - low), cell * (1 + _TINY))

        # Without a numeric parameter there is no window and so no end.
        return bool(windows) and all(narrow(name) for name in windows)


def _numeric(space: SearchSpace, name: str) -> Numeric:
    parameter = space.parameters[name]
    assert not isinstance(parameter, Categorical)
    return parameter


def _first(declared: SearchSpace) -> dict[str, Interval]:
    """low .. high of each numeric parameter in the unit cube of its hard bounds."""
    windows: dict[str, Interval] = {}
    for name, hard in declared.hard().searched.items():
        p = declared.parameters[name]
        if isinstance(hard, Categorical) or isinstance(p, Categorical):
            continue
        low, high = p.from_unit(0.0), p.from_unit(1.0)
        windows[name] = (_side(hard, low, -1), _side(hard, high, 1))
    return windows


def _side(p: Numeric, value: float, sign: int) -> float:
    """The lower (-1) or upper (1) side of a value's cell; the value's own place on a continuum."""
    if p.size is None:
        return p.to_unit(value)
    if isinstance(p, Int) and p.log:
        low, high = math.log(p.low - 0.5), math.log(p.high + 0.5)
        return (math.log(value + sign * 0.5) - low) / (high - low)
    return p.to_unit(value) + sign * 0.5 / p.size


def _cell_width(p: Numeric, value: Value) -> float:
    assert isinstance(value, int | float)
    return _side(p, value, 1) - _side(p, value, -1)


def _about(u: float, width: float) -> Interval:
    """The window of that width centred on ``u``, pushed into [0, 1]."""
    start = min(max(u - width / 2, 0.0), max(1.0 - width, 0.0))
    return start, min(start + width, 1.0)


def _inside(p: Numeric, window: Interval) -> Interval:
    """The window without the sides that whole numbers share, so that both its ends name values it holds."""
    start, end = window
    return window if p.size is None else (start + _TINY, end - _TINY)


def _ends(p: Numeric, window: Interval) -> list[float]:
    return [p.from_unit(u) for u in _inside(p, window)]


def _shown(space: SearchSpace, name: str, window: Interval) -> list[float]:
    return _ends(_numeric(space, name), window)


def _written(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cells(p: Parameter, window: Interval) -> int | None:
    """How many values a window holds; None for a continuum."""
    if isinstance(p, Categorical):
        return p.size
    if p.size is None:
        return None
    low, high = _ends(p, window)
    return round((high - low) / (p.step or 1)) + 1


def _best(trials: Sequence[Observation], direction: Direction) -> Observation | None:
    """The best trial with a value, the first of equals; None where there is none."""
    best: Observation | None = None
    for trial in trials:
        usable = trial.state in (State.COMPLETE, State.PRUNED) and trial.value is not None
        if usable and (best is None or direction.better(_value(trial), _value(best))):
            best = trial
    return best


def _value(trial: Observation) -> float:
    assert trial.value is not None
    return trial.value


def _sizes(limits: Sequence[int | None], n: int) -> list[int]:
    """The most even grid of at most ``n`` cells; axis d has at most ``limits[d]``."""
    sizes = [1] * len(limits)
    while True:
        room = [
            d
            for d, limit in enumerate(limits)
            if (limit is None or sizes[d] < limit) and math.prod(sizes) // sizes[d] * (sizes[d] + 1) <= n
        ]
        if not room:
            return sizes
        sizes[min(room, key=lambda d: sizes[d])] += 1
