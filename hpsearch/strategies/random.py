"""Random search: point k depends on the study's seed and k alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from hpsearch import points
from hpsearch.errors import Problem
from hpsearch.space import Params, SearchSpace, Window
from hpsearch.strategy import Decision, History, Strategy, broken_rules

METHODS = ("sobol", "independent")


@final
@dataclass(frozen=True, kw_only=True)
class Random(Strategy):
    """Points spread over the whole space, on each parameter's own scale.

    Source: Bergstra and Bengio, "Random search for hyper-parameter optimization" (2012), who also found that
    low-discrepancy points (Sobol) do as well as independent ones or better.
    """

    name: ClassVar[str] = "random"

    #: ``sobol`` fills the space evenly; ``independent`` draws each point without regard to the others
    method: Literal["sobol", "independent"] = "sobol"

    @property
    def batch_size(self) -> None:
        """None: results do not matter."""
        return None

    def ask(self, history: History, n: int) -> list[Params]:
        """The next ``n`` points; there is no end."""
        draw = points.independent if self.method == "independent" else points.sobol
        space = history.search_space
        return [space.from_unit(u) for u in draw(history.seed, history.index, n, space.dimensions)]

    def decisions(self, history: History) -> list[Decision]:
        """[]: nothing is decided from results."""
        return []

    def window(self, history: History) -> Window:
        """{}: all of the cube."""
        return {}

    def size(self, search_space: SearchSpace) -> int | None:
        """None: no end."""
        return None

    def problems(self, search_space: SearchSpace) -> list[Problem]:
        """A method that does not exist."""
        return broken_rules(self, [("method", self.method in METHODS, f"must be one of {', '.join(METHODS)}")])
