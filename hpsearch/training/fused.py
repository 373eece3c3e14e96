"""The loop for many runs of a TrainingTask at once, as lanes of stacked tensors.

Every lane has its own seed, order, masks, hyperparameters, schedule and epoch; what ``solo.py`` does for one run, this
does for K at the cost of a few. The forward is vmapped, the losses of all lanes are summed, and one ordinary backward
gives each lane its own gradient (the derivative of a sum by a summand is 1, also next to a nan); the update works on
one (K, P) buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hpsearch.objective import TrainingTask
from hpsearch.training.build import ready
from hpsearch.training.data import Parts
from hpsearch.training.diagnostics import lane_norms, means_by_rows
from hpsearch.training.lane import Lane, Way, orders_of, settings_of, widths
from hpsearch.training.loss import loss_of
from hpsearch.training.optim import BUFFERS, Settings, spread, update
from hpsearch.training.precision import is_mixed, output_of
from hpsearch.training.randomness import Key, Stream, mask_key
from hpsearch.training.recipe import Recipe
from hpsearch.training.stack import Rows, Stack
from hpsearch.training.step import Batch, Step, Steps
from hpsearch.training.streaming import Part, batches
from hpsearch.training.structure import Place
from hpsearch.training.validation import Validation
from hpsearch.training.weights import load_state


@final
class FusedTraining:
    """Lanes on one pair of parts; with ``task.folds`` there is one of these a fold, all in step.

    Args:
        task: what all lanes train.
        parts: on the lanes' device.
        recipe: of any lane; all have its optimizer and batch size, and clip or smooth labels all or none.
        model: the form that all lanes share, on its device and in the type of its weights.
        slots: how many lanes there can be.
    """

    def __init__(self, task: TrainingTask, parts: Parts, recipe: Recipe, model: nn.Module, slots: int) -> None:
        self.task, self.parts = task, parts
        self.optimizer, self.batch_size = recipe.optimizer, recipe.batch_size
        self._smoothing = recipe.label_smoothing > 0
        self.stack = Stack(model, slots + 1)
        flat = self.stack.flat
        self._dtype, self.device = flat.dtype, flat.device
        # Once an epoch, or in each update: there a GPU would read numbers as large as the weights.
        self._spreads = flat.device.type == "cpu"
        self.buffers = {name: torch.zeros_like(flat) for name in BUFFERS[recipe.optimizer]}
        self.gradient = torch.zeros_like(flat)
        self._best = torch.empty_like(flat)
        self._best_rest = {name: torch.empty_like(rows) for name, rows in self.stack.rest.items()}
        self._has_best = [False] * (slots + 1)
        self.lanes: list[Lane] = []
        self.way = Way()
        self.steps = Steps(self._step, self._rows, self.gradient, mixed=is_mixed(task))
        self._validation = Validation(task, self.stack, self.steps, self.prepared_for_validation, self.batch_size)

    # Lanes come and go

    def add(self, lane: Lane, model: nn.Module, floats: Mapping[Place, float]) -> list[Place]:
        """A lane more, in the next slot; the floats in which lanes differ from now on."""
        slot = len(self.lanes)
        self.lanes.append(lane)
        for buffer in self.buffers.values():
            buffer[slot] = 0
        self._has_best[slot] = False
        fresh = self.stack.put(slot, model, floats)
        if fresh:
            self.steps.forget()
        return fresh

    def unlift(self, places: Collection[Place]) -> None:
        """No lane is left that differs in these floats."""
        self.stack.unlift(places)
        self.steps.forget()

    def remove(self, k: int) -> None:
        """The last lane takes the place of lane k."""
        last = len(self.lanes) - 1
        self._copy(last, k)
        self.lanes[k] = self.lanes[last]
        self.lanes.pop()

    def _copy(self, source: int, target: int) -> None:
        if source == target:
            return
        self.stack.move(source, target)
        for rows in [self._best, *self._best_rest.values(), *self.buffers.values(), self.gradient]:
            rows[target] = rows[source]
        self._has_best[target] = self._has_best[source]

    def keep_best(self, k: int) -> None:
        """Remember lane k's model as it is."""
        self._best[k] = self.stack.flat[k]
        for name, rows in self._best_rest.items():
            rows[k] = self.stack.rest[name][k]
        self._has_best[k] = True

    def best(self, k: int) -> dict[str, Tensor]:
        """The ``state_dict`` remembered; {} where there is none."""
        return self.stack.state(k, self._best, self._best_rest) if self._has_best[k] else {}

    def state(self, k: int) -> dict[str, Any]:
        """All that ``restore`` needs, in a lane or alone (``solo.Training``)."""
        lane = self.lanes[k]
        return {
            "model": self.stack.state(k),
            "transient": self.stack.transient(k),
            "best": self.best(k),
            "buffers": {name: rows[k, self.stack.columns] for name, rows in self.buffers.items()},
            "steps": lane.steps,
            "rate": lane.rate.state(),
        }

    def restore(self, k: int, state: Mapping[str, Any], model: nn.Module, floats: Mapping[Place, float]) -> None:
        """Go on from a state; ``model``: one of the lane's form, whose weights are of no account."""
        if state["best"]:
            load_state(model, state["best"])
            self.stack.put(k, model, floats)
            self.keep_best(k)
        load_state(model, state["model"], state["transient"])
        self.stack.put(k, model, floats)
        for name, rows in self.buffers.items():
            rows[k, self.stack.columns] = state["buffers"][name]
        self.lanes[k].steps = state["steps"]
        self.lanes[k].rate.restore(state["rate"])

    def checkpoint(self) -> dict[str, Any]:
        """All lanes as they are, to return to when an epoch cannot be finished."""
        k = len(self.lanes)
        lanes = [(lane.steps, lane.epoch, lane.rate.state()) for lane in self.lanes]
        return {"lanes": lanes, "rows": [rows[:k].clone() for rows in self._rows()]}

    def go_back(self, checkpoint: Mapping[str, Any]) -> None:
        """Return to a checkpoint of the same lanes."""
        for rows, kept in zip(self._rows(), checkpoint["rows"], strict=True):
            rows[: len(kept)] = kept
        for lane, (steps, epoch, rate) in zip(self.lanes, checkpoint["lanes"], strict=True):
            lane.steps, lane.epoch = steps, epoch
            lane.rate.restore(rate)

    def _rows(self) -> list[Tensor]:
        return [self.stack.flat, *self.stack.rest.values(), *self.buffers.values()]

    # An epoch

    @property
    def width(self) -> int:
        """Lanes that are computed: one more than there are.

        Vector instructions leave the last elements of a tensor to others that round differently. So the last lane is a
        companion that nobody hears of, and the bits of a lane do not depend on its slot or on how many there are.
        """
        count = len(self.lanes) + 1
        if self.device.type == "cpu":
            return count
        # A graph is captured for each width: few widths, and dead lanes cost at most a third.
        return min(self.stack.slots, next(w for w in widths() if w >= count))

    def run_epoch(self) -> list[dict[str, float]]:
        """Train and validate each lane's own next epoch: its metrics; ``train_loss`` alone where that diverged."""
        count = len(self.lanes)
        lanes = self.padded()
        losses, sizes = self.train_epoch(lanes)
        tables = []
        for mean, row in zip(means_by_rows(losses, sizes), losses.T.tolist(), strict=True):
            first = next((x for x in row if not math.isfinite(x)), math.nan)
            tables.append({"train_loss": mean if math.isfinite(mean) else first})
        fine = [k for k in range(count) if math.isfinite(tables[k]["train_loss"])]
        if fine:
            validated = self.evaluate(self.parts.validation, fine)
            for k in fine:
                lane = self.lanes[k]
                tables[k] |= {**validated[k], "lr": lane.rate.at(lane.epoch)}
                lane.rate.observe(tables[k]["val_loss"])
        for lane in self.lanes:
            lane.epoch += 1
        return tables[:count]

    def padded(self) -> list[Lane]:
        """The lanes and their companions: doubles of the first one."""
        companions = range(len(self.lanes), self.width)
        for slot in companions:
            self._copy(0, slot)
        return [*self.lanes, *(replace(self.lanes[0]) for _ in companions)]

    def train_epoch(self, lanes: Sequence[Lane]) -> tuple[Tensor, list[int]]:
        """One pass of each lane over the train part in its own order: losses (T, K), examples of each of T batches."""
        steps = self._batches(lanes)
        losses = []
        for number, batch in enumerate(self._fed(steps, lanes)):
            step = self._step_of(batch, lanes, len(steps))
            if number and self.way.augment and self.way.loss:
                # Once an epoch the task's Python runs all the same: what it begins to do later is noticed (``Group``).
                step = self.steps.repeated(step, batch)
            losses.append(step(batch))
        for lane in lanes:
            lane.steps += len(steps)
        return torch.stack(losses), [batch.rows.shape[1] for batch in steps]

    def prepare(self) -> None:
        """Make the step of the next whole batch, so that the engine is known."""
        lanes = self.padded()
        steps = self._batches(lanes)
        self._step_of(next(self._fed(steps, lanes)), lanes, len(steps))

    def _step_of(self, batch: Batch, lanes: Sequence[Lane], count: int) -> Step:
        left = count * max(lane.recipe.epochs - lane.epoch for lane in lanes)
        return self.steps.of(batch, left, whole=batch.rows.shape[1] == self.batch_size)

    def _batches(self, lanes: Sequence[Lane]) -> list[Batch]:
        """The lanes' next epochs."""
        rows = torch.split(self.orders(lanes), self.batch_size, dim=1)
        self.stack.form.train()
        masks, updates, extra = self.keys(lanes, len(rows)), self._settings(lanes, len(rows)), self._extra(lanes)
        parts = zip(rows, masks, updates, strict=True)
        return [Batch(rows=r, masks=m, numbers=n, extra=extra) for r, m, n in parts]

    def orders(self, lanes: Sequence[Lane]) -> Tensor:
        """Each lane's order of the train part in its next epoch, (K, N)."""
        return orders_of(lanes, len(self.parts.train.targets), self.device, shared=self.parts.streamed)

    def _fed(self, steps: Sequence[Batch], lanes: Sequence[Lane]) -> Iterator[Batch]:
        """The batches, with the data that the lanes share where it is streamed."""
        if not self.parts.streamed:
            return iter(steps)
        shared = self._shared(torch.cat([batch.rows[0] for batch in steps]), lanes[0])
        return (replace(batch, shared=data) for batch, data in zip(steps, shared, strict=True))

    def _shared(self, order: Tensor, lane: Lane) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs as the models take them, and targets, batch by batch: the same for all lanes of this one's seed."""
        for rows, batch in batches(self.parts.train, order, self.batch_size):
            extra = {"seed": lane.seed, "epoch": lane.epoch, "rows": rows}
            yield self.prepared(batch.inputs, extra), batch.targets

    def _step(self, k: int) -> Step:
        """A step of the first k lanes."""
        forward = self._body(k)

        def step(batch: Batch) -> Tensor:
            leaves = self.stack.leaves(k)
            loss, changed = forward(leaves, batch.masks, batch.rows, batch.extra, batch.shared)
            parts = self._gradients(loss, leaves)
            self.stack.take(changed)
            self._update(k, parts, batch.numbers)
            return loss.detach()

        return step

    def forward(self, k: int) -> Callable[..., tuple[Tensor, Rows]]:
        """A function of (leaves, keys, rows (K, B), lanes): losses (K,), and buffers put in place of others."""
        body = self._body(k)

        def run(leaves: Rows, keys: Any, rows: Tensor, lanes: Sequence[Lane]) -> tuple[Tensor, Rows]:
            shared = next(self._shared(rows[0], lanes[0])) if self.parts.streamed else ()
            return body(leaves, keys, rows, self._extra(lanes), shared)

        return run

    def _body(self, k: int) -> Callable[..., tuple[Tensor, Rows]]:
        """A function of (leaves, keys, rows (K, B), extra, shared), tensors only."""
        loss, split, streamed = partial(loss_of, self.task), self.parts.train, self.parts.streamed
        own = streamed and not self.way.shared  # each lane has a copy of the batch

        def train(model: Callable[..., Any], extra: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Any:
            if self.way.augment and not streamed:
                inputs = self.prepared(inputs, extra)
            if own:
                inputs = inputs.clone()
            output = output_of(self.task, model, inputs, lanes=True)
            return loss(output, targets, extra.get("smoothing")) if self.way.loss else output

        over = self.stack.over_lanes(train, k, shared=(1 if own else 2) if streamed else 0)

        def run(
            leaves: Rows, keys: Any, rows: Tensor, extra: Mapping[str, Tensor], shared: tuple[Tensor, ...]
        ) -> tuple[Tensor, Rows]:
            inputs, targets = shared or (split.inputs[rows], split.targets[rows])
            extra = {**extra, "rows": rows}
            if not self.way.augment and not streamed:
                one_by_one = [self.prepared(inputs[j], tree_map(lambda t, j=j: t[j], extra)) for j in range(k)]
                inputs = torch.stack(one_by_one)
            output, changed = over(leaves, keys, extra, inputs.expand(k, *inputs.shape) if own else inputs, targets)
            if self.way.loss:
                return output, changed
            smoothing, each = extra.get("smoothing", [None] * k), [targets] * k if streamed else targets
            return torch.stack(  # a loss may change its targets in place
                [loss(tree_map(lambda t, j=j: t[j], output), each[j].clone(), smoothing[j]) for j in range(k)]
            ), changed

        return run

    def _extra(self, lanes: Sequence[Lane]) -> dict[str, Tensor]:
        """What a lane's batch needs beside the data and its rows, (K,) each."""
        extra = {}
        if self._smoothing:
            numbers = [lane.recipe.label_smoothing for lane in lanes]
            extra["smoothing"] = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        if self.task.augment is not None:
            extra["seed"] = torch.tensor([lane.seed for lane in lanes], device=self.device)
            extra["epoch"] = torch.tensor([lane.epoch for lane in lanes], device=self.device)
        return extra

    def prepared(self, inputs: Tensor, extra: Mapping[str, Any]) -> Tensor:
        """A lane's batch as stored -> as its model takes it."""
        inputs = ready(self.parts, self._dtype, inputs)
        if self.task.augment is None:
            return inputs
        return self.task.augment(inputs, Key(extra["seed"], extra["epoch"], extra["rows"]))

    def keys(self, lanes: Sequence[Lane], count: int) -> Sequence[Sequence[Stream]]:
        """The keys of the dropout masks of the next ``count`` steps: pairs of (K,)-tensors, one a dropout."""
        calls = self.way.dropouts
        if not calls:
            return [[]] * count
        seeds = torch.tensor([lane.seed for lane in lanes], device=self.device)
        steps = torch.tensor([lane.steps for lane in lanes], device=self.device)
        steps = (steps + torch.arange(count, device=self.device)[:, None])[:, None]
        a, b = mask_key(seeds, steps, torch.arange(calls, device=self.device)[:, None])
        return [[(a[t, c], b[t, c]) for c in range(calls)] for t in range(count)]

    def _settings(self, lanes: Sequence[Lane], count: int) -> list[Settings]:
        """The numbers of the next ``count`` updates, (K, 1) each."""

        def form(numbers: Sequence[Any]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float64).to(self.device, self._dtype)[..., None]

        return settings_of(lanes, count, self.stack.penalised if self._spreads else None, form)

    def backward(self, loss: Tensor, leaves: Rows, k: int) -> None:
        """The gradient of each lane's loss into ``gradient``."""
        self.stack.gather(self._gradients(loss, leaves), self.gradient[:k])

    def _gradients(self, loss: Tensor, leaves: Rows) -> list[Tensor]:
        """Of each parameter, (K, ...)."""
        parts = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
        return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(parts, leaves.values(), strict=True)]

    def _update(self, k: int, parts: Sequence[Tensor], numbers: Settings) -> None:
        buffers = {name: rows[:k] for name, rows in self.buffers.items()}
        numbers = numbers if self._spreads else spread(numbers, self.stack.penalised)
        gradient = self.stack.gather(parts, self.gradient[:k])
        update(self.optimizer, self.stack.flat[:k], gradient, buffers, numbers)

    def evaluate(self, split: Part, wanted: Sequence[int], *, captured: bool = True) -> dict[int, dict[str, float]]:
        """``val_loss`` and ``val_<metric>`` of the wanted lanes, means over the part's examples."""
        return self._validation.of(split, self.width, wanted, self.way, captured=captured)

    def prepared_for_validation(self, inputs: Tensor) -> Tensor:
        """Inputs as stored -> as the models take them."""
        return ready(self.parts, self._dtype, inputs)

    def norms(self) -> list[dict[str, tuple[float, float]]]:
        """Of each lane, layer -> (norm of the last gradient, norm of the weights)."""
        k = len(self.lanes)
        return lane_norms(self.stack.layers, self.gradient[:k], self.stack.flat[:k])
