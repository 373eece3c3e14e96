"""What the runs of a worker share beside their models: the task, and what its files define.

A model may read any of it, and the task's code may change it: a run that trains alone has it as its own model and its
own steps left it, lanes would all have it as the last one's did. So it is written down before and after a model is
made, and before and after lanes train.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from functools import lru_cache, partial
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.objective import TrainingTask
from hpsearch.training.structure import held_by

#: attributes of a task that are hpsearch's
_OURS = ("params", "study_dir")
#: entries of a container, bytes of an array, and depth, up to which things are compared; beyond, it is which they are
_ENTRIES, _BYTES, _DEPTH = 256, 2**16, 6
#: bytes of a tensor that is read from a GPU
_BYTES_ELSEWHERE = 512
#: modules that are looked at
_FILES = 16
#: containers of named things, wherever their class is from
_NAMESPACES = (SimpleNamespace, argparse.Namespace)
#: how a tensor is written that belongs to lanes, kept where it outlives them
_LANES = ("tensor of lanes",)
_NONE = ("NoneType", None)
_ENVIRONMENT = "os.environ"


@final
class Shared:
    """Attributes of the task, and of the classes, functions and modules of its files, as they are now."""

    def __init__(self, task: TrainingTask) -> None:
        folder = str(task.study_dir.absolute()) if task.study_dir != Path() else "\0"
        modules = _files(type(task).__module__, folder, len(sys.modules))
        writer = _Writer({module.__name__ for module in modules})
        self._undo = writer.undo
        name = type(task).__name__
        #: name -> plain values that can be compared
        self.values = {f"{name}.{key}": writer.value(value) for key, value in vars(task).items() if key not in _OURS}
        self._undo.append(partial(_put_back_names, vars(task), dict(vars(task))))
        for module in modules:
            stem = Path(module.__file__ or module.__name__).stem
            for key, value in vars(module).items():
                if isinstance(value, type | FunctionType):
                    if value.__module__ == module.__name__:
                        held = _numbers_of(value)
                        for own, number in held.items():
                            place = f"{key}.{own}"
                            place += " of the class" * (place in self.values)  # the task has its own of that name
                            self.values[place] = writer.value(number)
                        self._undo.append(partial(_put_back_attributes, value, held))
                elif not key.startswith("__") and not isinstance(value, ModuleType):
                    self.values[f"{stem}.{key}"] = writer.value(value)
            self._undo.append(partial(_put_back_names, vars(module), dict(vars(module))))
        self.values[_ENVIRONMENT] = tuple(sorted(os.environ.items()))

    def put_back(self) -> None:
        """Make it what it was, but for the environment, objects of libraries and large arrays."""
        for undo in self._undo:
            undo()

    def changed(self, after: Shared) -> list[str]:
        """Names whose values are others, or that are in one of them only."""
        names = {**self.values, **after.values}
        return [name for name in names if self.values.get(name, _OURS) != after.values.get(name, _OURS)]

    def used(self, after: Shared) -> list[str]:
        """Names whose values are others, unless something was only put where nothing was, as a cache is filled."""
        names = [name for name in self.changed(after) if name != _ENVIRONMENT]  # libraries write there what they like
        found = {name: (self.values.get(name, _NONE), after.values.get(name)) for name in names}
        return [name for name, (old, new) in found.items() if _has_lanes(new) or not _is_filled(old, new)]


def mentions(value: Hashable, things: Set[int]) -> bool:
    """Whether what is written down holds one of these objects, given by their ids."""
    if isinstance(value, tuple):
        return any(mentions(part, things) for part in value)
    return type(value) is int and value in things


@lru_cache(maxsize=8)
def _files(own: str, folder: str, loaded: int) -> Sequence[ModuleType]:
    """The modules that a task's own code is in: its own, and the first ones of the study's folder.

    ``loaded``: how many modules there are, so that one that was imported meanwhile is found.
    """
    beside = []
    for name, module in list(sys.modules.items()):
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        mine = isinstance(file, str) and file.startswith(f"{folder}/") and "site-packages" not in file
        if mine and name != own and not name.startswith("hpsearch.") and module.__name__ == name:
            beside.append(module)
    return [sys.modules[own], *beside[: _FILES - 1]]


def _numbers_of(thing: type | FunctionType) -> dict[str, Any]:
    """What a class or function holds beside code: its attributes, and defaults that can be changed."""
    code = (FunctionType, classmethod, staticmethod, property, type)
    held = {k: v for k, v in vars(thing).items() if not k.startswith(("__", "_abc_")) and not isinstance(v, code)}
    return {**held, "__defaults__": thing.__defaults__} if isinstance(thing, FunctionType) else held


@final
class _Writer:
    def __init__(self, own: Set[str]) -> None:
        self._own = own
        self._above: set[int] = set()
        #: each puts back one thing that was met
        self.undo: list[Callable[[], object]] = []

    def value(self, value: object) -> Hashable:
        """Plain numbers and small containers by what they are, objects of the task's own code by what they hold."""
        if value is None or isinstance(value, bool | int | str | bytes | complex | torch.dtype | torch.device):
            return (type(value).__name__, value)
        if isinstance(value, float):
            return value.hex()
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, random.Random | np.random.Generator | np.random.RandomState | torch.Generator):
            return self._generator(value)
        if id(value) in self._above or len(self._above) >= _DEPTH:
            return ("again", id(value))
        self._above.add(id(value))
        try:
            return self._held(value)
        finally:
            self._above.remove(id(value))

    def _tensor(self, value: Tensor) -> Hashable:
        if torch._C._functorch.is_batchedtensor(value) or torch._C._functorch.is_gradtrackingtensor(value):
            return _LANES
        plain = type(value) is Tensor and value.layout is torch.strided and not value.is_complex()
        most = _BYTES if value.device.type == "cpu" else _BYTES_ELSEWHERE
        if not plain or value.is_meta or value.numel() * value.element_size() > most:
            return ("tensor", id(value), value._version)
        # By its numbers, since a run's own model may make the same one anew.
        numbers = value.detach().clone()
        self.undo.append(partial(_put_back_tensor, value, numbers, value._version))
        bits = numbers.reshape(-1).view(torch.uint8).cpu().numpy().tobytes()
        return ("tensor", str(numbers.dtype), tuple(numbers.shape), hashlib.sha256(bits).digest())

    def _array(self, value: np.ndarray[Any, Any] | np.generic) -> Hashable:
        if value.nbytes > _BYTES or value.dtype.hasobject:
            return ("array", id(value))
        if isinstance(value, np.ndarray) and value.flags.writeable:
            self.undo.append(partial(np.copyto, value, value.copy()))
        return ("array", str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).digest())

    def _generator(self, value: Any) -> Hashable:
        if isinstance(value, torch.Generator):
            state: Any = value.get_state()
            self.undo.append(partial(value.set_state, state))
            return ("generator", bytes(state.cpu().numpy()))
        if isinstance(value, np.random.Generator):
            state = value.bit_generator.state
            self.undo.append(partial(setattr, value.bit_generator, "state", state))
        elif isinstance(value, np.random.RandomState):
            state = value.get_state()
            self.undo.append(partial(value.set_state, state))
        else:
            state = value.getstate()
            self.undo.append(partial(value.setstate, state))
        return ("generator", str(state))

    def _held(self, value: object) -> Hashable:
        kind = type(value).__name__
        if isinstance(value, Mapping):
            if len(value) > _ENTRIES:
                return _which(value)
            if isinstance(value, dict):
                self.undo.append(partial(_put_back_names, value, dict(value)))
            return ("named", kind, 0, tuple((self.value(k), self.value(v)) for k, v in value.items()))
        if isinstance(value, list | tuple | deque | Set):
            if len(value) > _ENTRIES:
                return _which(value)
            if isinstance(value, list | deque | set):
                self.undo.append(partial(_put_back_entries, value, list(value)))
            entries = map(self.value, value)
            return (kind, tuple(sorted(map(repr, entries)) if isinstance(value, Set) else entries))
        if isinstance(value, (nn.Module, *_NAMESPACES)) or type(value).__module__ in self._own:
            held = held_by(value)
            self.undo.append(partial(_put_back_attributes, value, held))
            which = 0 if isinstance(value, _NAMESPACES) else id(value)
            return ("named", kind, which, tuple((self.value(name), self.value(thing)) for name, thing in held.items()))
        return (kind, id(value))


def _which(container: Any) -> Hashable:
    return (id(container), len(container))


def _is_filled(before: Hashable, after: Hashable) -> bool:
    """Whether the one became the other by putting things where nothing was."""
    if before in (after, _NONE):
        return True
    if not (isinstance(before, tuple) and isinstance(after, tuple)) or before[:1] != ("named",):
        return False
    if before[:3] != after[:3]:
        return False
    entries: dict[Any, Any] = dict(after[3])
    return all(name in entries and _is_filled(value, entries[name]) for name, value in before[3])


def _has_lanes(value: Hashable) -> bool:
    return value == _LANES or (isinstance(value, tuple) and any(map(_has_lanes, value)))


def _put_back_names(names: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    for name in names.keys() - before.keys():
        del names[name]
    names.update(before)


def _put_back_entries(entries: Any, before: Sequence[Any]) -> None:
    entries.clear()
    (entries.update if isinstance(entries, set) else entries.extend)(before)


def _put_back_attributes(thing: object, before: Mapping[str, Any]) -> None:
    now = _numbers_of(thing) if isinstance(thing, type | FunctionType) else held_by(thing)
    put = setattr if isinstance(thing, type | FunctionType) else object.__setattr__  # a frozen one too
    for name in now.keys() - before.keys():
        delattr(thing, name)
    for name, value in before.items():
        if now.get(name, _LANES) is not value:
            put(thing, name, value)


@torch.no_grad()
def _put_back_tensor(tensor: Tensor, numbers: Tensor, version: int) -> None:
    if tensor._version != version:
        tensor.copy_(numbers)
