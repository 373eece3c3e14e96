"""A model's ``state_dict``: copied, and given back to a model of the same making."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: of a ``state_dict``: tensors, and what ``get_extra_state`` of a module gives
State = Mapping[str, Any]


def copied(state: State, device: torch.device | None = None) -> dict[str, Any]:
    """A copy that later steps leave alone; of a tensor that is a view, without what it is a view of."""

    def one(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return copy.deepcopy(value)
        return value.detach().to(device or value.device, copy=True)

    return {name: one(value) for name, value in state.items()}


def load_state(model: nn.Module, state: State, transient: Mapping[str, Tensor] | None = None) -> None:
    """``load_state_dict``, also of buffers that are None in a new model and that a forward has filled since.

    ``transient``: buffers that no ``state_dict`` has.

    Raises:
        RuntimeError: it is another model's.
    """
    empty = dict(empty_buffers(model))
    for name, value in {**state, **(transient or {})}.items():
        if name in empty:
            empty[name]._buffers[name.rpartition(".")[2]] = value.detach().clone()
    model.load_state_dict(state)
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in (transient or {}).items():
            buffers[name].copy_(value)


def transient_of(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that no ``state_dict`` has; a forward may move them all the same."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}


def empty_buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names of the buffers that are None, each with its module."""
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is None:
                yield f"{path}.{name}".lstrip("."), module
