"""Training code by its address: imported here, in a worker, and nowhere else."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hpsearch.errors import ObjectiveError
from hpsearch.objective import ActiveRun, ObjectiveAddress, TrainingTask, find
from hpsearch.training.guard import flags, put_flags

TrainingFunction = Callable[[ActiveRun], Any]

#: modules and task instances by (file, time of change): a worker imports once, and again after a change
_MODULES: dict[tuple[Path, int], ModuleType] = {}
#: torch's flags that importing one has set: they are put back after each run, and are meant for all
_FLAGS: dict[tuple[Path, int], dict[str, Any]] = {}
_TASKS: dict[tuple[type[TrainingTask], Path], TrainingTask] = {}


def load(address: ObjectiveAddress) -> TrainingFunction | TrainingTask:
    """The training function, or the one instance of the task in this process.

    Leaves the study's folder first on ``sys.path``, so that sister files can be imported, now and while it trains.

    Raises:
        ObjectiveError: not found, fails to import, or is neither of the two.
    """
    file = find(address)
    for folder in dict.fromkeys([str(file.parent), str(address.folder)] if address.file else [str(address.folder)]):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module = _module(address, file)
    try:
        objective: object = getattr(module, address.name)
    except AttributeError:
        raise ObjectiveError(f"objective {address}: {file} defines no {address.name!r} when it is imported") from None
    if isinstance(objective, type):
        return _task(address, objective)
    if isinstance(objective, TrainingTask) or callable(objective):
        return objective
    raise ObjectiveError(f"objective {address}: is a {type(objective).__name__}, neither a function nor a TrainingTask")


def _module(address: ObjectiveAddress, file: Path) -> ModuleType:
    key = (file, file.stat().st_mtime_ns)
    if key in _MODULES:
        put_flags(_FLAGS[key])
        return _MODULES[key]
    before = flags()
    # Bytecode would be written into the user's folder, and is stale when a file changes within a second.
    write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    importlib.invalidate_caches()
    try:
        module = _import_file(file, key) if address.file else importlib.import_module(address.source)
    except (Exception, SystemExit) as error:
        raise ObjectiveError(
            f"objective {address}: importing {file} failed: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.dont_write_bytecode = write
    _MODULES[key] = module
    _FLAGS[key] = {name: value for name, value in flags().items() if value != before[name]}
    return module


def _import_file(file: Path, key: tuple[Path, int]) -> ModuleType:
    name = f"_hpsearch_{file.stem}_{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _task(address: ObjectiveAddress, cls: type) -> TrainingTask:
    if not issubclass(cls, TrainingTask):
        raise ObjectiveError(
            f"objective {address}: is a class, but no TrainingTask",
            hint=f"class {address.name}(hpsearch.TrainingTask), or name a function train(run)",
        )
    missing = sorted(cls.__abstractmethods__)
    if missing:
        raise ObjectiveError(f"objective {address}: the task lacks {' and '.join(missing)}")
    # Two studies in one process may name the same task from different folders.
    key = (cls, address.folder)
    if key not in _TASKS:
        try:
            _TASKS[key] = cls()
        except Exception as error:
            raise ObjectiveError(
                f"objective {address}: {address.name}() raises {type(error).__name__}: {error}",
                hint="a task is made without arguments; hyperparameters come to model(params)",
            ) from error
        _TASKS[key].study_dir = address.folder
    return _TASKS[key]
