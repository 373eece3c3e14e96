"""Data that stays where it is, in memory or in a mapped file: its rows are gathered batch by batch.

What fits is copied to the device once (``data.py``); what does not is streamed. An index into a ``Streamed`` part gives
what the same index into a copy would give, so a run sees the same numbers either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import psutil
import torch
from torch import Tensor

from hpsearch.objective import Split
from hpsearch.training.guard import return_memory

#: device -> of its free memory what data may fill. On a GPU the rest is for lanes; on the CPU there are other workers.
SHARE = {"cuda": 0.5, "cpu": 0.25}
#: where a container's memory limit is (cgroup v2); a number, or ``max``
_LIMIT = Path("/sys/fs/cgroup/memory.max")


@final
class StreamedRows:
    """Rows of a tensor; an index gathers some of them onto the device.

    Args:
        source: (M, ...); stays where it is.
        rows: which of its rows these are, in what order, (N,).
        dtype: of what an index gives.
        device: where that is.
    """

    def __init__(self, source: Tensor, rows: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        self._source, self._rows, self.dtype, self.device = source, rows.to(source.device), dtype, device
        self._locked: _Locked | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """(B, ...): the rows at these places, (B,)."""
        rows = self._rows[index if isinstance(index, slice) else index.to(self._rows.device)]
        if self._source.device.type == "cpu" and self.device.type == "cuda":
            if self._locked is None or self._locked.size < len(rows):
                self._locked = _Locked(self._source, len(rows))
            return self._locked.send(self._source, rows, self.device).to(self.dtype)
        return self._source[rows].to(self.device, self.dtype)

    def is_floating_point(self) -> bool:
        """Whether an index gives floats."""
        return self.dtype.is_floating_point


@final
@dataclass(frozen=True)
class Streamed:
    """A ``Split`` whose rows are gathered batch by batch."""

    inputs: StreamedRows
    targets: StreamedRows


#: what a training sees of a part
Part = Split | Streamed


def is_streamed(wanted: bool | None, size: int, device: str) -> bool:
    """Whether data of so many bytes is streamed: as the task wants it, else where it would fill too much memory."""
    if wanted is not None:
        return wanted
    kind = torch.device(device).type
    return size > SHARE.get(kind, SHARE["cpu"]) * _free(device, kind)


def batches(part: Part, order: Tensor, size: int) -> Iterator[tuple[Tensor, Split]]:
    """Places of examples (B,), and these: the next ``size`` of an order (N,) of a part, which is on the device."""
    found = order
    if isinstance(part, Streamed):
        return_memory()
        found = order.cpu()  # once: a GPU would be waited for at every batch
    for places, rows in zip(torch.split(order, size), torch.split(found, size), strict=True):
        yield places, Split(part.inputs[rows], part.targets[rows])


def stretches(part: Part, size: int) -> Iterator[Split]:
    """A part as it lies, ``size`` examples at a time: copies, since a transform, a forward or a loss may change its
    batch in place, and the part serves every epoch of every run.
    """
    for start in range(0, len(part.targets), size):
        rows = slice(start, start + size)
        inputs, targets = part.inputs[rows], part.targets[rows]
        if isinstance(part, Split):  # what is gathered from a stream is a copy already
            inputs, targets = inputs.clone(), targets.clone()
        yield Split(inputs, targets)


def _free(device: str, kind: str) -> int:
    """Bytes that a device has left."""
    if kind == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free: int = psutil.virtual_memory().available
    try:
        return min(free, int(_LIMIT.read_text()))
    except (OSError, ValueError):
        return free


@final
class _Locked:
    """Page-locked memory for two batches: one is gathered while the GPU still has to copy, or to train on, the other.

    The host does not wait for a copy, so without a thread it is one batch ahead.
    """

    def __init__(self, source: Tensor, size: int) -> None:
        self.size = size
        shape = (size, *source.shape[1:])
        self._buffers = [torch.empty(shape, dtype=source.dtype, pin_memory=True) for _ in range(2)]
        self._copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
        self._turn = 0

    def send(self, source: Tensor, rows: Tensor, device: torch.device) -> Tensor:
        """Rows of the source, on their way to the device."""
        buffer, copied = self._buffers[self._turn][: len(rows)], self._copied[self._turn]
        self._turn = 1 - self._turn
        copied.synchronize()
        torch.index_select(source, 0, rows, out=buffer)
        sent = buffer.to(device, non_blocking=True)
        copied.record(torch.cuda.current_stream(device))
        return sent
