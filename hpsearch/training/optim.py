"""Our own optimisers: a few plain operations on one flat buffer of all weights.

``torch.optim`` takes no learning rate per lane. The formulas below work on weights of shape (P,) with numbers as
hyperparameters, and as they stand on (K, P) with (K, 1)-tensors; a test holds them against ``torch.optim``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
#: numbers of the lanes -> what the formulas take
Form = Callable[[list[float]], Number]
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


def direction(
    name: str,
    gradient: Tensor,
    buffers: Mapping[str, Tensor],
    *,
    momentum: Number = 0.0,
    beta1: Number = 0.9,
    beta2: Number = 0.999,
    rest1: Number = 0.1,
    rest2: Number = 0.001,
    correction2: Number = 1.0,
) -> Tensor:
    """What is subtracted from the weights in one step, but for the learning rate; updates ``buffers`` in place.

    Args:
        name: of the optimizer.
        gradient: (..., P), penalties included.
        buffers: those that ``BUFFERS`` names, of the gradient's shape.
        momentum, beta1, beta2: numbers, or tensors that broadcast with (..., P).
        rest1, rest2: 1 - beta1 and 1 - beta2, taken in double precision.
        correction2: sqrt(1 - beta2**t), t from 1; the learning rate is over 1 - beta1**t. Both in double precision: in
            float32 they drift.

    Sources: momentum and Nesterov as in Sutskever et al. (ICML 2013) in torch's form; Adagrad, Duchi et al.
    (JMLR 12, 2011); RMSprop, Hinton's lecture 6e (decay 0.99); Adam, Kingma and Ba (arXiv:1412.6980, algorithm 1);
    AdamW, Loshchilov and Hutter (arXiv:1711.05101, algorithm 2).
    """
    if name == "sgd":
        return gradient
    if name in ("momentum", "nesterov"):
        velocity = buffers["velocity"].mul_(momentum).add_(gradient)
        return gradient + velocity * momentum if name == "nesterov" else velocity
    square = buffers["square"]
    if name == "adagrad":
        square.addcmul_(gradient, gradient)
        return gradient / square.sqrt().add_(1e-10)
    if name == "rmsprop":
        square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        return gradient / square.sqrt().add_(1e-8)
    mean = buffers["mean"].mul_(beta1).add_(gradient * rest1)
    square.mul_(beta2).add_(gradient.square().mul_(rest2))
    return mean / square.sqrt().div_(correction2).add_(1e-8)


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
@dataclass(frozen=True, kw_only=True)
class Settings:
    """The numbers of one update, or of one a lane: tensors (K, 1) in the weights' precision."""

    lr: Number
    momentum: Number
    beta1: Number
    beta2: Number
    rest1: Number
    rest2: Number
    correction2: Number
    #: lr * weight_decay; None: not adamw
    decay: Number | None
    #: None: no penalty or clipping at all
    weight_decay: Number | None
    l1: Number | None
    clip: Number | None


def corrections(recipe: Recipe, rate: float, step: int) -> tuple[float, float]:
    """Adam's learning rate over 1 - beta1**step, and sqrt(1 - beta2**step); (rate, 1) of other optimizers."""
    if recipe.optimizer not in ("adam", "adamw"):
        return rate, 1.0
    beta1, beta2 = recipe.betas
    return rate / (1 - beta1**step), math.sqrt(1 - beta2**step)


def settings(recipes: Sequence[Recipe], rates: Sequence[float], steps: Sequence[int], form: Form) -> Settings:
    """Of an update with number ``steps`` (from 1) at learning rates ``rates``; ``form`` makes numbers of lists.

    The recipes agree in their optimizer, and in whether they clip.
    """
    corrected = [corrections(*lane) for lane in zip(recipes, rates, steps, strict=True)]

    def penalty(numbers: list[float]) -> Number | None:
        return form(numbers) if any(numbers) else None

    return Settings(
        lr=form([lr for lr, _ in corrected]),
        momentum=form([r.momentum for r in recipes]),
        beta1=form([r.betas[0] for r in recipes]),
        beta2=form([r.betas[1] for r in recipes]),
        rest1=form([1 - r.betas[0] for r in recipes]),
        rest2=form([1 - r.betas[1] for r in recipes]),
        correction2=form([second for _, second in corrected]),
        decay=form([rate * r.weight_decay for r, rate in zip(recipes, rates, strict=True)])
        if recipes[0].optimizer == "adamw"
        else None,
        weight_decay=penalty([r.weight_decay for r in recipes]),
        l1=penalty([r.l1 for r in recipes]),
        clip=None if recipes[0].clip is None else form([r.clip or 0.0 for r in recipes]),
    )


def spread(numbers: Settings, penalised: Tensor) -> Settings:
    """The penalties' numbers for each weight, (..., P): 0 for those that are left alone (``penalised`` (P,))."""

    def each(number: Number | None) -> Number | None:
        return None if number is None else penalised * number

    return replace(numbers, decay=each(numbers.decay), weight_decay=each(numbers.weight_decay), l1=each(numbers.l1))


def update(name: str, weight: Tensor, gradient: Tensor, buffers: Mapping[str, Tensor], numbers: Settings) -> None:
    """One step, in place: clip the loss's gradient by its norm, add the penalties' (l2 unless adamw, which decays
    apart; l1 as sign(w)), subtract lr times ``direction``.

    Args:
        name: of the optimizer.
        weight, gradient, buffers: (..., P); the gradient stays as it is.
        numbers: of this step, ``spread``.
    """
    if numbers.clip is not None:
        gradient = gradient * clip_factor(gradient, numbers.clip)
    if isinstance(numbers.weight_decay, Tensor) and name != "adamw":
        gradient = torch.addcmul(gradient, weight, numbers.weight_decay)
    if isinstance(numbers.l1, Tensor):
        gradient = torch.addcmul(gradient, weight.sign(), numbers.l1)
    if isinstance(numbers.decay, Tensor) and numbers.weight_decay is not None:
        weight.addcmul_(weight, numbers.decay, value=-1)
    step = direction(
        name,
        gradient,
        buffers,
        momentum=numbers.momentum,
        beta1=numbers.beta1,
        beta2=numbers.beta2,
        rest1=numbers.rest1,
        rest2=numbers.rest2,
        correction2=numbers.correction2,
    )
    if isinstance(numbers.lr, Tensor):
        weight.addcmul_(step, numbers.lr, value=-1)
    else:
        weight.sub_(step, alpha=numbers.lr)


@final
class Optimizer:
    """Updates ``Weights`` by the optimizer that a recipe names."""

    def __init__(self, recipe: Recipe, weights: Weights) -> None:
        self._recipe, self._weights = recipe, weights
        self.buffers = {name: torch.zeros_like(weights.flat) for name in BUFFERS[recipe.optimizer]}
        self.steps = 0

    def step(self, lr: float) -> None:
        """One update from ``weights.gradient``, which stays as it is."""
        self.steps += 1
        numbers = settings([self._recipe], [lr], [self.steps], lambda values: values[0])
        weights = self._weights
        numbers = spread(numbers, weights.penalised)
        update(self._recipe.optimizer, weights.flat, weights.gradient, self.buffers, numbers)
