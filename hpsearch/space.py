"""The space that hyperparameters span: every setting is a point of the unit cube, and a strategy sees only that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.parameter import Categorical, Float, Int, Parameter, Value

__all__ = ["Categorical", "Float", "Int", "Parameter", "Params", "SearchSpace", "Value", "Window"]

#: one setting of the hyperparameters, by name
Params = Mapping[str, Value]
#: a part of the unit cube: for a name, its interval ``(start, end)`` with 0 <= start <= end <= 1
Window = Mapping[str, tuple[float, float]]


@final
@dataclass(frozen=True)
class SearchSpace:
    """Named hyperparameters. Those with one value only are fixed: part of every setting, no axis of the cube.

    Shapes: D is the number of searched (not fixed) parameters, in the order they were declared.
    """

    parameters: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", dict(self.parameters))

    @property
    def searched(self) -> dict[str, Parameter]:
        """The parameters with more than one value (hard bounds counted): the D axes of the cube, in order."""
        return {name: p for name, p in self.parameters.items() if p.hard().size != 1}

    @property
    def fixed(self) -> dict[str, Value]:
        """The parameters with one value, and that value."""
        return {name: p.from_unit(0.5) for name, p in self.parameters.items() if p.hard().size == 1}

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.searched)

    def from_unit(self, point: Sequence[float]) -> dict[str, Value]:
        """The setting at a point of the unit cube (length D), fixed values included."""
        axes = iter(point)
        fixed = self.fixed
        return {n: fixed[n] if n in fixed else p.from_unit(next(axes)) for n, p in self.parameters.items()}

    def to_unit(self, params: Params) -> list[float]:
        """Where a setting lies in the unit cube (length D)."""
        return [p.to_unit(params[name]) for name, p in self.searched.items()]

    def contains(self, params: Params) -> bool:
        """True where exactly the declared names are there, each with a value it may take."""
        return params.keys() == self.parameters.keys() and all(
            p.contains(params[name]) for name, p in self.parameters.items()
        )

    def grid(self, points: int | Mapping[str, int]) -> dict[str, list[Value]]:
        """For each searched parameter its grid values; ``points`` for all, or by name (its own ``points`` win)."""
        axes: dict[str, list[Value]] = {}
        for name, p in self.searched.items():
            wanted = points if isinstance(points, int) else points.get(name, 1)
            own = None if isinstance(p, Categorical) else p.points
            axes[name] = list(p.grid(own or wanted))
        return axes

    def narrow(self, window: Window) -> SearchSpace:
        """The part of the space inside ``window``; names it does not mention keep their range."""
        return SearchSpace({n: p.narrow(*window[n]) if n in window else p for n, p in self.parameters.items()})

    def hard(self) -> SearchSpace:
        """The space with every parameter's hard bounds as its range."""
        return SearchSpace({name: p.hard() for name, p in self.parameters.items()})
