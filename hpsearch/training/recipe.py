"""How one run of a TrainingTask is trained: the task's own settings, overruled by the trial's params."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final, get_args

from hpsearch.errors import ObjectiveError
from hpsearch.objective import RESERVED, SCHEDULES, TEXTBOOK, OptimizerName, Schedule, TrainingTask
from hpsearch.space import Params, Value
from hpsearch.training.precision import dtype_of

OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
#: reserved param -> the optimizers that read it; the others are read by all
READERS = {"momentum": ("momentum", "nesterov"), "betas": ("adam", "adamw")}


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number of the loop, resolved; the fields are those of ``TrainingTask``."""

    optimizer: OptimizerName
    lr: float
    momentum: float
    betas: tuple[float, float]
    weight_decay: float
    l1: float
    clip: float | None
    label_smoothing: float
    schedule: Schedule
    epochs: int
    batch_size: int
    patience: int | None


@final
class ModelParams(Mapping[str, Value]):
    """The params that go to ``TrainingTask.model`` and ``data``; knows what was read (``**params`` reads all)."""

    def __init__(self, params: Params) -> None:
        self._params = {name: value for name, value in params.items() if name not in RESERVED}
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Value:
        self._read.add(name)
        try:
            return self._params[name]
        except KeyError:
            why = "it goes to the training loop" if name in RESERVED else f"there are: {', '.join(self._params)}"
            raise KeyError(f"no hyperparameter {name!r} for the model; {why}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._params

    def __iter__(self) -> Iterator[str]:
        self._read.update(self._params)
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def __repr__(self) -> str:
        return repr(self._params)

    @property
    def read(self) -> dict[str, Value]:
        """What was read so far."""
        return {name: self._params[name] for name in self._read & self._params.keys()}

    def fresh(self) -> ModelParams:
        """The same params, nothing read yet."""
        return ModelParams(self._params)

    def check_read(self, task: TrainingTask) -> None:
        """Raises:
        ObjectiveError: a param that neither ``model`` nor ``data`` has read: searching it would be searching noise.
        """
        for name in self._params.keys() - self._read:
            attribute = hasattr(TrainingTask, name)
            way = f"{name} is an attribute of the task, not a hyperparameter" if attribute else f'read params["{name}"]'
            raise ObjectiveError(
                f"hyperparameter {name!r} is read by nobody: {type(task).__name__}.model and data do not look at it",
                hint=f"{way}, or take it out of the search space; to the loop go {', '.join(sorted(RESERVED))}",
            )


def resolve(task: TrainingTask, params: Params) -> Recipe:
    """The recipe of a trial.

    Raises:
        ObjectiveError: an unknown optimizer, schedule or precision, a value out of its range, a param that nobody
            reads.
    """
    dtype_of(task)  # says what is wrong with it
    given: dict[str, Any] = {name: params.get(name, getattr(task, name)) for name in RESERVED}
    optimizer = given["optimizer"]
    if optimizer not in OPTIMIZERS:
        raise ObjectiveError(f"optimizer: {optimizer!r} is unknown; there are {', '.join(OPTIMIZERS)}")
    for name, readers in READERS.items():
        if name in params and optimizer not in readers:
            raise ObjectiveError(
                f"hyperparameter {name!r} is read by nobody: the optimizer is {optimizer}",
                hint=f"{name} is read by {' and '.join(readers)}",
            )
    smoothing = _number("label_smoothing", given["label_smoothing"], 0, 1)
    if ("label_smoothing" in params or smoothing) and type(task).loss is not TrainingTask.loss:
        raise ObjectiveError(
            f"label_smoothing is read by nobody: {type(task).__name__} has a loss of its own",
            hint="smooth the labels in that loss, or take label_smoothing out",
        )
    lr = TEXTBOOK[optimizer]["lr"] if given["lr"] is None else given["lr"]
    return Recipe(
        optimizer=optimizer,
        lr=_number("lr", lr, 0, math.inf),
        momentum=_number("momentum", given["momentum"], 0, 1),
        betas=_betas(given["betas"]),
        weight_decay=_number("weight_decay", given["weight_decay"], 0, math.inf),
        l1=_number("l1", given["l1"], 0, math.inf),
        clip=None if given["clip"] is None else _number("clip", given["clip"], 0, math.inf),
        label_smoothing=smoothing,
        schedule=_schedule(given["schedule"]),
        epochs=_count("epochs", given["epochs"]),
        batch_size=_count("batch_size", given["batch_size"]),
        patience=None if task.patience is None else _count("patience", task.patience),
    )


def _number(name: str, value: Any, low: float, high: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not good or math.isinf(value):
        raise ObjectiveError(f"{name}: must be a number from {low} to {high}, not {value!r}")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ObjectiveError(f"{name}: must be a whole number of at least 1, not {value!r}")
    return value


def _betas(value: Any) -> tuple[float, float]:
    try:  # a study file can only write a choice of betas as text: "0.9, 0.999"
        beta1, beta2 = (float(part) for part in (value.split(",") if isinstance(value, str) else value))
    except (TypeError, ValueError):
        raise ObjectiveError(f'betas: must be two numbers like "0.9, 0.999", not {value!r}') from None
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ObjectiveError(f"betas: must be at least 0 and below 1, not {value!r}")
    return beta1, beta2


def _schedule(value: Any) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str) and value in SCHEDULES:
        return SCHEDULES[value]
    raise ObjectiveError(f"schedule: {value!r} is unknown; there are {', '.join(SCHEDULES)}")
