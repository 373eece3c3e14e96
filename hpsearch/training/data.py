"""The parts of a task's data. A search gets train and validation; only ``sealed_test`` gives the test part."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpsearch.errors import ObjectiveError
from hpsearch.objective import Data, Split, TrainingTask
from hpsearch.space import Params
from hpsearch.training.fingerprint import fingerprint
from hpsearch.training.guard import seeded
from hpsearch.training.precision import dtype_of
from hpsearch.training.randomness import Purpose, permutation
from hpsearch.training.recipe import ModelParams
from hpsearch.training.streaming import Part, Streamed, StreamedRows, is_streamed

_NO_PARAMS = ModelParams({})


@final
@dataclass(frozen=True, kw_only=True)
class Parts:
    """What one training sees: on its device, or streamed to it."""

    train: Part
    validation: Part
    #: a batch as stored -> as the model takes it; None: as it is
    transform: Callable[[Tensor], Tensor] | None = None
    #: ``fingerprint`` of the data that they were cut from
    fingerprint: str = ""

    @property
    def streamed(self) -> bool:
        """Whether batches are gathered on the host, and lanes share them."""
        return isinstance(self.train, Streamed)


#: the latest parts, with what they were made for, the params that ``data`` read, and what it left in the task
_PREPARED: deque[tuple[tuple[TrainingTask, int, str], Params, tuple[Parts, ...], dict[str, object]]] = deque(maxlen=4)


def prepare(task: TrainingTask, seed: int, device: str, params: ModelParams = _NO_PARAMS) -> tuple[Parts, ...]:
    """Train and validation part by the study's seed; with ``task.folds``, one pair a fold. Kept for later runs.

    Raises:
        ObjectiveError: the data or the split make no sense.
    """
    for made_for, read, parts, left in _PREPARED:
        if made_for == (task, seed, device) and all(name in params and params[name] == read[name] for name in read):
            vars(task).update(left)  # of its last call, which may have been for another run
            return parts
    seen, before = params.fresh(), dict(vars(task))
    data = _checked(task, seed, seen)
    pairs = _pairs(task, data, seed, device)
    for name in seen.read:
        params.get(name)  # so it counts as read there too
    left = {name: value for name, value in vars(task).items() if name not in before or before[name] is not value}
    _PREPARED.append(((task, seed, device), seen.read, pairs, left))
    return pairs


def _pairs(task: TrainingTask, data: Data, seed: int, device: str) -> tuple[Parts, ...]:
    train, validation, _ = _cut(task, data, seed)
    if task.folds is None:
        pairs = [(train, validation)]
    else:
        both = torch.cat([train, validation])
        pairs = [(torch.cat([*parts[:k], *parts[k + 1 :]]), part) for parts in [_folds(task, both)]
                 for k, part in enumerate(parts)]  # fmt: skip
    if any(len(part) == 0 for pair in pairs for part in pair):
        raise ObjectiveError(f"data: {len(data.targets)} examples are too few for split {task.split} or folds")
    seen = fingerprint(data)
    streamed = is_streamed(task.stream, sum(_size(task, data, len(part)) for pair in pairs for part in pair), device)
    return tuple(
        Parts(
            train=_take(task, data, train, device, streamed),
            validation=_take(task, data, validation, device, streamed),
            transform=data.transform,
            fingerprint=seen,
        )
        for train, validation in pairs
    )


def sealed_test(
    task: TrainingTask, seed: int, device: str, params: ModelParams = _NO_PARAMS
) -> tuple[Part, Callable[[Tensor], Tensor] | None]:
    """The test part (the official one, or the last by the study's seed), and its transform. No search calls this."""
    data = _checked(task, seed, params)
    transform = data.transform
    if data.test_inputs is not None and data.test_targets is not None:
        data = Data(inputs=data.test_inputs, targets=data.test_targets)
        rows = torch.arange(len(data.targets))
    else:
        rows = _cut(task, data, seed)[2]
    streamed = is_streamed(task.stream, _size(task, data, len(rows)), device)
    return _take(task, data, rows, device, streamed), transform


def _checked(task: TrainingTask, seed: int, params: ModelParams) -> Data:
    data = _made(task, seed, params)
    if not isinstance(data, Data):
        raise ObjectiveError(f"data: must return hpsearch.Data of two tensors, not {type(data).__name__}")
    parts: list[tuple[str, object]] = [("inputs", data.inputs), ("targets", data.targets)]
    for name, part in parts:
        if not isinstance(part, Tensor):
            kind = type(part).__name__
            raise ObjectiveError(f"data: {name} must be one tensor, not {kind}", hint="torch.as_tensor(...)")
    if len(data.inputs) != len(data.targets):
        raise ObjectiveError(f"data: {len(data.inputs)} inputs, but {len(data.targets)} targets")
    if (data.test_inputs is None) != (data.test_targets is None):
        raise ObjectiveError("data: test_inputs and test_targets go together; one of them is missing")
    if len(task.split) != 3 or min(task.split) <= 0 or abs(sum(task.split) - 1) > 1e-9:
        raise ObjectiveError(f"split: must be three parts above 0 that sum to 1, not {task.split}")
    if task.folds is not None and not 2 <= task.folds <= len(data.targets):
        raise ObjectiveError(f"folds: must be from 2 to the number of examples, not {task.folds}")
    if task.stream not in (True, False, None):
        raise ObjectiveError(f"stream: must be True, False or None (by size), not {task.stream!r}")
    return data


def _made(task: TrainingTask, seed: int, params: ModelParams) -> object:
    task.params = params
    try:
        with seeded(seed):  # what it draws is the same in every worker, whatever ran there before
            return task.data()
    finally:
        del task.params  # another run's would be read


def _cut(task: TrainingTask, data: Data, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    order = _order(data.targets.cpu(), seed)
    train, validation, test = task.split
    if data.test_inputs is not None:
        train, validation, test = train / (train + validation), validation / (train + validation), 0.0
    first, second = round(len(order) * train), round(len(order) * (1 - test))
    return order[:first], order[first:second], order[second:]


def _order(targets: Tensor, seed: int) -> Tensor:
    """An order of which every stretch holds each class in its proportion (give or take one); random otherwise."""
    order = permutation(seed, Purpose.SPLIT, 0, len(targets))
    if targets.is_floating_point() or targets.dim() != 1:
        return order
    classes, labels = torch.unique(targets[order], return_inverse=True)
    place = torch.empty(len(order), dtype=torch.float64)
    starts = permutation(seed, Purpose.SPLIT, 1, len(classes)).double().add(0.5).div(len(classes))
    for label, start in enumerate(starts.tolist()):
        members = labels == label
        count = int(members.sum())
        place[members] = (torch.arange(count, dtype=torch.float64) + start) / count
    return order[place.argsort(stable=True)]


def _folds(task: TrainingTask, indices: Tensor) -> Sequence[Tensor]:
    assert task.folds is not None
    return indices.tensor_split(task.folds)


def _take(task: TrainingTask, data: Data, indices: Tensor, device: str, streamed: bool) -> Part:
    """Rows in rising order; floats in the task's precision, classes as int64; other inputs stay as they are."""
    rows = indices.sort().values
    parts = zip((data.inputs, data.targets), _dtypes(task, data), strict=True)
    if streamed:
        return Streamed(*(StreamedRows(source, rows, dtype, torch.device(device)) for source, dtype in parts))
    return Split(*(source[rows.to(source.device)].to(dtype).to(device) for source, dtype in parts))


def _dtypes(task: TrainingTask, data: Data) -> tuple[torch.dtype, torch.dtype]:
    """In which inputs and targets are trained on."""
    dtype = dtype_of(task)
    return (
        dtype if data.inputs.is_floating_point() else data.inputs.dtype,
        dtype if data.targets.is_floating_point() else torch.int64,
    )


def _size(task: TrainingTask, data: Data, rows: int) -> int:
    """Bytes of so many rows on the device."""
    parts = zip((data.inputs, data.targets), _dtypes(task, data), strict=True)
    return rows * sum(source[:1].numel() * dtype.itemsize for source, dtype in parts)
