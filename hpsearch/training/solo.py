"""The loop for one run of a TrainingTask, in plain PyTorch. Fused training must reproduce it exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from hpsearch.errors import ObjectiveError, Paused
from hpsearch.objective import TrainingTask
from hpsearch.space import Params
from hpsearch.training.build import build, ready
from hpsearch.training.course import Course, Orders, Outcome, Tell
from hpsearch.training.data import Parts, prepare
from hpsearch.training.diagnostics import layer_norms, mean_by_rows
from hpsearch.training.loss import loss_of, numbers_of, validation_batch
from hpsearch.training.optim import Optimizer, Weights
from hpsearch.training.precision import dtype_of, output_of
from hpsearch.training.randomness import Key, KeyedDropout, Purpose, permutation
from hpsearch.training.recipe import ModelParams, Recipe, resolve
from hpsearch.training.schedule import Rate
from hpsearch.training.streaming import Part, batches, stretches
from hpsearch.training.weights import copied, load_state, transient_of


@final
class Training:
    """One model being trained on one pair of parts."""

    def __init__(self, task: TrainingTask, params: ModelParams, recipe: Recipe, parts: Parts, orders: Orders) -> None:
        self._task, self._recipe, self._parts, self._seed = task, recipe, parts, orders.seed
        dtype = dtype_of(task)
        self._ready = partial(ready, parts, dtype)
        self.model = build(task, params, parts, orders.seed).to(orders.device, dtype)
        self.weights = Weights(self.model)
        self.optimizer = Optimizer(recipe, self.weights)
        self.rate = Rate(recipe.schedule, recipe.lr, recipe.epochs)
        self.best: dict[str, Tensor] = {}

    def train_epoch(self, epoch: int) -> list[Tensor]:
        """One pass over the train part in this epoch's own order: the loss of each batch, (0-d, detached)."""
        split, losses = self._parts.train, []
        lr = self.rate.at(epoch)
        order = permutation(self._seed, Purpose.ORDER, epoch, len(split.targets), split.targets.device)
        self.model.train()
        for rows, batch in batches(split, order, self._recipe.batch_size):
            inputs, targets = self._ready(batch.inputs), batch.targets
            if self._task.augment is not None:
                inputs = self._task.augment(inputs, Key(self._seed, epoch, rows))
            with KeyedDropout(self._seed, self.optimizer.steps):
                output = output_of(self._task, self.model, inputs)
            smoothing = self._recipe.label_smoothing or None
            loss = loss_of(self._task, output, targets, smoothing)
            self.weights.gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step(lr)
            losses.append(loss.detach())
        return losses

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train and validate: every metric of the epoch. Stops short, with ``train_loss`` alone, where it diverged."""
        losses = self.train_epoch(epoch)
        rows, size = len(self._parts.train.targets), self._recipe.batch_size
        sizes = [min(size, rows - start) for start in range(0, rows, size)]
        train_loss = mean_by_rows(torch.stack(losses), sizes)
        if not math.isfinite(train_loss):
            first = next(number for number in torch.stack(losses).tolist() if not math.isfinite(number))
            return {"train_loss": first}
        metrics = {"train_loss": train_loss, **evaluate(self._task, self.model, self._parts.validation, self._ready)}
        metrics["lr"] = self.rate.at(epoch)
        self.rate.observe(metrics["val_loss"])
        return metrics

    def keep_best(self) -> None:
        """Remember the model as it is."""
        self.best = copied(self.model.state_dict())

    def best_model(self) -> nn.Module:
        """The model with the weights remembered."""
        if self.best:
            load_state(self.model, self.best)
        return self.model.eval()

    def state(self) -> dict[str, Any]:
        """All that ``restore`` needs to go on exactly."""
        optimizer = {"buffers": self.optimizer.buffers, "steps": self.optimizer.steps}
        model = {"model": self.model.state_dict(), "transient": transient_of(self.model), "best": self.best}
        return {**model, **optimizer, "rate": self.rate.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        load_state(self.model, state["model"], state["transient"])
        for name, buffer in self.optimizer.buffers.items():
            buffer.copy_(state["buffers"][name])
        self.optimizer.steps, self.best = state["steps"], state["best"]
        self.rate.restore(state["rate"])


@torch.no_grad()
def evaluate(
    task: TrainingTask, model: nn.Module, split: Part, ready: Callable[[Tensor], Tensor], prefix: str = "val"
) -> dict[str, float]:
    """``<prefix>_loss`` (the task's, never smoothed) and ``<prefix>_<metric>`` of a part, means over its examples."""
    model.eval()
    sums: dict[str, list[Tensor]] = {}
    sizes = []
    for batch in stretches(split, validation_batch(task, len(split.targets))):
        output, targets = output_of(task, model, ready(batch.inputs)), batch.targets
        for name, number in numbers_of(task, output, targets, prefix).items():
            sums.setdefault(name, []).append(torch.as_tensor(number))
        sizes.append(len(targets))
    return {name: mean_by_rows(torch.stack(values), sizes) for name, values in sums.items()}


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
    check_smoothing(recipe, params, parts[0])
    course = Course(recipe, params, orders)
    for training, state in zip(trainings, course.resume(), strict=False):
        training.restore(state)
    while not course.ended:
        metrics = course.judge([training.run_epoch(course.epoch) for training in trainings])
        if isinstance(metrics, Outcome):
            return metrics
        if course.improved:
            for training in trainings:
                training.keep_best()
        tell(course.epoch, metrics, layer_norms(trainings[0].weights))
        course.advance()
        if course.pausing:
            course.save([training.state() for training in trainings])
            raise Paused
    course.clear()
    return course.outcome([training.best for training in trainings], [t.best_model() for t in trainings])


def check_smoothing(recipe: Recipe, params: Params, parts: Parts) -> None:
    """Raises:
    ObjectiveError: label smoothing where there are no labels.
    """
    if ("label_smoothing" in params or recipe.label_smoothing) and parts.train.targets.is_floating_point():
        raise ObjectiveError(
            "label_smoothing is read by nobody: the targets are numbers, not classes", hint="take it out"
        )
