"""How many lanes pay: measured with the lanes themselves, before they begin."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.training.fused import FusedTraining
from hpsearch.training.structure import CannotFuse

#: fewer lanes are not worth a measurement
FEWEST = 8
#: a lane's time may be so much above the best one's, for less memory and a smaller loss when a worker dies
NEARLY = 1.1
#: on a CPU lanes of more than that many multiplications of convolutions a batch are slower than runs alone: grouped
#: convolutions are (16 lanes: 1.1 times as fast at 5 million, 0.8 at 14; ``benchmarks/README.md``)
LARGEST_CONVOLUTIONS = 5_000_000
#: of a device's memory that lanes may fill
SHARE = 0.8


def lanes_that_pay(trainings: Sequence[FusedTraining]) -> int:
    """The fewest lanes whose time a lane is nearly that of the best number, and that fit into memory."""
    most = len(trainings[0].lanes)
    if most <= FEWEST:
        return most
    sizes = list(_sizes(most))
    room = _room(trainings, sizes[0], sizes[1]) if trainings[0].device.type == "cuda" else most
    times = {k: min(_seconds(trainings, k) for _ in range(2)) / k for k in sizes if k <= room}
    best = min(times.values())
    return next(k for k, each in times.items() if each <= NEARLY * best)


def refuse_what_gains_nothing(training: FusedTraining) -> None:
    """By a rule, not by the clock: what trains together must not depend on what else the machine does.

    Raises:
        CannotFuse: its lanes would be slower than its runs one after the other.
    """
    if training.device.type == "cpu" and training.way.convolutions > LARGEST_CONVOLUTIONS:
        words = "its convolutions would be slower in lanes on a CPU (--fuse 8 trains eight together anyway)"
        raise CannotFuse(words, alike=True)


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Within it, the multiplications of a model's convolutions: a number a forward."""
    found: list[int] = []

    def begin(module: nn.Module, inputs: Any) -> None:
        found.append(0)

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        found[-1] += output.numel() * module.weight[0].numel()  # type: ignore[index]

    convolutions = [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd)]
    hooks = [model.register_forward_pre_hook(begin), *(module.register_forward_hook(count) for module in convolutions)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _sizes(most: int) -> Iterator[int]:
    k = FEWEST
    while k < most:
        yield k
        k *= 2
    yield most


def _seconds(trainings: Sequence[FusedTraining], k: int) -> float:
    """Of one step of the first k lanes that changes nothing."""
    _synchronise(trainings[0].device)
    began = time.perf_counter()
    for training in trainings:
        _try_step(training, k)
    _synchronise(trainings[0].device)
    return time.perf_counter() - began


def _try_step(training: FusedTraining, k: int) -> None:
    lanes, stack = training.lanes[:k], training.stack
    before = {name: rows.clone() for name, rows in stack.rest.items()}
    rows = training.orders(lanes)
    stack.form.train()
    leaves = stack.leaves(k)
    forward = training.forward(k)
    losses, _ = forward(leaves, training.keys(lanes, 1)[0], rows[:, : training.batch_size], lanes)
    training.backward(losses, leaves, k)
    for name, kept in before.items():
        stack.rest[name].copy_(kept)


def _room(trainings: Sequence[FusedTraining], few: int, more: int) -> int:
    """How many lanes' activations fit beside what is there, by the peaks of two sizes."""
    device = trainings[0].device
    peaks = []
    for k in (few, more):
        torch.cuda.reset_peak_memory_stats(device)
        _seconds(trainings, k)
        peaks.append(torch.cuda.max_memory_allocated(device))
    each = max(1, (peaks[1] - peaks[0]) // (more - few))
    free, _ = torch.cuda.mem_get_info(device)
    return few + int(SHARE * free) // each


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
