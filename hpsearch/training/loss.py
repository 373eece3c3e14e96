"""The loss of a batch: the task's own, or the default with smoothed labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hpsearch.errors import ObjectiveError
from hpsearch.objective import TrainingTask

_IGNORED = -100


def validation_batch(task: TrainingTask, examples: int) -> int:
    """Examples of a validation batch: fixed, so that a value does not depend on the batch size that is searched.

    Raises:
        ObjectiveError: the task's number is none.
    """
    size = task.validation_batch
    if size is not None and (type(size) is not int or size < 1):
        raise ObjectiveError(f"validation_batch: must be a whole number above 0 or None (all at once), not {size!r}")
    return examples if size is None else size


def loss_of(task: TrainingTask, output: Any, targets: Tensor, smoothing: float | Tensor | None = None) -> Tensor:
    """What is differentiated, 0-d; ``smoothing``: in [0, 1], a number or a 0-d tensor, None for the task's own loss.

    Raises:
        ObjectiveError: the task's loss is no scalar.
    """
    if smoothing is not None:
        return smoothed_cross_entropy(output, targets, smoothing)
    loss = task.loss(output, targets)
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ObjectiveError(f"loss: must return a scalar tensor (0-d), not {got}", hint="return loss.mean()")
    return loss


def numbers_of(task: TrainingTask, output: Any, targets: Tensor, prefix: str = "val") -> dict[str, Any]:
    """``<prefix>_loss`` (the task's own) and ``<prefix>_<metric>`` of a batch of one model."""
    numbers = {"loss": task.loss(output, targets), **task.metrics(output, targets)}
    return {f"{prefix}_{name}": number for name, number in numbers.items()}


def smoothed_cross_entropy(output: Tensor, targets: Tensor, smoothing: float | Tensor) -> Tensor:
    """Cross entropy of logits (B, C, ...) against (1 - s) of the class and s spread over all C, mean over the targets.

    As ``functional.cross_entropy(label_smoothing=s)``, which takes no tensor. Source: Szegedy et al.,
    arXiv:1512.00567, section 7.
    """
    dim = 1 if output.dim() > 1 else 0
    logs = functional.log_softmax(output, dim)
    counted = targets != _IGNORED
    spread = torch.where(counted, -logs.mean(dim), 0.0).sum() / counted.sum()
    own = functional.nll_loss(logs, targets, ignore_index=_IGNORED)
    if isinstance(smoothing, Tensor):
        return own * (1 - smoothing).to(own.dtype) + spread * smoothing.to(own.dtype)
    return own * (1 - smoothing) + spread * smoothing
