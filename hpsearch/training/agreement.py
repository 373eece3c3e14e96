"""Whether a compiled step is the plain one, to its rounding: a compiler is not believed, it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

#: so many lanes are looked at, or up to twice as many
COMPARED = 8
#: largest relative differences that are rounding: of losses (in bfloat16 too), of gradients, and of what an update
#: moves, which of Adam's first is the sign of a gradient, also of one that is all rounding. Half or twice is 0.5 or 1.
_LOSS, _GRADIENT, _MOVE = 0.05, 0.1, 0.4
#: a lane's number may be rounding beside the others', of which half are at least so many times as large
_LEAST = 1e-3
#: of a buffer: what it moves by less than this part of itself may be rounding (a norm that is all but found)
_GRAIN = 0.01


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step made, of some lanes."""

    #: (k,)
    losses: Tensor
    #: (k, W); None in mixed precision, where it is rounding to a half in a deep model
    gradient: Tensor | None
    #: what the step changes, (k, ...) each, as it was and as it is: the weights first
    before: Sequence[Tensor]
    after: Sequence[Tensor]


def far_apart(plain: Outcome, other: Outcome) -> str:
    """In words, what of the other step is not the plain one's; empty where all of it is."""
    if _gap(plain.losses, other.losses) > _LOSS:
        return "its losses would be others"
    if plain.gradient is not None and other.gradient is not None and _gap(plain.gradient, other.gradient) > _GRADIENT:
        return "its gradients would be others"
    for k, (before, ours, theirs) in enumerate(zip(plain.before, plain.after, other.after, strict=True)):
        grain = _GRAIN if k else torch.finfo(before.dtype).eps
        if _gap(ours - before, theirs - before, grain * _norms(before)) > _MOVE:
            return "its update would be another"
    return ""


def _gap(plain: Tensor, other: Tensor, rounding: Tensor | float = 0.0) -> float:
    """The largest difference of a lane, relative to its plain numbers, in the 2-norm; of lanes that are finite there.

    ``rounding``: what the plain ones may be, and more, without saying anything; (k,).
    """
    size = _norms(plain)
    finite = size.isfinite()
    if not finite.any():
        return 0.0
    least = _LEAST * size[finite].median() + rounding
    relative = _norms(plain - other) / (size + least).clamp(min=1e-12)
    return float(relative[finite].nan_to_num(nan=torch.inf).max())


def _norms(rows: Tensor) -> Tensor:
    """Of each lane's numbers, in double precision, (k,)."""
    norms: Tensor = torch.linalg.vector_norm(rows.reshape(len(rows), -1), dim=1, dtype=torch.float64)
    return norms
