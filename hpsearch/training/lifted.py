"""Layers' numbers that torch takes as Python floats only, taken as tensors: so that lanes may differ in them.

Within ``LaneFunctions`` the functions below accept a 0-d tensor (one a lane, under vmap) where torch's own do not:
BatchNorm's momentum and eps, the eps of LayerNorm, GroupNorm and RMSNorm, the slopes of LeakyReLU and ELU.
Called with plain numbers, they are torch's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hpsearch.training import kernels
from hpsearch.training.structure import GRADIENT_HOOK, CannotFuse


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
) -> Tensor:
    """Ioffe and Szegedy, arXiv:1502.03167, algorithm 1; input (B, C, ...)."""
    shape = [1, -1] + [1] * (input.dim() - 2)
    if training or running_mean is None or running_var is None:
        if input.numel() == input.shape[1]:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        dims = [d for d in range(input.dim()) if d != 1]
        var, mean = torch.var_mean(input, dims, correction=0)
        n = input.numel() // input.shape[1]
        if running_mean is not None and running_var is not None:
            rate = torch.as_tensor(momentum, dtype=torch.float64).to(input.dtype)
            with torch.no_grad():
                running_mean.mul_(1 - rate).add_(mean * rate)
                running_var.mul_(1 - rate).add_(var * (n / (n - 1)) * rate)
    else:
        mean, var = running_mean, running_var
    return _affine(
        (input - mean.view(shape))
        * torch.rsqrt(var.view(shape) + torch.as_tensor(eps, dtype=torch.float64).to(input.dtype)),
        None if weight is None else weight.view(shape),
        None if bias is None else bias.view(shape),
    )


def layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: Any = 1e-5,
) -> Tensor:
    """Ba et al., arXiv:1607.06450, over the last dimensions."""
    dims = list(range(-len(normalized_shape), 0))
    var, mean = torch.var_mean(input, dims, correction=0, keepdim=True)
    return _affine((input - mean) * torch.rsqrt(var + eps.to(input.dtype)), weight, bias)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: Any = 1e-5
) -> Tensor:
    """Wu and He, arXiv:1803.08494; input (B, C, ...)."""
    shape = [1, -1] + [1] * (input.dim() - 2)
    grouped = input.reshape(input.shape[0], num_groups, -1)
    var, mean = torch.var_mean(grouped, -1, correction=0, keepdim=True)
    normal = ((grouped - mean) * torch.rsqrt(var + eps.to(input.dtype))).view(input.shape)
    return _affine(normal, None if weight is None else weight.view(shape), None if bias is None else bias.view(shape))


def rms_norm(input: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: Any = None) -> Tensor:
    """Zhang and Sennrich, arXiv:1910.07467."""
    dims = list(range(-len(normalized_shape), 0))
    return _affine(input * torch.rsqrt(input.square().mean(dims, keepdim=True) + eps.to(input.dtype)), weight, None)


def leaky_relu(input: Tensor, negative_slope: Any = 0.01, inplace: bool = False) -> Tensor:
    """Maas et al., ICML 2013."""
    x = input.clone() if inplace else input
    return _put(torch.where(x > 0, x, _scaled(x, negative_slope)), input, inplace)


def elu(input: Tensor, alpha: Any = 1.0, inplace: bool = False) -> Tensor:
    """Clevert et al., arXiv:1511.07289, eq. 15."""
    x = input.clone() if inplace else input
    return _put(torch.where(x > 0, x, _scaled(torch.expm1(x.clamp(max=0)), alpha).to(x.dtype)), input, inplace)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """``functional.embedding``; torch's rule for vmap keeps the gradient from the padding of the first lane alone."""
    if padding_idx is None:
        return functional.embedding(input, weight, None, *args, **kwargs)
    rows = functional.embedding(input, weight, None, *args, **kwargs)
    return torch.where((input == padding_idx % len(weight))[..., None], rows.detach(), rows)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _scaled(x: Tensor, number: Tensor) -> Tensor:
    """x times a lane's number, which bfloat16 would round before."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) * number.to(wide)).to(x.dtype)


def _put(output: Tensor, input: Tensor, inplace: bool) -> Tensor:
    return input.copy_(output) if inplace else output


def normalize(input: Tensor, *args: Any, out: Tensor | None = None, **kwargs: Any) -> Tensor:
    """``functional.normalize``, whose ``out`` (spectral_norm) vmap does not take."""
    y = functional.normalize(input, *args, **kwargs)
    return y if out is None else out.copy_(y)


_LIFTED: dict[Callable[..., Any], tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    functional.batch_norm: (batch_norm, ("momentum", "eps")),
    functional.layer_norm: (layer_norm, ("eps",)),
    functional.group_norm: (group_norm, ("eps",)),
    functional.rms_norm: (rms_norm, ("eps",)),
    functional.leaky_relu: (leaky_relu, ("negative_slope",)),
    functional.elu: (elu, ("alpha",)),
}
_KERNELS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.embedding: embedding,
    functional.normalize: normalize,
    functional.linear: kernels.linear,
    functional.conv1d: kernels.convolution,
    functional.conv2d: kernels.convolution,
    functional.conv3d: kernels.convolution,
    functional.cross_entropy: kernels.cross_entropy,
}


_REQUIRES_GRAD = Tensor.requires_grad.__get__  # type: ignore[attr-defined]


def _requires_grad(x: Tensor) -> bool:
    """Of the tensor that has the lane's row: vmap says False, also while lanes train."""
    while torch._C._functorch.is_batchedtensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.requires_grad


def _is_nested() -> bool:
    """Whether the forward transforms functions itself (torch.func), of which our kernels have no derivatives."""
    return len(torch._C._functorch.get_interpreter_stack() or ()) > 1


@final
class LaneFunctions(TorchFunctionMode):
    """Within it, the functions of this module stand in for torch's wherever one of their numbers is a tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _REQUIRES_GRAD:
            return _requires_grad(args[0])
        if func is Tensor.register_hook:
            raise CannotFuse(f"an activation {GRADIENT_HOOK}")
        if func in _KERNELS and not _is_nested():
            return _KERNELS[func](*args, **kwargs)
        if func in _LIFTED:
            ours, numbers = _LIFTED[func]
            given = inspect.signature(ours).bind(*args, **kwargs).arguments
            if any(isinstance(given.get(name), Tensor) for name in numbers):
                for name in numbers:
                    if given.get(name) is not None:
                        given[name] = torch.as_tensor(given[name], dtype=torch.float64)
                return ours(**given)
        return func(*args, **kwargs)
