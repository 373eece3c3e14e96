"""A run's way through its epochs: what an epoch's numbers mean for it, how it pauses and goes on, how it ends.

The loop for one run (``solo.py``) and the one for many (``fused.py``) follow the same course.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from hpsearch.errors import ObjectiveError
from hpsearch.space import Params
from hpsearch.training.diagnostics import mean_of
from hpsearch.training.recipe import Recipe
from hpsearch.training.weights import copied
from hpsearch.trial import Checkpoint, Direction

CHECKPOINT = "hpsearch.pt"
#: the weights of the best epoch, beside the folder of checkpoints
WEIGHTS = "best.pt"

#: says (epoch, metrics, layer norms) of an epoch; raises Stopped when the run is to end
Tell = Callable[[int, Mapping[str, float], Mapping[str, tuple[float, float]]], None]


@final
@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a run is told, beside its task and params."""

    #: the run's: initial weights, order, dropout, augmentation
    seed: int
    #: the study's: the split
    study_seed: int
    metric: str
    direction: Direction
    device: str
    checkpoint_dir: Path
    until_epoch: int | None = None
    #: epochs that are recorded; None: as many as were saved
    from_epoch: int | None = None
    #: leave the best weights beside ``checkpoint_dir``
    keep: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended. ``value`` is the metric at the best epoch; None where it diverged (``reason`` says how)."""

    value: float | None
    best_epoch: int | None
    last_epoch: int
    reason: str = ""
    #: one model a fold, with the weights of the best epoch
    models: tuple[nn.Module, ...] = ()
    checkpoint: Checkpoint | None = None


@final
class Course:
    """Where one run stands: its next epoch, its best one, and how long its validation loss has not fallen."""

    def __init__(self, recipe: Recipe, params: Params, orders: Orders) -> None:
        self._recipe, self._orders = recipe, orders
        self._params = dict(params)
        #: the next epoch to train, from 0
        self.epoch = 0
        self._value, self._best_epoch = orders.direction.worst, -1
        self._lowest, self._waited = math.inf, 0
        #: whether the epoch judged last is the best so far
        self.improved = False

    def judge(self, tables: Sequence[Mapping[str, float]]) -> dict[str, float] | Outcome:
        """Hear the metrics of the epoch that was trained, a table a fold: their means, or the end where it diverged.

        Raises:
            ObjectiveError: the study's metric is not among them.
        """
        reason = divergence(tables, self.epoch)
        if reason:
            return self._diverged(reason)
        metrics, metric = mean_of(tables), self._orders.metric
        if metric not in metrics:
            raise ObjectiveError(f"metric: the task reports no {metric!r}", hint=f"it reports {', '.join(metrics)}")
        value = metrics[metric]
        if not math.isfinite(value):
            return self._diverged(f"{'nan' if math.isnan(value) else 'inf'} {metric} at epoch {self.epoch}")
        if metrics["val_loss"] < self._lowest:
            self._lowest, self._waited = metrics["val_loss"], 0
        else:
            self._waited += 1
        self.improved = self._orders.direction.better(value, self._value)
        if self.improved:
            self._value, self._best_epoch = value, self.epoch
        return metrics

    def advance(self) -> None:
        """The epoch has been told."""
        self.epoch += 1

    @property
    def ended(self) -> bool:
        """No epoch is left, or the validation loss has not fallen for ``patience`` of them."""
        patience = self._recipe.patience
        return self.epoch >= self._recipe.epochs or (patience is not None and self._waited >= patience)

    @property
    def pausing(self) -> bool:
        """The epoch at which the run was told to pause has come, and it has not ended."""
        until = self._orders.until_epoch
        return until is not None and self.epoch >= until and not self.ended

    def outcome(self, best: Sequence[Mapping[str, Tensor]], models: Sequence[nn.Module] = ()) -> Outcome:
        """How it has ended; ``best``: the ``state_dict`` of the best epoch, one a fold."""
        value, epoch = (self._value, self._best_epoch) if self._best_epoch >= 0 else (None, None)
        kept = self._keep(best) if self._orders.keep and epoch is not None else None
        return Outcome(value=value, best_epoch=epoch, last_epoch=self.epoch - 1, models=tuple(models), checkpoint=kept)

    def _keep(self, best: Sequence[Mapping[str, Tensor]]) -> Checkpoint:
        """Leave the best weights in a file, whole or not at all."""
        folder = self._orders.checkpoint_dir.parent
        # Copies: a lane's tensors are views of all lanes' weights, which would be written whole.
        models = [copied(state, torch.device("cpu")) for state in best]
        part, file = folder / f"{WEIGHTS}.part", folder / WEIGHTS
        torch.save({"of": self._identity(), "models": models}, part)
        with part.open("rb+") as opened:
            sha256, size = hashlib.file_digest(opened, "sha256").hexdigest(), opened.tell()
            os.fsync(opened.fileno())
        part.replace(file)
        return Checkpoint(path=f"{folder.parent.name}/{folder.name}/{WEIGHTS}", sha256=sha256, bytes=size)

    def save(self, trainings: Sequence[Mapping[str, Any]]) -> None:
        """Leave all that ``resume`` needs in ``checkpoint_dir``; ``trainings``: a state a fold."""
        state = {
            "of": self._identity(),
            "epoch": self.epoch,
            "progress": [self._value, self._best_epoch, self._lowest, self._waited],
            "trainings": list(trainings),
        }
        file = self._orders.checkpoint_dir / CHECKPOINT
        part = file.with_suffix(".part")
        torch.save(state, part)
        part.replace(file)  # whole or not at all

    def resume(self) -> list[dict[str, Any]]:
        """Go on from where it was paused: a state a fold; [] where there is nothing to go on from."""
        file = self._orders.checkpoint_dir / CHECKPOINT
        if not file.exists():
            return []
        state = torch.load(file, map_location=self._orders.device, weights_only=True)
        recorded = self._orders.from_epoch
        # Left by a deleted study in the same folder, or by a worker whose last report nobody has heard.
        if state["of"] != self._identity() or (recorded is not None and state["epoch"] > recorded):
            return []
        self._value, self._best_epoch, self._lowest, self._waited = state["progress"]
        self.epoch = int(state["epoch"])
        trainings: list[dict[str, Any]] = state["trainings"]
        return trainings

    def clear(self) -> None:
        """The run has ended: nothing is left to go on from."""
        (self._orders.checkpoint_dir / CHECKPOINT).unlink(missing_ok=True)

    def _diverged(self, reason: str) -> Outcome:
        return Outcome(value=None, best_epoch=None, last_epoch=self.epoch, reason=reason)

    def _identity(self) -> dict[str, Any]:
        orders = self._orders
        seeds = {"seed": orders.seed, "study_seed": orders.study_seed}
        return {"params": self._params, **seeds, "metric": orders.metric}


def divergence(tables: Sequence[Mapping[str, float]], epoch: int) -> str:
    """``nan loss at epoch 4`` where the loss of any fold is not finite; empty otherwise."""
    for table in tables:
        for name in ("train_loss", "val_loss"):
            number = table.get(name, 0.0)
            if not math.isfinite(number):
                return f"{'nan' if math.isnan(number) else 'inf'} loss at epoch {epoch}"
    return ""
