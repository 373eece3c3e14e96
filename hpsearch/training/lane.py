"""A lane, and the way that lanes of one structure take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from hpsearch.training.recipe import Recipe
from hpsearch.training.schedule import Rate


@final
@dataclass
class Lane:
    """What is a lane's own beside its rows."""

    recipe: Recipe
    seed: int
    rate: Rate
    #: updates so far
    steps: int = 0
    #: the next epoch, from 0
    epoch: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Way:
    """Which parts of a task go through vmap with the model; the others take the lanes one after the other."""

    augment: bool = True
    loss: bool = True
    metrics: bool = True
    #: dropouts of one forward; None: not known yet
    dropouts: int | None = None


def widths() -> Iterator[int]:
    """Numbers of lanes that are computed on a GPU: 2, 3, 4, 6, 8, 12, 16 ..."""
    width = 2
    while True:
        yield width
        yield width * 3 // 2
        width *= 2
