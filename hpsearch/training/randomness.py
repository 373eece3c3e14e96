"""Random numbers of training as functions of (run seed, purpose, step, element): counter-based, with no state.

So a number does not depend on which runs train beside this one, on what was stopped before, or on the device.
Plain int64 operations on 32-bit words, masked so that nothing overflows: the same on CPU and CUDA, and seeds and
counters may as well be tensors of one value a lane.

The mixing is the 32-bit integer hash of least known bias with two multiplications below 2**31
(C. Wellons and T. Ironborn, "hash-prospector", 2022: 21f0aaad, 735a2d97), keyed by 64 bits.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, TypeVar, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

WORD = 0xFFFFFFFF
W = TypeVar("W", int, Tensor)
#: two 32-bit words: a key of the hash
Stream = tuple[Any, Any]


class Purpose(IntEnum):
    """What random numbers are for; numbers of two purposes have nothing to do with each other."""

    SPLIT = 1
    ORDER = 2
    DROPOUT = 3
    AUGMENT = 4


def mix(x: W) -> W:
    """A bijection of 32-bit words that looks random."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & WORD
    x = ((x ^ (x >> 15)) * 0x735A2D97) & WORD
    return x ^ (x >> 15)


def stream(seed: int | Tensor, purpose: Purpose, *counters: int | Tensor) -> Stream:
    """The key for a seed (below 2**32), a purpose and counters (below 2**32): numbers, or tensors of one a lane."""
    a: Any = 0x3C6EF372
    b: Any = 0x1B873593
    for word in (seed, int(purpose), *counters):
        a = mix((a + word) & WORD)
        b = mix(b ^ a)
    return a, b


def words(index: Tensor, key: Stream) -> Tensor:
    """A random 32-bit word in int64 for each index (int64, 0 <= index < 2**32); key words broadcast with index."""
    a, b = key
    x: Tensor = (index + a) & WORD
    x ^= x >> 16
    x = x.mul_(0x21F0AAAD).bitwise_and_(WORD)
    x ^= x >> 15
    x = x ^ b
    x = x.mul_(0x735A2D97).bitwise_and_(WORD)
    x ^= x >> 15
    x = x.mul_(0x2C1B3C6D).bitwise_and_(WORD)
    x ^= x >> 16
    return x


def uniform(key: Stream, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """float32 numbers in [0, 1) of that shape: multiples of 2**-24."""
    count = torch.Size(shape).numel()
    return (words(torch.arange(count, device=device), key) >> 8).view(shape).float().mul_(2.0**-24)


def permutation(seed: int, purpose: Purpose, counter: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """0 .. n - 1 in random order (int64): the order that sorts random words."""
    return words(torch.arange(n, device=device), stream(seed, purpose, counter)).argsort(stable=True)


def orders(seeds: Sequence[int], epochs: Sequence[int], n: int, device: torch.device) -> Tensor:
    """Each lane's order of n examples in its own epoch, (K, n): row k is that of its seed and epoch."""
    a, b = stream(torch.tensor(seeds, device=device), Purpose.ORDER, torch.tensor(epochs, device=device))
    return words(torch.arange(n, device=device), (a[:, None], b[:, None])).argsort(dim=1, stable=True)


def mask_key(seed: int | Tensor, step: int | Tensor, call: int | Tensor) -> Stream:
    """The key of one dropout mask: two words as signed 32-bit numbers (int, or int32 tensors), the second one odd."""
    a, b = stream(seed, Purpose.DROPOUT, step, call)
    if isinstance(a, Tensor):
        return a.to(torch.int32), (b | 1).to(torch.int32)
    return _signed(a), _signed(b | 1)


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def mask_words(n: int, key: Stream, device: torch.device) -> Tensor:
    """n random signed 32-bit words (int32), to be compared with a threshold: their upper bits are the good ones.

    Multiply-shift hashing (Dietzfelbinger et al., J. Algorithms 25, 1997) by the key, of well-mixed indices that are
    made once a device. Dropout draws a word for each activation at each step, and that is what costs: this is two
    operations. Products wrap around, as meant.
    """
    a, b = key
    x: Tensor = _mixed_indices(n, device) ^ a
    return x.mul_(b)


#: by device and length, for good: a captured step goes on reading those that it was captured with
_INDICES: dict[tuple[torch.device, int], Tensor] = {}


def _mixed_indices(n: int, device: torch.device) -> Tensor:
    size = 1 << max(16, (n - 1).bit_length())
    known = _INDICES.get((device, size))
    if known is None:
        index = torch.arange(size, device=device)
        known = _INDICES[device, size] = words(index, (0x3C6EF372, 0x1B873593)).to(torch.int32)
    return known[:n]


def threshold(p: float | Tensor) -> int | Tensor:
    """Signed 31-bit words below it are dropped with probability p; exact at p = 0."""
    if isinstance(p, Tensor):
        return (p.double() * 2**31 - 2**30).round().clamp(max=2**30 - 1).to(torch.int32)
    return min(round(p * 2**31) - 2**30, 2**30 - 1)


def keep_mask(n: int, p: float | Tensor, key: Stream, device: torch.device) -> Tensor:
    """n int32 numbers: 0 for what is dropped with probability p, -1 (all bits) for what is kept.

    By the sign of a difference of 31-bit words: comparisons that give bools cost as much as all the rest.
    """
    x = mask_words(n, key, device).bitwise_right_shift_(1)
    return x.sub_(threshold(p)).bitwise_not_().bitwise_right_shift_(31)


def dropout(x: Tensor, p: float | Tensor, key: Stream, mask_shape: torch.Size | None = None) -> Tensor:
    """Zero each element with probability p and scale the others by 1 / (1 - p): x itself at p = 0, zeros at p = 1.

    Args:
        x: any shape.
        p: in [0, 1]; a number, or a 0-d tensor (one a lane).
        key: ``mask_key``; the mask depends on it and on an element's place.
        mask_shape: broadcasts with x: elements along its ones share their fate.

    Source: Srivastava et al., "Dropout", JMLR 15 (2014), inverted as in torch.
    """
    shape = x.shape if mask_shape is None else mask_shape
    scale: float | Tensor
    if isinstance(p, Tensor):
        scale = torch.where(p < 1, 1 / (1 - p), torch.zeros_like(p)).to(x.dtype)
    elif p >= 1:
        return torch.zeros_like(x)
    else:
        scale = 1 / (1 - p)
    return x * _factors(keep_mask(shape.numel(), p, key, x.device).view(shape), scale, x.dtype)


#: whether vmap can look at a tensor as another type
_VIEWS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)


def _factors(kept: Tensor, scale: float | Tensor, dtype: torch.dtype) -> Tensor:
    """``scale`` for what is kept, else 0."""
    if dtype is not torch.float32:
        return kept.to(dtype).neg_().mul_(scale)
    if not _VIEWS:
        return torch.where(kept != 0, scale, 0.0).to(dtype)
    if isinstance(scale, Tensor):
        return kept.bitwise_and_(scale.view(torch.int32)).view(dtype)
    (bits,) = struct.unpack("i", struct.pack("f", scale))
    return kept.bitwise_and_(bits).view(dtype)


def alpha_dropout(x: Tensor, p: float, key: Stream, mask_shape: torch.Size | None = None) -> Tensor:
    """Dropout that keeps mean 0 and variance 1 after SELU (Klambauer et al., arXiv:1706.02515, section 3)."""
    if p >= 1:
        return torch.zeros_like(x)
    low = -1.7580993408473766
    a = ((1 - p) * (1 + p * low**2)) ** -0.5
    shape = x.shape if mask_shape is None else mask_shape
    kept = keep_mask(shape.numel(), p, key, x.device).view(shape)
    return torch.where(kept != 0, x, low).mul_(a).sub_(a * p * low)


def _channels(x: Tensor, dims: int) -> torch.Size:
    """The mask of whole channels: torch's rules of which dimensions are (batch and) channels."""
    kept = 1 if dims in (1, 3) and x.dim() == dims + 1 else 2
    return torch.Size([*x.shape[:kept], *[1] * (x.dim() - kept)])


_DROPOUTS: dict[Callable[..., Any], Callable[[Tensor, float, Stream], Tensor]] = {
    functional.dropout: dropout,
    torch.dropout: dropout,
    functional.dropout1d: lambda x, p, key: dropout(x, p, key, _channels(x, 1)),
    functional.dropout2d: lambda x, p, key: dropout(x, p, key, _channels(x, 2)),
    functional.dropout3d: lambda x, p, key: dropout(x, p, key, _channels(x, 3)),
    functional.alpha_dropout: alpha_dropout,
    functional.feature_alpha_dropout: lambda x, p, key: alpha_dropout(x, p, key, _channels(x, 0)),
}


@final
class KeyedDropout(TorchFunctionMode):
    """Within it, every dropout (nn.Dropout*, AlphaDropout, F.dropout*) draws its mask from (run seed, step, call).

    ``call`` counts the dropouts of one forward, so a module that is used twice gets two masks.
    """

    def __init__(self, seed: int | Tensor, step: int | Tensor, keys: Sequence[Stream] | None = None) -> None:
        """``keys``: those of all calls, where they are known already; seed and step are of no account then."""
        super().__init__()
        self._seed, self._step, self._keys = seed, step, keys
        #: dropouts so far
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drop = _DROPOUTS.get(func)
        if drop is None:
            return func(*args, **kwargs)
        x, p, training, inplace = _dropout_arguments(func, *args, **kwargs)
        if not training:
            return x
        if isinstance(p, int | float) and not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        _refuse_checkpoint()
        y = drop(x, p, self._key())
        return x.copy_(y) if inplace else y

    def _key(self) -> Stream:
        call, self.calls = self.calls, self.calls + 1
        if self._keys is None:
            return mask_key(self._seed, self._step, call)
        if call >= len(self._keys):
            raise RuntimeError(f"the forward drops out more often than before: {len(self._keys)} times")
        return self._keys[call]


def _refuse_checkpoint() -> None:
    """Raises:
    RuntimeError: a part of the forward that backward computes again, without this mode, has a dropout.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            raise RuntimeError(
                "a dropout inside torch.utils.checkpoint: backward would compute it again with another mask, and the "
                "gradient would be wrong; leave the dropout out of the part that is checkpointed"
            )


def _dropout_arguments(
    func: Any, input: Tensor, p: float | Tensor = 0.5, train: bool | None = None, inplace: bool = False, **named: bool
) -> tuple[Tensor, Any, bool, bool]:
    # torch's defaults of ``training``: alpha dropouts False, the others True.
    alpha = func in (functional.alpha_dropout, functional.feature_alpha_dropout)
    default = named.get("training", not alpha)
    return input, p, default if train is None else train, inplace


@final
class Key:
    """The random numbers of one batch for ``TrainingTask.augment``: they depend on (run seed, epoch, example) alone."""

    def __init__(self, seed: int | Tensor, epoch: int | Tensor, examples: Tensor) -> None:
        self._seed, self._epoch, self._examples, self._calls = seed, epoch, examples, 0

    def uniform(self, *shape: int) -> Tensor:
        """float32 numbers in [0, 1); ``shape`` starts with the number of examples B. Each call gives new ones.

        Raises:
            ValueError: shape does not start with B.
        """
        if not shape or shape[0] != len(self._examples):
            raise ValueError(f"key.uniform takes a shape that starts with B = {len(self._examples)}, not {shape}")
        self._calls += 1
        a, b = stream(self._seed, Purpose.AUGMENT, self._epoch, self._calls, self._examples)
        index = torch.arange(torch.Size(shape[1:]).numel(), device=self._examples.device)
        return (words(index, (a[:, None], b[:, None])) >> 8).view(shape).float() * 2.0**-24

    def normal(self, *shape: int) -> Tensor:
        """float32 numbers of mean 0 and deviation 1; as ``uniform``, of which they are the quantiles.

        Raises:
            ValueError: shape does not start with B.
        """
        middle = self.uniform(*shape).double() + 2.0**-25  # of each of the 2**24 steps: never 0, symmetric
        numbers: Tensor = torch.special.ndtri(middle)
        return numbers.float()
