"""Learning rates over the epochs: the formulas of torch's schedulers, without an optimizer to hang on."""

from __future__ import annotations

import math
from typing import final

from hpsearch.objective import Constant, Cosine, Plateau, Schedule, Step


def factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """What the learning rate is multiplied by in an epoch (from 0) of so many; 1 for Constant and Plateau.

    Step is torch's StepLR; Cosine is CosineAnnealingLR (Loshchilov and Hutter, arXiv:1608.03983, eq. 5, no restarts).
    """
    match schedule:
        case Step(every=every, gamma=gamma):
            return gamma ** (epoch // every)
        case Cosine(floor=floor):
            return floor + (1 - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        case Constant() | Plateau():
            return 1.0


@final
class Rate:
    """The learning rate of one run as its epochs go by."""

    def __init__(self, schedule: Schedule, lr: float, epochs: int) -> None:
        self._schedule, self._lr, self._epochs = schedule, lr, epochs
        self._scale, self._best, self._bad = 1.0, math.inf, 0

    def at(self, epoch: int) -> float:
        """The learning rate of an epoch (from 0)."""
        return self._lr * self._scale * factor(self._schedule, epoch, self._epochs)

    def observe(self, val_loss: float) -> None:
        """Hear an epoch's validation loss; only Plateau listens (torch's ReduceLROnPlateau, relative threshold)."""
        if not isinstance(self._schedule, Plateau):
            return
        if val_loss < self._best * (1 - self._schedule.threshold):
            self._best, self._bad = val_loss, 0
        else:
            self._bad += 1
        if self._bad > self._schedule.patience:
            lower = self._scale * self._schedule.factor
            if self._lr * (self._scale - lower) > 1e-8:  # torch's eps: a smaller change is ignored
                self._scale = lower
            self._bad = 0

    def state(self) -> list[float]:
        """What ``restore`` needs to go on."""
        return [self._scale, self._best, self._bad]

    def restore(self, state: list[float]) -> None:
        """Go on from a state."""
        self._scale, self._best, self._bad = state[0], state[1], int(state[2])
