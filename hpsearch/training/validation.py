"""Validation of all lanes at once; where steps are captured in CUDA graphs, so are its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hpsearch.objective import TrainingTask
from hpsearch.training.diagnostics import means_by_rows
from hpsearch.training.loss import VALIDATION_BATCH, numbers_of
from hpsearch.training.precision import output_of
from hpsearch.training.stack import Stack
from hpsearch.training.step import Steps
from hpsearch.training.streaming import Part, stretches

#: numbers by name, (K,) each
Table = Mapping[str, Tensor]


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
        self, split: Part, k: int, wanted: Sequence[int], *, vmapped: bool, captured: bool
    ) -> dict[int, dict[str, float]]:
        """``val_loss`` and ``val_<metric>`` of the wanted lanes, means over the part's examples.

        Args:
            split: the part.
            k: lanes that are computed.
            wanted: some of them.
            vmapped: the task's loss and metrics can be vmapped; else lanes are measured one by one.
            captured: in CUDA graphs, where steps are.
        """
        self._stack.form.eval()
        measure = self._measure(k) if vmapped else self._one_by_one(k, wanted)
        sums: dict[str, list[Tensor]] = {}
        sizes = []
        for batch in stretches(split, VALIDATION_BATCH):
            inputs = batch.inputs, batch.targets
            here = self._steps.captured(measure, inputs, k) if vmapped and captured else measure
            for name, numbers in here(*inputs).items():
                sums.setdefault(name, []).append(numbers)
            sizes.append(len(batch.targets))
        means = {name: means_by_rows(torch.stack(numbers), sizes) for name, numbers in sums.items()}
        places = wanted if vmapped else range(len(wanted))
        return {j: {name: lanes[at] for name, lanes in means.items()} for j, at in zip(wanted, places, strict=True)}

    def _measure(self, k: int) -> Callable[[Tensor, Tensor], Table]:
        def numbers(model: Callable[..., Any], inputs: Tensor, targets: Tensor) -> Any:
            return numbers_of(self._task, output_of(self._task, model, inputs, lanes=True), targets)

        return self._over_lanes(numbers, k)

    def _one_by_one(self, k: int, wanted: Sequence[int]) -> Callable[[Tensor, Tensor], Table]:
        """Where vmap cannot take their code."""
        outputs = self._over_lanes(lambda model, inputs, targets: output_of(self._task, model, inputs, lanes=True), k)

        def measure(inputs: Tensor, targets: Tensor) -> Table:
            output = outputs(inputs, targets)
            tables = [numbers_of(self._task, tree_map(lambda t, j=j: t[j], output), targets) for j in wanted]
            return {name: torch.stack([torch.as_tensor(table[name]) for table in tables]) for name in tables[0]}

        return measure

    def _over_lanes(self, body: Callable[..., Any], k: int) -> Callable[[Tensor, Tensor], Any]:
        forward = self._stack.over_lanes(body, k, shared=2, chunk=self._chunk(k))
        views = self._stack.views(self._stack.flat[:k])

        def run(inputs: Tensor, targets: Tensor) -> Any:
            output, changed = forward(views, [], self._ready(inputs), targets)
            self._stack.take(changed)
            return output

        return run

    def _chunk(self, k: int) -> int | None:
        """Lanes validated at once: on a GPU as many activations as in training; on the CPU all, for their bits."""
        if self._stack.flat.device.type == "cpu":
            return None
        return max(2, -(-k * self._batch_size // VALIDATION_BATCH))
