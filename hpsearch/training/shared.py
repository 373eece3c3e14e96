"""What the runs of a worker share beside their models: the task, and what its files define.

A model may read any of it, and ``TrainingTask.model`` may change it: a run that trains alone has it as its own model
left it, lanes would all have it as the last one's did. So it is written down before and after a model is made.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Hashable, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.objective import TrainingTask
from hpsearch.training.structure import held_by

#: attributes of a task that are hpsearch's
_OURS = ("params", "study_dir")
#: entries of a container, numbers of an array, and depth, up to which things are compared; beyond, it is which they are
_ENTRIES, _NUMBERS, _DEPTH = 256, 64, 6
#: modules that are looked at
_FILES = 16


def shared_state(task: TrainingTask) -> dict[str, Hashable]:
    """Attributes of the task, and of the classes, functions and modules of its files, as plain values by name."""
    folder = str(task.study_dir.absolute()) if task.study_dir != Path() else "\0"
    modules = _files(type(task).__module__, folder, len(sys.modules))
    writer = _Writer({module.__name__ for module in modules})
    name = type(task).__name__
    found = {f"{name}.{key}": writer.value(value) for key, value in vars(task).items() if key not in _OURS}
    for module in modules:
        stem = Path(module.__file__ or module.__name__).stem
        for key, value in vars(module).items():
            if isinstance(value, type | FunctionType):
                if value.__module__ == module.__name__:
                    found |= {f"{key}.{own}": writer.value(held) for own, held in _numbers_of(value).items()}
            elif not key.startswith("__") and not isinstance(value, ModuleType):
                found[f"{stem}.{key}"] = writer.value(value)
    return found


def changed(before: Mapping[str, Hashable], after: Mapping[str, Hashable]) -> list[str]:
    """Names whose values are others, or that are in one of them only."""
    return [name for name in {**before, **after} if before.get(name, _OURS) != after.get(name, _OURS)]


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
    """What a class or function holds beside code."""
    code = (FunctionType, classmethod, staticmethod, property, type)
    held = vars(thing).items()
    return {key: value for key, value in held if not key.startswith(("__", "_abc_")) and not isinstance(value, code)}


@final
class _Writer:
    def __init__(self, own: Set[str]) -> None:
        self._own = own
        self._above: set[int] = set()

    def value(self, value: object) -> Hashable:
        """Plain numbers and small containers by what they are, objects of the task's own code by what they hold."""
        if value is None or isinstance(value, bool | int | str | bytes | complex | torch.dtype | torch.device):
            return (type(value).__name__, value)
        if isinstance(value, float):
            return value.hex()
        if isinstance(value, Tensor):
            small = value.numel() <= _NUMBERS and not value.is_meta
            return ("tensor", str(value.detach().tolist()) if small else (id(value), value._version))
        if isinstance(value, np.ndarray | np.generic):
            return ("array", str(value.tolist()) if value.size <= _NUMBERS else id(value))
        if id(value) in self._above or len(self._above) >= _DEPTH:
            return ("again", id(value))
        self._above.add(id(value))
        try:
            return self._held(value)
        finally:
            self._above.remove(id(value))

    def _held(self, value: object) -> Hashable:
        kind = type(value).__name__
        if isinstance(value, Mapping):
            few = len(value) <= _ENTRIES
            return (kind, tuple((self.value(k), self.value(v)) for k, v in value.items()) if few else _which(value))
        if isinstance(value, list | tuple | deque):
            return (kind, tuple(map(self.value, value)) if len(value) <= _ENTRIES else _which(value))
        if isinstance(value, Set):
            few = len(value) <= _ENTRIES
            return (kind, tuple(sorted(repr(self.value(v)) for v in value)) if few else _which(value))
        if isinstance(value, nn.Module) or type(value).__module__ in self._own:
            return (kind, id(value), tuple((name, self.value(thing)) for name, thing in held_by(value).items()))
        return (kind, id(value))


def _which(container: Any) -> Hashable:
    return (id(container), len(container))
