"""The runs that ``fusing.py`` times: their settings, and a pass over them as a worker trains them."""

from __future__ import annotations

import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hpsearch as hp
from hpsearch.executor import Assignment
from hpsearch.objective import ObjectiveAddress, TrainingTask, Workload
from hpsearch.space import Params
from hpsearch.strategy import History
from hpsearch.training import solo
from hpsearch.training.data import Parts, prepare
from hpsearch.training.groups import Trainer
from hpsearch.training.load import load
from hpsearch.training.optim import Weights
from hpsearch.training.recipe import ModelParams, Recipe
from hpsearch.trial import Direction, EpochReport, Finished, Grouped, Report, RunKey

#: settings that train: where a run is about to diverge, two roundings of it soon have nothing in common
SPACE = hp.SearchSpace(
    {
        "lr": hp.Float(1e-3, 1e-1, log=True),
        "momentum": hp.Float(0.5, 0.95, reverse_log=True),
        "dropout": hp.Float(0.0, 0.5),
        "weight_decay": hp.Float(1e-6, 1e-3, log=True),
    }
)
#: seeds of the runs, in turn: lanes of several seeds fill one group
SEEDS = 3


def drawn(count: int, **fixed: float | int | str) -> list[Params]:
    """Settings of so many runs: Sobol points of ``SPACE``, and values that are the same for all."""
    history = History(search_space=SPACE, direction=Direction.MINIMIZE, seed=0)
    return [{**params, **fixed} for params in hp.Random().ask(history, count)]


def seed_of(number: int) -> int:
    """The seed of run ``number``."""
    return number % SEEDS


@dataclass
class Pass:
    """One pass over some runs, and what was heard of them."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    #: steps of all runs
    steps: int = 0
    #: run -> val_loss of each epoch
    curves: dict[int, list[float]] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    #: seconds since the beginning until the first epoch was reported
    first_s: float = 0.0
    #: the same of every epoch, the first once it was told
    marks: list[float] = field(default_factory=list)
    engine: str = ""
    #: why runs were not trained in another way
    reasons: list[str] = field(default_factory=list)


class NotFusedError(Exception):
    """Runs would train alone; says why."""


class Feed:
    """Gives a worker as many runs as it has lanes, and hears what it says."""

    def __init__(
        self,
        runs: Sequence[Assignment],
        lanes: int,
        stop_after: int | None,
        only_fused: bool,
        first: Callable[[], None],
    ) -> None:
        self.passed, self._first = Pass(), first
        self._waiting, self._lanes, self._flying = deque(runs), lanes, 0
        self._stop_after, self._only_fused = stop_after, only_fused
        self._began = time.perf_counter()

    def more(self) -> list[Assignment]:
        """Runs for the lanes that are free."""
        given = [self._waiting.popleft() for _ in range(min(self._lanes - self._flying, len(self._waiting)))]
        self._flying += len(given)
        return given

    def stopped(self, run: RunKey) -> bool:
        """Whether the run is to end at its next report, which is not here yet where lanes train together."""
        done = len(self.passed.curves.get(run.trial, [])) + (self._lanes > 1)
        return self._stop_after is not None and done >= self._stop_after

    def send(self, reports: Sequence[Report]) -> None:
        """Keep what is said.

        Raises:
            NotFusedError: where that was asked for.
        """
        passed = self.passed
        for report in reports:
            if isinstance(report, EpochReport):
                passed.curves.setdefault(report.run.trial, []).append(report.metrics["val_loss"])
            elif isinstance(report, Finished):
                self._flying -= 1
                passed.states[report.run.trial] = str(report.state)
                passed.engine = report.engine
                if report.error:
                    passed.reasons.append(report.error)
            elif isinstance(report, Grouped) and report.reason:
                passed.reasons.append(report.reason)
                if self._only_fused and report.engine == "solo":
                    raise NotFusedError(report.reason)
        if any(isinstance(report, EpochReport) for report in reports):
            if not passed.marks:
                passed.first_s = time.perf_counter() - self._began
                self._first()
            passed.marks.append(time.perf_counter() - self._began)


def train(
    address: ObjectiveAddress,
    runs: Sequence[Params],
    *,
    lanes: int,
    device: str = "cpu",
    seeds: Sequence[int] | None = None,
    stop_after: int | None = None,
    only_fused: bool = False,
    first: Callable[[], None] = lambda: None,
) -> Pass:
    """Train the runs in this process as a worker of so many lanes does; of one lane it is what ``--fuse off`` does.

    Args:
        address: of the task.
        runs: their settings.
        lanes: how many train together.
        device: ``cpu``, ``cuda:0`` ...
        seeds: of the runs; by default ``seed_of``.
        stop_after: end each run after so many epochs, though it plans to train for more.
        only_fused: give up where they do not train together.
        first: called when the first epoch has been reported; ``marks`` begin when it returns.

    Raises:
        NotFusedError: they do not.
    """
    with tempfile.TemporaryDirectory() as files:
        workload = Workload(
            study="benchmark",
            objective=address,
            metric="val_loss",
            direction="minimize",
            seed=0,
            device=device,
            lanes=lanes,
            fixed_lanes=True,
            files=Path(files),
        )
        todo = [
            Assignment(run=RunKey(number, seeds[number] if seeds else seed_of(number)), params=params, attempt=1)
            for number, params in enumerate(runs)
        ]
        batches = batches_of(address, runs[0], device)
        feed = Feed(todo, lanes, stop_after, only_fused, first)
        cpu, wall = time.process_time(), time.perf_counter()
        Trainer(device).train(feed.more(), workload, send=feed.send, stopped=feed.stopped, more=feed.more)
        passed = feed.passed
        passed.cpu_s, passed.wall_s = time.process_time() - cpu, time.perf_counter() - wall
    passed.steps = batches * sum(len(curve) for curve in passed.curves.values())
    return passed


@contextmanager
def one_rounding_off(seed: int = 0) -> Iterator[None]:
    """Within it, runs alone begin with weights larger or smaller by 2**-23 of themselves, at random: by a rounding.

    How far their losses then go apart is how far two roundings of the same training do, whatever makes them differ.
    """
    build = solo.build

    def bent(task: TrainingTask, params: ModelParams, parts: Parts, run_seed: int) -> nn.Module:
        model = build(task, params, parts, run_seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in model.parameters():
                signs = torch.randint(2, weights.shape, generator=generator).mul(2).sub(1)
                weights.mul_(1 + 2**-23 * signs)
        return model

    solo.build = bent
    try:
        yield
    finally:
        solo.build = build


@contextmanager
def roundings_off(seed: int = 0) -> Iterator[None]:
    """Within it, each update of a run alone is off by a rounding: its weights by 2**-23 of themselves, at random.

    So are two ways to compute the same step; this is as far as they go apart.
    """
    made = solo.Optimizer

    class Bent:
        def __init__(self, recipe: Recipe, weights: Weights) -> None:
            self._own, self._weights = made(recipe, weights), weights
            self._generator = torch.Generator().manual_seed(seed)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._own, name)

        def step(self, lr: float) -> None:
            self._own.step(lr)
            signs = torch.randint(2, self._weights.flat.shape, generator=self._generator).mul(2).sub(1)
            self._weights.flat.mul_(1 + 2**-23 * signs)

    solo.Optimizer = Bent
    try:
        yield
    finally:
        solo.Optimizer = made


def batches_of(address: ObjectiveAddress, params: Params, device: str) -> int:
    """Steps of an epoch. Also loads the task's data, which a worker does once."""
    task = load(address)
    assert isinstance(task, TrainingTask)
    train = prepare(task, 0, device, ModelParams(params))[0].train
    return math.ceil(len(train.targets) / task.batch_size)
