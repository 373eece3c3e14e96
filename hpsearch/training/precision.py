"""What a task's ``precision`` means: the type of its weights, and how its forward computes.

``bfloat16`` is mixed precision: weights, optimiser, data, loss and metrics are float32, and ``torch.autocast`` chooses
for each function of the forward whether it takes bfloat16. Its numbers reach as far as those of float32, so the loss
needs no scaling. Casts of weights are not cached: weights change in place at each step, and a CUDA graph would keep
what it found in the cache.

vmap takes functions apart before autocast sees them: a Linear would be a product in bfloat16 and the sum of that and a
float32 bias. So what autocast does to a function is done to a lane's before vmap (``LaneAutocast``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from hpsearch.errors import ObjectiveError
from hpsearch.objective import TrainingTask

MIXED = "bfloat16"
#: precision -> the type of weights, data and losses
DTYPES = {"float32": torch.float32, "float64": torch.float64, MIXED: torch.float32}


def dtype_of(task: TrainingTask) -> torch.dtype:
    """The type of a task's weights, optimiser, data and loss.

    Raises:
        ObjectiveError: its ``precision`` is none that there is.
    """
    precision: object = task.precision
    if not isinstance(precision, str) or precision not in DTYPES:
        hint = f"{MIXED} is mixed precision: weights stay float32"
        raise ObjectiveError(f"precision: {precision!r} is unknown; there are {', '.join(DTYPES)}", hint=hint)
    return DTYPES[precision]


def is_mixed(task: TrainingTask) -> bool:
    """Whether its forward computes in another type than that of its weights."""
    return task.precision == MIXED


def noted(engine: str, task: TrainingTask) -> str:
    """How a run was trained, as the record says it, with the precision where it is mixed."""
    return f"{engine}, {MIXED}" if is_mixed(task) else engine


def output_of(task: TrainingTask, model: Callable[..., Any], inputs: Tensor, *, lanes: bool = False) -> Any:
    """The model's output, in the type of its weights; ``lanes``: under vmap."""
    if not is_mixed(task):
        return model(inputs)
    device = inputs.device.type
    with torch.autocast(device, torch.bfloat16, cache_enabled=False):
        if lanes:
            with LaneAutocast(device):
                output = model(inputs)
        else:
            output = model(inputs)
    return tree_map(_wide, output)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x


def _low(x: Any) -> Any:
    return x.bfloat16() if isinstance(x, Tensor) and x.dtype in (torch.float32, torch.float16) else x


def _functions(names: str) -> frozenset[Any]:
    """All functions and methods of torch of these names."""
    homes = (torch, Tensor, functional)
    found: Iterable[Any] = (getattr(home, name, None) for name in names.split() for home in homes)
    return frozenset(function for function in found if function is not None)


# torch's lists (ATen/autocast_mode.h and .cpp; docs, "Autocast Op Reference"), as far as models call them.
_LOW = _functions(
    "linear conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d prelu einsum matmul "
    "__matmul__ __rmatmul__ mm bmm mv addmm addmv addbmm baddbmm chain_matmul scaled_dot_product_attention"
)
_LOSSES = (
    "cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss kl_div poisson_nll_loss hinge_embedding_loss "
    "cosine_embedding_loss margin_ranking_loss soft_margin_loss triplet_margin_loss multi_margin_loss "
    "multilabel_margin_loss binary_cross_entropy_with_logits"
)
_NORMS = "layer_norm group_norm rms_norm"
#: device -> what takes float32 and gives float32
_WIDE = {
    "cpu": _functions(f"{_LOSSES} binary_cross_entropy prod cdist trace quantile avg_pool3d adaptive_avg_pool3d"),
    "cuda": _functions(
        f"{_LOSSES} {_NORMS} softmax log_softmax logsumexp softplus exp expm1 log log2 log10 log1p pow __pow__ "
        "__rpow__ reciprocal rsqrt acos asin cosh sinh tan erfinv sum prod cumsum cumprod norm dist cdist renorm "
        "cosine_similarity interpolate"
    ),
}
#: what computes in float32 and gives the type it was given, unless it is among those above
_INSIDE = _functions(f"batch_norm instance_norm {_NORMS}")


@final
class LaneAutocast(TorchFunctionMode):
    """Within it and under ``torch.autocast``, a lane's functions take and give the types that they would alone."""

    def __init__(self, device: str) -> None:
        """``device``: ``cpu`` or ``cuda``."""
        super().__init__()
        self._float32 = _WIDE.get(device, _WIDE["cuda"])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LOW:
            args, kwargs = tree_map(_low, (args, kwargs))
        elif func in self._float32:
            args, kwargs = tree_map(_wide, (args, kwargs))
        elif func in _INSIDE:
            # vmap's rules scale and shift what they have rounded already.
            given: Tensor = args[0] if args else kwargs["input"]
            wide, named = tree_map(_wide, (args, kwargs))
            return func(*wide, **named).to(given.dtype)
        return func(*args, **kwargs)
