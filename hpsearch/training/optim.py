"""Our own optimisers: a few plain operations on one flat buffer of all weights.

``torch.optim`` takes no learning rate per lane. The formulas below work on weights of shape (P,) with numbers as
hyperparameters, and as they stand on (K, P) with (K, 1)-tensors; a test holds them against ``torch.optim``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from hpsearch.training.recipe import Recipe

NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d,
    nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm,
)  # fmt: skip

#: a number, or a tensor of one a lane that broadcasts with the weights
Number = float | Tensor
#: names of the buffers that an optimizer keeps, each of the weights' shape and zero at first
BUFFERS: Mapping[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("velocity",),
    "nesterov": ("velocity",),
    "adagrad": ("square",),
    "rmsprop": ("square",),
    "adam": ("mean", "square"),
    "adamw": ("mean", "square"),
}


def change(
    name: str,
    gradient: Tensor,
    buffers: Mapping[str, Tensor],
    *,
    lr: Number,
    momentum: Number = 0.0,
    beta1: Number = 0.9,
    beta2: Number = 0.999,
    correction1: Number = 1.0,
    correction2: Number = 1.0,
) -> Tensor:
    """What is subtracted from the weights in one step; updates ``buffers`` in place.

    Args:
        name: of the optimizer.
        gradient: (..., P), penalties included.
        buffers: those that ``BUFFERS`` names, of the gradient's shape.
        lr, momentum, beta1, beta2: numbers, or tensors that broadcast with (..., P).
        correction1, correction2: Adam's 1 - beta1**t and sqrt(1 - beta2**t), t from 1, in double precision: in
            float32 they drift.

    Sources: momentum and Nesterov as in Sutskever et al. (ICML 2013) in torch's form; Adagrad, Duchi et al.
    (JMLR 12, 2011); RMSprop, Hinton's lecture 6e (decay 0.99); Adam, Kingma and Ba (arXiv:1412.6980, algorithm 1);
    AdamW, Loshchilov and Hutter (arXiv:1711.05101, algorithm 2).
    """
    if name == "sgd":
        return gradient * lr
    if name in ("momentum", "nesterov"):
        velocity = buffers["velocity"].mul_(momentum).add_(gradient)
        return (gradient + velocity * momentum if name == "nesterov" else velocity) * lr
    square = buffers["square"]
    if name == "adagrad":
        square.addcmul_(gradient, gradient)
        return gradient / square.sqrt().add_(1e-10) * lr
    if name == "rmsprop":
        square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        return gradient / square.sqrt().add_(1e-8) * lr
    mean = buffers["mean"].mul_(beta1).add_(gradient * (1 - beta1))
    square.mul_(beta2).add_(gradient.square().mul_(1 - beta2))
    return mean / square.sqrt().div_(correction2).add_(1e-8) * (lr / correction1)


def clip_factor(gradient: Tensor, clip: Number) -> Tensor:
    """What the gradient (..., P) is multiplied by so that its norm is at most ``clip`` (clip_grad_norm_): (..., 1)."""
    norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    return torch.clamp(clip / (norm + 1e-6), max=1.0)


@final
class Weights:
    """The trainable parameters of a model as views of one flat buffer, and their gradients of another."""

    def __init__(self, model: nn.Module) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
        #: (P,)
        self.flat = torch.cat([p.detach().reshape(-1) for _, p in named])
        #: (P,), of the last ``backward``
        self.gradient = torch.zeros_like(self.flat)
        #: (P,): 1 for weights, 0 for biases and the parameters of normalisation layers
        self.penalised = torch.zeros_like(self.flat)
        #: layer -> its part of the flat buffer
        self.layers: dict[str, slice] = {}
        start = 0
        for name, p in named:
            end = start + p.numel()
            p.data = self.flat[start:end].view(p.shape)
            p.grad = self.gradient[start:end].view(p.shape)
            if p.dim() > 1 and id(p) not in norms:
                self.penalised[start:end] = 1
            layer = name.rpartition(".")[0] or name
            self.layers[layer] = slice(self.layers[layer].start if layer in self.layers else start, end)
            start = end


@final
class Optimizer:
    """Updates ``Weights`` by the optimizer that a recipe names.

    A step clips the loss's gradient by its norm, adds the penalties' (l2 unless adamw, which decays apart; l1 as
    sign(w)), and subtracts ``change``.
    """

    def __init__(self, recipe: Recipe, weights: Weights) -> None:
        self._recipe, self._weights = recipe, weights
        self.buffers = {name: torch.zeros_like(weights.flat) for name in BUFFERS[recipe.optimizer]}
        self.steps = 0

    def step(self, lr: float) -> None:
        """One update from ``weights.gradient``, which stays as it is."""
        recipe, weight, gradient = self._recipe, self._weights.flat, self._weights.gradient
        self.steps += 1
        beta1, beta2 = recipe.betas
        if recipe.clip is not None:
            gradient = gradient * clip_factor(gradient, recipe.clip)
        if recipe.weight_decay and recipe.optimizer != "adamw":
            gradient = gradient + self._weights.penalised * weight * recipe.weight_decay
        if recipe.l1:
            gradient = gradient + self._weights.penalised * weight.sign() * recipe.l1
        if recipe.weight_decay and recipe.optimizer == "adamw":
            weight.sub_(self._weights.penalised * weight * (lr * recipe.weight_decay))
        weight.sub_(
            change(
                recipe.optimizer,
                gradient,
                self.buffers,
                lr=lr,
                momentum=recipe.momentum,
                beta1=beta1,
                beta2=beta2,
                correction1=1 - beta1**self.steps,
                correction2=math.sqrt(1 - beta2**self.steps),
            )
        )
