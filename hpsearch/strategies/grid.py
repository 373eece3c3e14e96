"""Grid search: every combination of some values of each parameter, each exactly once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

from hpsearch import points
from hpsearch.errors import Problem, StudyError
from hpsearch.space import Categorical, Params, SearchSpace, Value, Window
from hpsearch.strategy import Decision, History, Strategy

#: a discrete parameter without ``points`` uses all its values up to this many
ALL_VALUES = 100


@final
@dataclass(frozen=True, kw_only=True)
class Grid(Strategy):
    """Every cell exactly once, in an order whose every first part covers the grid evenly.

    For each parameter the first of these that is given counts: ``values``, the parameter's own ``points``, ``points``
    here, all the values of a discrete parameter. Points are evenly spaced on the parameter's scale, ends included.
    """

    name: ClassVar[str] = "grid"

    #: how many values of each parameter, >= 1; one number for all or by name
    points: int | Mapping[str, int] | None = None
    #: the very values to try, by name
    values: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def batch_size(self) -> None:
        """None: results do not matter."""
        return None

    def ask(self, history: History, n: int) -> list[Params]:
        """The next ``n`` cells, fewer where the grid ends.

        Raises:
            StudyError: a parameter has neither points nor values; ``problems`` says so beforehand.
        """
        space = history.search_space
        axes = self._axes(space)
        if None in axes.values():
            raise StudyError(self.problems(space))
        sizes = [len(axis or ()) for axis in axes.values()]
        cells = points.lattice(sizes, history.seed, history.index, n)
        return [self._params(space, axes, cell) for cell in cells]

    def decisions(self, history: History) -> list[Decision]:
        """[]: nothing is decided from results."""
        return []

    def window(self, history: History) -> Window:
        """{}: all of the cube."""
        return {}

    def size(self, search_space: SearchSpace) -> int:
        """How many cells there are; a parameter that still lacks its points counts once."""
        return math.prod(1 if axis is None else len(axis) for axis in self._axes(search_space).values())

    def problems(self, search_space: SearchSpace) -> list[Problem]:
        """Unknown names, values out of range, and parameters without points."""
        return [*self._option_problems(search_space), *self._axis_problems(search_space)]

    def _params(self, space: SearchSpace, axes: Mapping[str, list[Value] | None], cell: tuple[int, ...]) -> Params:
        chosen = {name: (axis or [])[k] for (name, axis), k in zip(axes.items(), cell, strict=True)}
        fixed = space.fixed
        return {name: chosen[name] if name in chosen else fixed[name] for name in space.parameters}

    def _axes(self, space: SearchSpace) -> dict[str, list[Value] | None]:
        return {name: self._axis(space, name) for name in space.searched}

    def _axis(self, space: SearchSpace, name: str) -> list[Value] | None:
        """The values of one parameter; None where nothing says how many."""
        if name in self.values:
            return list(self.values[name])
        parameter = space.parameters[name]
        wanted = self.points if isinstance(self.points, int) else (self.points or {}).get(name)
        own = None if isinstance(parameter, Categorical) else parameter.points
        size = parameter.size
        if wanted is None and own is None:
            if size is None or (size > ALL_VALUES and not isinstance(parameter, Categorical)):
                return None
            wanted = size
        return space.grid({name: max(wanted or 1, 1)})[name]

    def _option_problems(self, space: SearchSpace) -> Iterator[Problem]:
        by_name = {} if self.points is None or isinstance(self.points, int) else self.points
        for option, names in (("points", by_name), ("values", self.values)):
            for name in names:
                if name not in space.parameters:
                    known = ", ".join(space.parameters)
                    message = "names no hyperparameter of search_space"
                    yield Problem(field=f"strategy.{option}.{name}", message=message, hint=f"there are {known}")
        counts = (
            {"points": self.points} if isinstance(self.points, int) else {f"points.{n}": k for n, k in by_name.items()}
        )
        for where, count in counts.items():
            if count < 1:
                yield Problem(field=f"strategy.{where}", message=f"must be at least 1, not {count}", value=count)
        for name, values in self.values.items():
            yield from self._value_problems(space, name, values)

    def _value_problems(self, space: SearchSpace, name: str, values: tuple[Value, ...]) -> Iterator[Problem]:
        where = f"strategy.values.{name}"
        if not values:
            yield Problem(field=where, message="needs at least one value", value=[])
        for k, value in enumerate(values):
            if any(type(value) is type(other) and value == other for other in values[:k]):
                yield Problem(field=where, message=f"names {value!r} twice", value=value)
            if name in space.parameters and not space.parameters[name].contains(value):
                yield Problem(field=where, message=f"{value!r} lies outside search_space.{name}", value=value)

    def _axis_problems(self, space: SearchSpace) -> Iterator[Problem]:
        for name, axis in self._axes(space).items():
            if axis is None:
                size = space.parameters[name].size
                what = "a range" if size is None else f"a range of {size} values"
                yield Problem(
                    field=f"search_space.{name}",
                    message=f"a grid needs to know how many points of {what} to try",
                    hint=f"give {name} `points: 5`, or the strategy `points` or `values`",
                )
