"""A lane, and the way that lanes of one structure take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from hpsearch.training.optim import Settings, corrections, settings, spread
from hpsearch.training.randomness import orders
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

    #: what prepares a batch: the data's ``transform`` and ``augment``
    augment: bool = True
    loss: bool = True
    metrics: bool = True
    #: a batch that is the same for all lanes (in validation; in training where data is streamed) is one tensor for all;
    #: else each lane has a copy, which its forward may change in place by numbers of its own
    shared: bool = True
    #: dropouts of one forward; None: not known yet
    dropouts: int | None = None
    #: multiplications of the convolutions of one forward of a batch
    convolutions: int = 0


def orders_of(lanes: Sequence[Lane], n: int, device: torch.device, *, shared: bool) -> Tensor:
    """Each lane's order of n examples in its next epoch, (K, n); ``shared``: one order, which is that of all."""
    seeds, epochs = [lane.seed for lane in lanes], [lane.epoch for lane in lanes]
    if not shared:
        return orders(seeds, epochs, n, device)
    if len(set(zip(seeds, epochs, strict=True))) > 1:
        raise RuntimeError("lanes that share their batches must have one seed and stand at one epoch")
    return orders(seeds[:1], epochs[:1], n, device).expand(len(lanes), n)


def settings_of(
    lanes: Sequence[Lane], count: int, penalised: Tensor | None, form: Callable[[Sequence[Any]], Tensor]
) -> list[Settings]:
    """The numbers of the lanes' next ``count`` updates, (K, 1) each; ``form`` makes (..., 1) of numbers (...).

    With ``penalised``, those of penalties are spread already, (K, W).
    """
    recipes, rates = [lane.recipe for lane in lanes], [lane.rate.at(lane.epoch) for lane in lanes]
    first = settings(recipes, rates, [lane.steps + 1 for lane in lanes], form)
    first = first if penalised is None else spread(first, penalised)
    if not recipes[0].optimizer.startswith("adam"):
        return [first] * count
    pairs = [
        [corrections(lane.recipe, rate, lane.steps + t) for lane, rate in zip(lanes, rates, strict=True)]
        for t in range(1, count + 1)
    ]
    lr, second = form([[p[0] for p in row] for row in pairs]), form([[p[1] for p in row] for row in pairs])
    return [replace(first, lr=lr[t], correction2=second[t]) for t in range(count)]


def widths() -> Iterator[int]:
    """Numbers of lanes that are computed on a GPU: 2, 3, 4, 6, 8, 12, 16 ..."""
    width = 2
    while True:
        yield width
        yield width * 3 // 2
        width *= 2
