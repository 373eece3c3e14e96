"""A task's model as training begins: made under the run's seed, on the CPU, and the batches it takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hpsearch.errors import ObjectiveError
from hpsearch.objective import TrainingTask
from hpsearch.training.data import Parts
from hpsearch.training.guard import seed_everything
from hpsearch.training.recipe import ModelParams


def build(task: TrainingTask, params: ModelParams, parts: Parts, seed: int) -> nn.Module:
    """The model of a run with that seed, as its factory and the task's ``init`` leave it.

    Raises:
        ObjectiveError: ``model`` returns no module, or one without trainable parameters.
    """
    seed_everything(seed)
    model = task.model(params)
    if not isinstance(model, nn.Module):
        raise ObjectiveError(f"model: must return a torch.nn.Module, not {type(model).__name__}")
    if any(is_lazy(p) for p in model.parameters()):
        with torch.no_grad():
            model.eval()(ready(parts, torch.float32, parts.train.inputs[:2].clone()).cpu())
    if task.init is not None:
        initialise(model, task.init)
    if not any(p.requires_grad for p in model.parameters()):
        raise ObjectiveError("model: has no trainable parameters")
    return model


def ready(parts: Parts, dtype: torch.dtype, inputs: Tensor) -> Tensor:
    """A batch as stored -> as the model takes it."""
    if parts.transform is not None:
        inputs = parts.transform(inputs)
    return inputs.to(dtype) if inputs.is_floating_point() or inputs.dtype == torch.uint8 else inputs


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
