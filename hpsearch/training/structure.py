"""What two models must have in common to train as lanes of one: everything but their weights and some numbers.

``structure_of`` writes down the whole module tree, every attribute included, as plain values that can be compared.
Floats are kept apart, by place: dropout's p, a slope, a scale. Lanes that differ in floats only may share a group,
each with its own; any other difference parts them, so nothing is ever shared silently.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import sys
import weakref
from collections import deque
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

#: what nn.Module keeps for itself in ``__dict__``; parameters and buffers are written down apart
_OWN = {"_parameters", "_buffers", "_modules", "training", "_is_full_backward_hook"}
#: endings of the names of its dictionaries of hooks
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
#: the end of a key under which a ``state_dict`` has what ``get_extra_state`` gives
_EXTRA = "_extra_state"
_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")
#: what has more to it than its attributes show
_OPAQUE = (torch.Generator, torch.jit.ScriptFunction, random.Random)
#: (path of the module, name of the attribute)
Place = tuple[str, str]
GRADIENT_HOOK = "has a hook on a gradient, which lanes take in another way than a run alone"


class CannotFuse(Exception):
    """Why runs cannot train together, in words.

    Args:
        never: nor can any two of the study.
        alike: nor can those of them that are more alike.
    """

    def __init__(self, reason: str, *, never: bool = False, alike: bool = False) -> None:
        super().__init__(reason)
        self.never, self.alike = never, alike


@final
@dataclass(frozen=True)
class Structure:
    """A model without its weights."""

    #: equal for models that may train together
    key: Hashable
    #: the attributes of modules that are floats: lanes may differ in them
    floats: Mapping[Place, float]
    #: what cannot be compared, in words; a model with such a thing trains alone
    opaque: str = ""


def structure_of(model: nn.Module, known: Sequence[object] = ()) -> Structure:
    """Write a model down.

    Args:
        model: as its factory leaves it.
        known: objects that all lanes share anyway (the task), wherever the model refers to them.
    """
    writer = _Writer(known, {id(tensor) for tensor in [*model.parameters(), *model.buffers()]})
    for part in [*model.modules(), *model.parameters(), *model.buffers()]:
        writer.note(part)  # first, so that an attribute that refers to one is known as such
    key = writer.module(model, "")
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase | nn.LSTMCell):
            kind = type(module).__name__
            writer.opaque = f"{name or 'the model'} is an nn.{kind}, whose kernel takes one model at a time"
        elif isinstance(module, torch.jit.ScriptModule):
            writer.opaque = f"{name or 'the model'} is a ScriptModule: the model is compiled by torch.jit"
    if any(type(module).__module__.startswith("torch._dynamo") for module in model.modules()):
        writer.opaque = "the model is compiled already (torch.compile); as it is, lanes are compiled where that pays"
    return Structure(key, writer.floats, writer.opaque or _odd_state(model))


def _odd_state(model: nn.Module) -> str:
    """Why what its ``state_dict`` gives is not its parameters and buffers, by which a lane's are told."""
    own = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    try:
        state = model.state_dict(keep_vars=True)
        odd = [k for k, v in state.items() if isinstance(v, Tensor) and id(v) not in own and not k.endswith(_EXTRA)]
    except Exception as error:  # noqa: BLE001 - the model's own code
        return f"its state_dict(keep_vars=True) raises ({type(error).__name__}: {str(error)[:80]})"
    return f"its state_dict gives other tensors than its parameters and buffers ({odd[0]})" if odd else ""


def attributes_of(model: nn.Module) -> dict[Place, Hashable]:
    """Every attribute of every module, as plain values: what a forward must leave as it is."""
    found: dict[Place, Hashable] = {}
    parts = [*model.modules(), *model.parameters(), *model.buffers()]
    writer = _Writer(parts)
    for path, module in model.named_modules():
        for name, value in held_by(module).items():
            if name not in _OWN:
                found[path, name] = writer.value(value, name)
                writer.forget(len(parts))  # what one attribute holds says nothing of the next one
    return found


@final
class _Writer:
    def __init__(self, known: Sequence[object], states: Set[int] = frozenset()) -> None:
        self._states = states
        self.floats: dict[Place, float] = {}
        self.opaque = ""
        self._seen: dict[int, int] = {id(thing): -1 - k for k, thing in enumerate(known)}
        # A seen object must live on, or another one could get its id.
        self._kept: list[object] = list(known)
        self._written: set[int] = set()

    def module(self, module: nn.Module, path: str) -> Hashable:
        if id(module) in self._written:
            return ("again", self._seen[id(module)])
        self._written.add(id(module))
        own: list[Hashable] = [self._type(type(module)), module.training]
        for name, value in sorted(held_by(module).items()):
            if name in _OWN:
                continue
            if name in _BACKWARD_HOOKS and value:
                self.opaque = self.opaque or f"{path or 'the model'} {GRADIENT_HOOK}"
            if name.endswith(_HOOKS):  # keyed by a number that counts all hooks of the process
                own.append((name, tuple(self.value(hook, f"{path}.{name}") for hook in value.values())))
            elif type(value) is float and name in module.__dict__:
                self.floats[path, name] = value
                own.append((name, "float"))
            else:
                own.append((name, self.value(value, f"{path}.{name}".lstrip("."))))
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            own += [(kind, name, self._state(tensor, f"{path}.{name}".lstrip("."))) for name, tensor in tensors.items()]
        kept = module._non_persistent_buffers_set
        own.append(("persistent", tuple(sorted(kept))))
        for name, child in module._modules.items():
            inner = f"{path}.{name}".lstrip(".")
            own.append((name, None if child is None else self.module(child, inner)))
        return tuple(own)

    def _state(self, tensor: Tensor | None, path: str) -> Hashable:
        """A parameter or buffer: all but its numbers, which are the lane's own."""
        if tensor is None:
            return None
        if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            self.opaque = self.opaque or f"{path} {GRADIENT_HOOK}"
        number = self._seen[id(tensor)]
        return (
            number,
            type(tensor).__name__,
            tuple(tensor.shape),
            str(tensor.dtype),
            tensor.requires_grad,
            str(tensor.layout),
        )

    def note(self, thing: object) -> None:
        """Give it a number, by which it is known from now on."""
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = len(self._seen)
        self._kept.append(thing)

    def forget(self, known: int) -> None:
        """All but so many things that it knew in the beginning."""
        for thing in self._kept[known:]:
            del self._seen[id(thing)]
        del self._kept[known:]

    def value(self, value: object, path: str) -> Hashable:
        """Any other thing, as plain values."""
        if isinstance(value, weakref.ReferenceType):
            value = value()
        if value is None or isinstance(value, bool | int | str | bytes | complex | torch.dtype | torch.Size):
            return (type(value).__name__, value)
        if isinstance(value, float):
            return ("float", value.hex())
        if isinstance(value, torch.device | ModuleType | slice | range) or value is Ellipsis:
            return (type(value).__name__, str(value))
        if isinstance(value, PurePath | re.Pattern):
            return (type(value).__name__, repr(value))
        if isinstance(value, logging.Logger):
            return ("logger", value.name)
        if isinstance(value, Enum):
            return (*self._named(type(value)), value.name)
        if id(value) in self._seen:
            if isinstance(value, Tensor) and id(value) in self._states:
                self.opaque = self.opaque or f"{path} keeps a parameter or buffer beside torch, which does not find it"
            return ("again", self._seen[id(value)])
        self.note(value)
        if isinstance(value, nn.Module):
            return self._unregistered(value, path)
        if isinstance(value, Tensor | np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, Mapping):
            items = [(self.value(k, path), self.value(v, f"{path}[{k!r}]")) for k, v in value.items()]
            default = self.value(getattr(value, "default_factory", None), path)
            return (*self._named(type(value)), tuple(items), default, self._own(value, path))
        if isinstance(value, list | tuple | deque):
            entries = [self.value(v, f"{path}[{k}]") for k, v in enumerate(value)]
            return (*self._named(type(value)), tuple(entries), self._own(value, path))
        if isinstance(value, Set):
            members = sorted(map(repr, (self.value(v, path) for v in value)))
            return (*self._named(type(value)), tuple(members), self._own(value, path))
        return self._code(value, path)

    def _unregistered(self, module: nn.Module, path: str) -> Hashable:
        """A module that torch does not know of (in a plain list, in a closure): its numbers are not the lane's own."""
        held = {k: list(v.values()) if k.endswith(_HOOKS) else v for k, v in held_by(module).items()}
        return ("unregistered", self._type(type(module)), self.value(held, path))

    def _own(self, value: object, path: str) -> Hashable:
        return tuple((name, self.value(thing, f"{path}.{name}")) for name, thing in held_by(value).items())

    def _code(self, value: object, path: str) -> Hashable:
        if isinstance(value, type):
            return self._type(value)
        if isinstance(value, MethodType):
            return ("method", self.value(value.__func__, path), self.value(value.__self__, path))
        if isinstance(value, partial):
            return (
                "partial",
                self.value(value.func, path),
                self.value(value.args, path),
                self.value(value.keywords, path),
            )
        if isinstance(value, BuiltinFunctionType):
            bound = value.__self__
            of = None if bound is None or isinstance(bound, type | ModuleType) else self.value(bound, path)
            return ("builtin", value.__module__, value.__qualname__, of)
        if isinstance(value, FunctionType):
            return self._function(value, path)
        if isinstance(value, CodeType):
            return ("code", value.co_code, tuple(self.value(c, path) for c in value.co_consts), value.co_names)
        if hasattr(value, "__dict__") and not isinstance(value, _OPAQUE):
            return (*self._named(type(value)), self._own(value, path))
        return self._cannot(value, path)

    def _cannot(self, value: object, path: str) -> Hashable:
        self.opaque = self.opaque or f"{path} is a {type(value).__qualname__}, which cannot be compared between runs"
        return ("opaque", id(value))

    def _function(self, function: FunctionType, path: str) -> Hashable:
        if _importable(function):
            return ("function", function.__module__, function.__qualname__, self._own(function, path))
        cells = [self.value(c.cell_contents, path) for c in function.__closure__ or ()]
        defaults = self.value(function.__defaults__, path), self.value(function.__kwdefaults__, path)
        return ("function", self.value(function.__code__, path), tuple(cells), defaults, self._own(function, path))

    def _type(self, cls: type) -> Hashable:
        """A class: by name where it can be imported, else (made in a function) by all that it holds."""
        if _importable(cls):
            return self._named(cls)
        if id(cls) in self._seen:
            return ("again", self._seen[id(cls)])
        self.note(cls)
        members = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__", "__doc__", "__module__")}
        body = tuple((k, self.value(_plain(v), f"{cls.__qualname__}.{k}")) for k, v in sorted(members.items()))
        return (cls.__qualname__, tuple(self._type(base) for base in cls.__bases__), body)

    def _named(self, cls: type) -> tuple[Hashable, ...]:
        return (cls.__module__, cls.__qualname__) if _importable(cls) else ("class", self._type(cls))

    def _array(self, value: Tensor | np.ndarray[Any, Any] | np.generic) -> Hashable:
        """Numbers that are no parameter and no buffer belong to the structure, each of them."""
        if isinstance(value, Tensor) and (value.grad_fn is not None or torch._C._functorch.is_batchedtensor(value)):
            return ("derived", tuple(value.shape))  # computed from parameters, anew in each forward
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return (type(value).__name__, str(array.dtype), array.shape, digest)


def held_by(value: object) -> dict[str, Any]:
    """The attributes of any object, in its ``__dict__`` and in slots."""
    held = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            place = f"_{cls.__name__.lstrip('_')}{name}" if private else name
            if place not in ("__dict__", "__weakref__") and hasattr(value, place):
                held[place] = getattr(value, place)
    return held


def _plain(member: object) -> object:
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, property):
        return (member.fget, member.fset)
    return dict(member) if isinstance(member, MappingProxyType) else member


def _importable(thing: type | FunctionType) -> bool:
    """Whether its name leads to it: then the name is enough."""
    found: object = sys.modules.get(thing.__module__ or "")
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing
