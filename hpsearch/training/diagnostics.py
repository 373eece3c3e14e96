"""What one can see of a training from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hpsearch.training.optim import Weights


def layer_norms(weights: Weights) -> dict[str, tuple[float, float]]:
    """Layer -> (norm of the last gradient, norm of the weights), non-finite ones left out; one copy from the device."""
    parts = weights.layers.values()
    norms = [torch.linalg.vector_norm(flat[part]) for flat in (weights.gradient, weights.flat) for part in parts]
    if not norms:
        return {}
    numbers = torch.stack(norms).tolist()
    pairs = zip(weights.layers, numbers[: len(parts)], numbers[len(parts) :], strict=True)
    return {name: (gradient, weight) for name, gradient, weight in pairs if math.isfinite(gradient + weight)}


def lane_norms(layers: Mapping[str, slice], gradient: Tensor, flat: Tensor) -> list[dict[str, tuple[float, float]]]:
    """``layer_norms`` of each lane, from gradients and weights (K, P)."""
    norms = [torch.linalg.vector_norm(rows[:, part], dim=1) for rows in (gradient, flat) for part in layers.values()]
    tables = []
    for numbers in torch.stack(norms, 1).tolist():
        pairs = zip(layers, numbers[: len(layers)], numbers[len(layers) :], strict=True)
        tables.append({name: (g, w) for name, g, w in pairs if math.isfinite(g + w)})
    return tables


def mean_by_rows(values: Tensor, rows: Sequence[int]) -> float:
    """The mean over all examples of numbers (T,) that are means over batches of so many; summed in double."""
    return means_by_rows(values[:, None], rows)[0]


def means_by_rows(values: Tensor, rows: Sequence[int]) -> list[float]:
    """``mean_by_rows`` of each lane, from numbers (T, K)."""
    counts = torch.tensor(rows, dtype=torch.float64)
    total = counts.sum()
    return [float(lane @ counts / total) for lane in values.double().cpu().T.contiguous()]


def mean_of(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over tables with the same names."""
    return {name: sum(table[name] for table in tables) / len(tables) for name in tables[0]}
