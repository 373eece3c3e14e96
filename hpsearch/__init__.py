"""hpsearch: hyperparameter search for people who train PyTorch models.

The names below are what a study or a notebook needs; nothing else is public. They are imported when first used, so
that ``hpsearch --help`` pays for none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpsearch.errors import HpsearchError, Paused, Pruned, StudyError
    from hpsearch.executors.ray import ClusterOptions
    from hpsearch.launch import run
    from hpsearch.objective import ActiveRun, Constant, Cosine, Data, Plateau, Step, TrainingTask
    from hpsearch.pruners.hyperband import Hyperband
    from hpsearch.pruners.median import Median
    from hpsearch.pruners.successive_halving import SuccessiveHalving
    from hpsearch.read import define, read_study
    from hpsearch.results import Results, load
    from hpsearch.space import Categorical, Float, Int, Params, SearchSpace
    from hpsearch.strategies.bayesian import Bayesian
    from hpsearch.strategies.coarse_to_fine import CoarseToFine
    from hpsearch.strategies.grid import Grid
    from hpsearch.strategies.random import Random
    from hpsearch.study import Study

__version__ = "0.1.0"

_HOMES = {
    "hpsearch.errors": ("HpsearchError", "Paused", "Pruned", "StudyError"),
    "hpsearch.executors.ray": ("ClusterOptions",),
    "hpsearch.launch": ("run",),
    "hpsearch.objective": ("ActiveRun", "Constant", "Cosine", "Data", "Plateau", "Step", "TrainingTask"),
    "hpsearch.pruners.hyperband": ("Hyperband",),
    "hpsearch.pruners.median": ("Median",),
    "hpsearch.pruners.successive_halving": ("SuccessiveHalving",),
    "hpsearch.read": ("define", "read_study"),
    "hpsearch.results": ("Results", "load"),
    "hpsearch.space": ("Categorical", "Float", "Int", "Params", "SearchSpace"),
    "hpsearch.strategies.bayesian": ("Bayesian",),
    "hpsearch.strategies.coarse_to_fine": ("CoarseToFine",),
    "hpsearch.strategies.grid": ("Grid",),
    "hpsearch.strategies.random": ("Random",),
    "hpsearch.study": ("Study",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ActiveRun",
    "Bayesian",
    "Categorical",
    "ClusterOptions",
    "CoarseToFine",
    "Constant",
    "Cosine",
    "Data",
    "Float",
    "Grid",
    "HpsearchError",
    "Hyperband",
    "Int",
    "Median",
    "Params",
    "Paused",
    "Plateau",
    "Pruned",
    "Random",
    "Results",
    "SearchSpace",
    "Step",
    "Study",
    "StudyError",
    "SuccessiveHalving",
    "TrainingTask",
    "define",
    "load",
    "read_study",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hpsearch' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
