"""Validation of all lanes at once; where steps are captured in CUDA graphs, so are its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hpsearch.objective import TrainingTask
from hpsearch.training.diagnostics import means_by_rows
from hpsearch.training.lane import Way
from hpsearch.training.loss import numbers_of, validation_batch
from hpsearch.training.precision import output_of
from hpsearch.training.stack import Stack
from hpsearch.training.step import Steps
from hpsearch.training.streaming import Part, stretches
from hpsearch.training.structure import CannotFuse

#: numbers by name, (K,) each
Table = Mapping[str, Tensor]
#: a function of (model, inputs, targets) -> of inputs and targets, for each lane at once
OverLanes = Callable[[Callable[..., Any]], Callable[[Tensor, Tensor], Any]]


@final
class Validation:
    """What lanes are worth on a part.

    Args:
        task: of all lanes.
        stack: their models.
        steps: where what is captured is kept.
        ready: inputs as stored -> as the models take them.
        batch_size: of the training.
    """

    def __init__(
        self, task: TrainingTask, stack: Stack, steps: Steps, ready: Callable[[Tensor], Tensor], batch_size: int
    ) -> None:
        self._task, self._stack, self._steps, self._ready, self._batch_size = task, stack, steps, ready, batch_size

    @torch.no_grad()
    def of(
        self, split: Part, k: int, wanted: Sequence[int], way: Way, *, captured: bool
    ) -> dict[int, dict[str, float]]:
        """``val_loss`` and ``val_<metric>`` of the wanted lanes, means over the part's examples.

        Args:
            split: the part.
            k: lanes that are computed.
            wanted: some of them.
            way: whether the task's loss and metrics can be vmapped, and lanes share each batch.
            captured: in CUDA graphs, where steps are.
        """
        self._stack.form.eval()
        size = validation_batch(self._task, len(split.targets))
        over_lanes = partial(self._over_lanes, k=k, size=size, shared=way.shared)
        measure = self._measure(over_lanes) if way.metrics else self._one_by_one(over_lanes, wanted)
        sums: dict[str, list[Tensor]] = {}
        sizes = []
        for batch in stretches(split, size):
            inputs = batch.inputs, batch.targets
            here = self._steps.captured(measure, inputs, k) if way.metrics and captured else measure
            for name, numbers in here(*inputs).items():
                sums.setdefault(name, []).append(numbers)
            sizes.append(len(batch.targets))
        means = {name: means_by_rows(torch.stack(numbers), sizes) for name, numbers in sums.items()}
        places = wanted if way.metrics else range(len(wanted))
        return {j: {name: lanes[at] for name, lanes in means.items()} for j, at in zip(wanted, places, strict=True)}

    def _measure(self, over_lanes: OverLanes) -> Callable[[Tensor, Tensor], Table]:
        def numbers(model: Callable[..., Any], inputs: Tensor, targets: Tensor) -> Any:
            return numbers_of(self._task, output_of(self._task, model, inputs, lanes=True), targets)

        return over_lanes(numbers)

    def _one_by_one(self, over_lanes: OverLanes, wanted: Sequence[int]) -> Callable[[Tensor, Tensor], Table]:
        """Where vmap cannot take their code."""
        outputs = over_lanes(lambda model, inputs, targets: output_of(self._task, model, inputs, lanes=True))

        def measure(inputs: Tensor, targets: Tensor) -> Table:
            output = outputs(inputs, targets)
            tables = [numbers_of(self._task, tree_map(lambda t, j=j: t[j], output), targets.clone()) for j in wanted]
            if any(table.keys() != tables[0].keys() for table in tables):
                raise CannotFuse("the names of its metrics depend on data")
            return {name: torch.stack([torch.as_tensor(table[name]) for table in tables]) for name in tables[0]}

        return measure

    def _over_lanes(self, body: Callable[..., Any], k: int, size: int, shared: bool) -> Callable[[Tensor, Tensor], Any]:
        chunk = self._chunk(k, size)

        def fresh(model: Callable[..., Any], inputs: Tensor, targets: Tensor) -> Any:
            return body(model, inputs.clone(), targets.clone())  # what a chunk changes in place is not the next one's

        once = shared and (chunk is None or chunk >= k)
        forward = self._stack.over_lanes(body if once else fresh, k, shared=2 if shared else 1, chunk=chunk)
        views = self._stack.views(self._stack.flat[:k])

        def run(inputs: Tensor, targets: Tensor) -> Any:
            inputs = self._ready(inputs)
            given = inputs if shared else inputs.expand(k, *inputs.shape)
            output, changed = forward(views, [], given, targets)
            self._stack.take(changed)
            return output

        return run

    def _chunk(self, k: int, size: int) -> int | None:
        """Lanes validated at once: on a GPU as many activations as in training; on the CPU all, for their bits."""
        if self._stack.flat.device.type == "cpu":
            return None
        return max(2, -(-k * self._batch_size // size))
