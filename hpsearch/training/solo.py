"""The loop for one run of a TrainingTask, in plain PyTorch. Fused training must reproduce it exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from hpsearch.errors import ObjectiveError, Paused
from hpsearch.objective import Split, TrainingTask
from hpsearch.space import Params
from hpsearch.training.data import Parts, prepare
from hpsearch.training.diagnostics import layer_norms, mean_by_rows, mean_of
from hpsearch.training.guard import seed_everything
from hpsearch.training.optim import Optimizer, Weights
from hpsearch.training.randomness import Key, KeyedDropout, Purpose, permutation
from hpsearch.training.recipe import ModelParams, Recipe, resolve
from hpsearch.training.schedule import Rate
from hpsearch.trial import Direction

#: examples of a validation batch: fixed, so that a value does not depend on the batch size that is searched
VALIDATION_BATCH = 1024
CHECKPOINT = "hpsearch.pt"

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


@final
class Training:
    """One model being trained on one pair of parts."""

    def __init__(self, task: TrainingTask, params: ModelParams, recipe: Recipe, parts: Parts, orders: Orders) -> None:
        self._task, self._recipe, self._parts, self._seed = task, recipe, parts, orders.seed
        self._dtype: torch.dtype = getattr(torch, task.precision)
        self.model = self._build(params).to(orders.device, self._dtype)
        self.weights = Weights(self.model)
        self.optimizer = Optimizer(recipe, self.weights)
        self.rate = Rate(recipe.schedule, recipe.lr, recipe.epochs)
        self.best: dict[str, Tensor] = {}

    def _build(self, params: ModelParams) -> nn.Module:
        seed_everything(self._seed)
        model = self._task.model(params)
        if not isinstance(model, nn.Module):
            raise ObjectiveError(f"model: must return a torch.nn.Module, not {type(model).__name__}")
        if any(is_lazy(p) for p in model.parameters()):
            with torch.no_grad():
                model.eval()(self._ready(self._parts.train.inputs[:2]).cpu().float())
        if self._task.init is not None:
            initialise(model, self._task.init)
        if not any(p.requires_grad for p in model.parameters()):
            raise ObjectiveError("model: has no trainable parameters")
        return model

    def _ready(self, inputs: Tensor) -> Tensor:
        """A batch as stored -> as the model takes it."""
        if self._parts.transform is not None:
            inputs = self._parts.transform(inputs)
        return inputs.to(self._dtype) if inputs.is_floating_point() or inputs.dtype == torch.uint8 else inputs

    def train_epoch(self, epoch: int) -> list[Tensor]:
        """One pass over the train part in this epoch's own order: the loss of each batch, (0-d, detached)."""
        split, losses = self._parts.train, []
        lr = self.rate.at(epoch)
        order = permutation(self._seed, Purpose.ORDER, epoch, len(split.targets), split.targets.device)
        self.model.train()
        for rows in torch.split(order, self._recipe.batch_size):
            inputs, targets = self._ready(split.inputs[rows]), split.targets[rows]
            if self._task.augment is not None:
                inputs = self._task.augment(inputs, Key(self._seed, epoch, rows))
            with KeyedDropout(self._seed, self.optimizer.steps):
                output = self.model(inputs)
            loss = self._loss(output, targets)
            self.weights.gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step(lr)
            losses.append(loss.detach())
        return losses

    def _loss(self, output: Tensor, targets: Tensor) -> Tensor:
        if self._recipe.label_smoothing and not targets.is_floating_point():
            return functional.cross_entropy(output, targets, label_smoothing=self._recipe.label_smoothing)
        loss = self._task.loss(output, targets)
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ObjectiveError(f"loss: must return a scalar tensor (0-d), not {got}", hint="return loss.mean()")
        return loss

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train and validate: every metric of the epoch. Stops short, with ``train_loss`` alone, where it diverged."""
        losses = self.train_epoch(epoch)
        rows, size = len(self._parts.train.targets), self._recipe.batch_size
        sizes = [min(size, rows - start) for start in range(0, rows, size)]
        train_loss = mean_by_rows(losses, sizes)
        if not math.isfinite(train_loss):
            first = next(number for number in torch.stack(losses).tolist() if not math.isfinite(number))
            return {"train_loss": first}
        metrics = {"train_loss": train_loss, **evaluate(self._task, self.model, self._parts.validation, self._ready)}
        metrics["lr"] = self.rate.at(epoch)
        self.rate.observe(metrics["val_loss"])
        return metrics

    def keep_best(self) -> None:
        """Remember the model as it is."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def best_model(self) -> nn.Module:
        """The model with the weights remembered."""
        if self.best:
            self.model.load_state_dict(self.best)
        return self.model.eval()

    def state(self) -> dict[str, Any]:
        """All that ``restore`` needs to go on exactly."""
        optimizer = {"buffers": self.optimizer.buffers, "steps": self.optimizer.steps}
        return {"model": self.model.state_dict(), "best": self.best, **optimizer, "rate": self.rate.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        for name, buffer in self.optimizer.buffers.items():
            buffer.copy_(state["buffers"][name])
        self.optimizer.steps, self.best = state["steps"], state["best"]
        self.rate.restore(state["rate"])


@torch.no_grad()
def evaluate(
    task: TrainingTask, model: nn.Module, split: Split, ready: Callable[[Tensor], Tensor], prefix: str = "val"
) -> dict[str, float]:
    """``<prefix>_loss`` (the task's, never smoothed) and ``<prefix>_<metric>`` of a part, means over its examples."""
    model.eval()
    sums: dict[str, list[Tensor]] = {}
    sizes = []
    for start in range(0, len(split.targets), VALIDATION_BATCH):
        part = slice(start, start + VALIDATION_BATCH)
        output, targets = model(ready(split.inputs[part])), split.targets[part]
        numbers = {"loss": task.loss(output, targets), **task.metrics(output, targets)}
        for name, number in numbers.items():
            sums.setdefault(f"{prefix}_{name}", []).append(torch.as_tensor(number))
        sizes.append(len(targets))
    return {name: mean_by_rows(values, sizes) for name, values in sums.items()}


def initialise(model: nn.Module, how: str) -> None:
    """Weights of every Linear and Conv anew, biases 0.

    ``kaiming``: normal for ReLU (He et al., arXiv:1502.01852, eq. 10); ``xavier``: uniform (Glorot and Bengio,
    AISTATS 2010, eq. 16).

    Raises:
        ObjectiveError: another name.
    """
    if how not in ("kaiming", "xavier"):
        raise ObjectiveError(f"init: must be kaiming, xavier or None, not {how!r}")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            if how == "kaiming":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@final
class _Progress:
    """The best epoch by the study's metric, and the epochs since the validation loss last fell."""

    def __init__(self, direction: Direction) -> None:
        self._direction = direction
        self.value, self.best_epoch = direction.worst, -1
        self.lowest, self.waited = math.inf, 0

    def better(self, epoch: int, value: float, val_loss: float) -> bool:
        """Note an epoch; True where it is the best so far."""
        if val_loss < self.lowest:
            self.lowest, self.waited = val_loss, 0
        else:
            self.waited += 1
        if self._direction.better(value, self.value):
            self.value, self.best_epoch = value, epoch
            return True
        return False


def train(task: TrainingTask, params: Params, orders: Orders, tell: Tell) -> Outcome:
    """Train one run from its first epoch, or from where it was paused.

    With ``task.folds`` one model a fold is trained, all in step, and every metric is the mean over the folds.

    Raises:
        ObjectiveError: the task does not fit the study.
        Stopped: from ``tell``; Paused after ``until_epoch`` epochs, when the state is saved.
    """
    recipe, given = resolve(task, params), ModelParams(params)
    parts = prepare(task, orders.study_seed, orders.device, given)
    trainings = [Training(task, given, recipe, part, orders) for part in parts]
    given.check_read(task)
    _check_smoothing(recipe, params, parts[0])
    progress = _Progress(orders.direction)
    epoch = _resume(trainings, progress, orders, params)
    while epoch < recipe.epochs:
        tables = [training.run_epoch(epoch) for training in trainings]
        reason = divergence(tables, epoch)
        if reason:
            return Outcome(value=None, best_epoch=None, last_epoch=epoch, reason=reason)
        metrics = mean_of(tables)
        if orders.metric not in metrics:
            raise ObjectiveError(
                f"metric: {type(task).__name__} reports no {orders.metric!r}",
                hint=f"it reports {', '.join(metrics)}",
            )
        if not math.isfinite(metrics[orders.metric]):
            kind = "nan" if math.isnan(metrics[orders.metric]) else "inf"
            reason = f"{kind} {orders.metric} at epoch {epoch}"
            return Outcome(value=None, best_epoch=None, last_epoch=epoch, reason=reason)
        if progress.better(epoch, metrics[orders.metric], metrics["val_loss"]):
            for training in trainings:
                training.keep_best()
        tell(epoch, metrics, layer_norms(trainings[0].weights))
        epoch += 1
        if recipe.patience is not None and progress.waited >= recipe.patience:
            break
        if orders.until_epoch is not None and orders.until_epoch <= epoch < recipe.epochs:
            _save(trainings, progress, epoch, orders, params)
            raise Paused
    (orders.checkpoint_dir / CHECKPOINT).unlink(missing_ok=True)
    models = tuple(training.best_model() for training in trainings)
    return Outcome(value=progress.value, best_epoch=progress.best_epoch, last_epoch=epoch - 1, models=models)


def divergence(tables: list[dict[str, float]], epoch: int) -> str:
    """``nan loss at epoch 4`` where the loss of any fold is not finite; empty otherwise."""
    for table in tables:
        for name in ("train_loss", "val_loss"):
            number = table.get(name, 0.0)
            if not math.isfinite(number):
                return f"{'nan' if math.isnan(number) else 'inf'} loss at epoch {epoch}"
    return ""


def _check_smoothing(recipe: Recipe, params: Params, parts: Parts) -> None:
    if ("label_smoothing" in params or recipe.label_smoothing) and parts.train.targets.is_floating_point():
        raise ObjectiveError(
            "label_smoothing is read by nobody: the targets are numbers, not classes", hint="take it out"
        )


def _save(trainings: list[Training], progress: _Progress, epoch: int, orders: Orders, params: Params) -> None:
    state = {
        "of": _identity(orders, params),
        "epoch": epoch,
        "progress": [progress.value, progress.best_epoch, progress.lowest, progress.waited],
        "trainings": [training.state() for training in trainings],
    }
    part = orders.checkpoint_dir / f"{CHECKPOINT}.part"
    torch.save(state, part)
    part.replace(orders.checkpoint_dir / CHECKPOINT)  # whole or not at all


def _resume(trainings: list[Training], progress: _Progress, orders: Orders, params: Params) -> int:
    """The epoch to begin with: 0, or the one after the pause."""
    file = orders.checkpoint_dir / CHECKPOINT
    if not file.exists():
        return 0
    state = torch.load(file, map_location=orders.device, weights_only=True)
    if state["of"] != _identity(orders, params):  # left by a deleted study in the same folder
        return 0
    for training, saved in zip(trainings, state["trainings"], strict=True):
        training.restore(saved)
    progress.value, progress.best_epoch, progress.lowest, progress.waited = state["progress"]
    return int(state["epoch"])


def _identity(orders: Orders, params: Params) -> dict[str, Any]:
    return {"params": dict(params), "seed": orders.seed, "study_seed": orders.study_seed, "metric": orders.metric}
