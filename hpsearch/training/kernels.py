"""Functions with a vmap rule of their own, since they are most of a small model's step.

torch's rules add a bias in a pass of its own (in bfloat16 a rounding more than alone has), give a weight's gradient
transposed, and take the softmax of ten classes ten numbers at a time. Without vmap these are torch's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional

from hpsearch.training.tape import is_for_compiler


@final
class _LaneLinear(Function):
    """x (K, N, in), weight (K, out, in), bias (K, out) -> (K, N, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = _aligned(x), _aligned(weight)
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), g = ctx.saved_tensors, _aligned(gradients[0])
        return (
            torch.bmm(g, weight) if ctx.needs_input_grad[0] else None,
            torch.bmm(g.transpose(1, 2), x) if ctx.needs_input_grad[1] else None,
            g.sum(1) if ctx.biased and ctx.needs_input_grad[2] else None,
        )


@final
class _Linear(Function):
    """``functional.linear`` of one lane: x (..., in), weight (out, in), bias (out)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, int]:
        k = info.batch_size
        x, weight = _first(x, in_dims[0], k), _first(weight, in_dims[1], k)
        bias = None if bias is None else _first(bias, in_dims[2], k)
        y = _LaneLinear.apply(x.reshape(k, -1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], weight.shape[1]), 0


@final
class _LaneCrossEntropy(Function):
    """Logits (K, N, C) and classes (K, N) -> the mean loss of each lane, (K,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor) -> Tensor:
        k, n, c = logits.shape
        # Classes first: whole vectors at a time. A copy, for what follows is in place.
        rows = logits.reshape(k * n, c).t().clone(memory_format=torch.contiguous_format)
        top = rows.amax(0)
        exps = rows.sub_(top).exp_()
        total = exps.sum(0)
        share = (classes != _IGNORED).to(logits.dtype)
        share /= share.sum(1, keepdim=True)
        classes = torch.where(classes == _IGNORED, 0, classes)  # another one below 0 is an error, as alone
        own = logits.gather(2, classes[..., None]).view(-1)
        ctx.save_for_backward(exps, total, classes, share)
        return ((total.log() + top - own).view(k, n) * share).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        exps, total, classes, share = ctx.saved_tensors
        k, n = classes.shape
        each = gradients[0][:, None] * share
        g = (exps * (each.reshape(-1) / total)).t().reshape(k, n, -1)
        return g.scatter_add_(2, classes[..., None], -each[..., None]), None


@final
class _CrossEntropy(Function):
    """``functional.cross_entropy`` of one lane: logits (N, C), classes (N)."""

    @staticmethod
    def forward(logits: Tensor, classes: Tensor) -> Tensor:
        return functional.cross_entropy(logits, classes)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, logits: Tensor, classes: Tensor) -> tuple[Tensor, int]:
        k = info.batch_size
        both = _first(logits, in_dims[0], k), _first(classes, in_dims[1], k)
        return _LaneCrossEntropy.apply(*both), 0  # type: ignore[no-untyped-call]


@final
class _Convolution(Function):
    """``functional.conv1d`` to ``conv3d`` of one lane: x (B, C, ...), weight (O, C / groups, ...), bias (O)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        return _CONVOLUTIONS[x.dim()](x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor, *numbers: Any) -> tuple[Tensor, int]:
        k, (*others, groups) = info.batch_size, numbers
        x = _first(x, in_dims[0], k).movedim(0, 1)
        weight, bias = _first(weight, in_dims[1], k).flatten(0, 1), _first(bias, in_dims[2], k).flatten()
        y = _CONVOLUTIONS[x.dim() - 1](x.flatten(1, 2), weight, bias, *others, k * groups)
        return y.view(len(y), k, -1, *y.shape[2:]), 1


def _aligned(x: Tensor) -> Tensor:
    """The same (K, N, F), each lane beginning at a multiple of 64 bytes.

    A matrix product may round in another way where its matrix begins at an odd address, and bits must not depend on
    the slot.
    """
    k, n, f = x.shape
    size, whole = n * f, 64 // x.element_size()
    if x.stride(0) % whole == 0 or x.device.type != "cpu":
        return x
    rows = x.new_empty(k, -(-size // whole) * whole)[:, :size].view(k, n, f)
    return rows.copy_(x)


def _first(x: Tensor, dim: int | None, k: int) -> Tensor:
    """The lanes' dimension first; what they share is not copied."""
    return x.expand(k, *x.shape) if dim is None else x.movedim(dim, 0)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``functional.linear``."""
    if is_for_compiler() and _batched(weight) and input.dim() > 1:
        # By torch's rule a weight's gradient would come out transposed, and be copied.
        y = torch.matmul(weight, input.reshape(-1, input.shape[-1]).mT)
        y = y if bias is None else y + bias[:, None]
        return y.mT.reshape(*input.shape[:-1], weight.shape[0])
    if not _batched(weight) or input.dim() < 2:
        return functional.linear(input, weight, bias)
    return _Linear.apply(input, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``functional.conv1d``, ``conv2d`` or ``conv3d``, by the weight's dimensions."""
    numbers = stride, padding, dilation, groups
    if input.is_cuda and _is_narrow(input, weight, *numbers):
        return by_patches(input, weight, bias, _pair(stride), _pair(padding))
    low = input.dtype == torch.bfloat16 and bias is not None
    if not low or not _batched(weight) or input.dim() != weight.dim():
        return _CONVOLUTIONS[weight.dim()](input, weight, bias, *numbers)
    return _Convolution.apply(input, weight, bias, *numbers)  # type: ignore[no-any-return, no-untyped-call]


#: products of an output's sum, up to which patches are written out
_NARROW = 32


def _is_narrow(input: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether a convolution of few inputs, such as a first one, which a GPU's grouped kernels do slowly.

    One channel a group is a depthwise convolution to them: 28 % of the time of a CNN for MNIST, seen on an H200.
    """
    plain = groups == 1 and _pair(dilation) == (1, 1) and not isinstance(padding, str)
    return plain and input.dim() == weight.dim() == 4 and weight[0].numel() <= _NARROW


def by_patches(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """A convolution as a product of the weight (O, C h w) and the patches (C h w, B H W)."""
    height, width = weight.shape[2:]
    if any(padding):
        input = functional.pad(input, (padding[1], padding[1], padding[0], padding[0]))
    windows = input.unfold(2, height, stride[0]).unfold(3, width, stride[1])
    shape = windows.shape[2:4]
    patches = windows.permute(1, 4, 5, 0, 2, 3).reshape(weight[0].numel(), -1)
    y = torch.matmul(weight.reshape(len(weight), -1), patches)
    y = y if bias is None else y + bias[:, None]
    return y.view(len(weight), len(input), *shape).transpose(0, 1)


def _pair(number: Any) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else tuple(number)


def cross_entropy(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``functional.cross_entropy``."""
    plain = not args and all(kwargs[name] == value for name, value in _DEFAULTS.items() if name in kwargs)
    classes = input.dim() == 2 and target.dim() == 1 and not target.is_floating_point()
    if not plain or not classes or not _batched(input):
        return functional.cross_entropy(input, target, *args, **kwargs)
    return _CrossEntropy.apply(input, target)  # type: ignore[no-any-return, no-untyped-call]


_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
_IGNORED = -100
_DEFAULTS = {
    "weight": None, "size_average": None, "ignore_index": _IGNORED, "reduce": None, "reduction": "mean",
    "label_smoothing": 0.0,
}  # fmt: skip


def _batched(x: Tensor) -> bool:
    return torch._C._functorch.is_batchedtensor(x)
