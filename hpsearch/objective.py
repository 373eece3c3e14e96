"""The two contracts for training code: a plain training function, and a TrainingTask that hpsearch can fuse.

A training function is anything callable as ``train(run)``; it returns the metric, or a dict with it:

    def train(run: hp.ActiveRun) -> float:
        model = MLP(dropout=run["dropout"])
        optimizer = torch.optim.SGD(model.parameters(), lr=run["lr"])
        for epoch in range(20):
            ...
            run.report(epoch, val_loss=loss)
        return loss

torch, numpy and random are seeded with ``run.seed`` before it starts.
A ``TrainingTask`` says what to train and leaves the loop to hpsearch.
This module imports no torch: the coordinator and the CLI read it.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from hpsearch.errors import ObjectiveError
from hpsearch.space import Params

if TYPE_CHECKING:
    from torch import Tensor, nn

#: params that go to the training loop; every other one goes to ``TrainingTask.model``
RESERVED = frozenset(
    [
        *("lr", "momentum", "weight_decay", "l1", "betas", "clip", "label_smoothing"),
        *("batch_size", "epochs", "optimizer", "schedule"),
    ]
)

OptimizerName = Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"]
#: optimizer -> what a textbook starts with: the default of a task that sets no lr, and the usual baseline
TEXTBOOK: Mapping[str, Mapping[str, float]] = {
    "sgd": {"lr": 1e-2},
    "momentum": {"lr": 1e-2, "momentum": 0.9},
    "nesterov": {"lr": 1e-2, "momentum": 0.9},
    "adagrad": {"lr": 1e-2},
    "rmsprop": {"lr": 1e-3},
    "adam": {"lr": 3e-4},
    "adamw": {"lr": 3e-4},
}


@final
@dataclass(frozen=True)
class ObjectiveAddress:
    """Where the training code is. Objectives travel as file and name, never pickled."""

    #: ``path/to/file.py`` relative to ``folder``, or ``package.module``
    source: str
    #: the function's or the TrainingTask's name in it
    name: str
    #: the study file's folder, absolute
    folder: Path

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"

    @property
    def file(self) -> Path | None:
        """The file, absolute; None for a module."""
        return (self.folder / self.source).resolve() if self.source.endswith(".py") else None


class ActiveRun(ABC):
    """What a training function is given: one run, as it happens."""

    #: the setting of the hyperparameters; ``run["lr"]`` is short for ``run.params["lr"]``
    params: Params
    #: the run's seed; torch, numpy and random are seeded with it before training starts
    seed: int
    #: ``cpu``, ``cuda:0`` ...
    device: str
    #: an existing folder of this run's own; what lies in it is there again when the run goes on after a pause or a
    #: loss. hpsearch removes nothing of it once the run has ended, keeps no sha256 of it, and does not load it
    checkpoint_dir: Path
    #: the study file's folder
    study_dir: Path

    def __getitem__(self, name: str) -> Any:
        try:
            return self.params[name]
        except KeyError:
            known = ", ".join(self.params)
            raise KeyError(f"no hyperparameter {name!r} in this study; it has {known}") from None

    @abstractmethod
    def report(self, epoch: int, **metrics: float) -> None:
        """Say the metrics of an epoch (from 0, increasing). Where the study's is not finite at a rung, it has diverged.

        Raises:
            Stopped: when the run is to end here (pruned, paused, diverged, cancelled); let it pass.
        """


@final
@dataclass(frozen=True)
class Split:
    """Data of one part (train, validation or test): inputs (N, ...) and targets (N,) or (N, ...)."""

    inputs: Tensor
    targets: Tensor


@final
@dataclass(frozen=True)
class Data:
    """What ``TrainingTask.data`` returns: everything there is, and the official test part where there is one.

    Shapes: inputs (N, ...), targets (N,) of whole numbers for classes or (N, ...) of floats.
    uint8 inputs stay uint8 until the batch; ``transform`` makes the model's input of a batch of them.
    Tensors may be mapped from files (``torch.from_file(path, shared=True, size=..., dtype=...)``; as ``stream`` says).
    hpsearch splits ``inputs`` into train, validation and (without an official one) test, 60/20/20 by default,
    by the study's seed, stratified where targets are classes. A search never touches the test part.
    """

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor | None = None
    test_targets: Tensor | None = None
    #: (B, ...) as stored -> (B, ...) as the model takes it; deterministic
    transform: Callable[[Tensor], Tensor] | None = None


@final
@dataclass(frozen=True)
class Constant:
    """The learning rate stays what it is."""


@final
@dataclass(frozen=True)
class Step:
    """Multiply the learning rate by ``gamma`` every ``every`` epochs (torch's StepLR)."""

    every: int
    gamma: float = 0.1


@final
@dataclass(frozen=True)
class Cosine:
    """From lr down to ``floor`` * lr along half a cosine over all epochs (torch's CosineAnnealingLR)."""

    floor: float = 0.0


@final
@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by ``factor`` when the validation loss has not fallen for ``patience`` epochs.

    The textbook's "divide by 10 when the validation loss stagnates" (torch's ReduceLROnPlateau).
    """

    factor: float = 0.1
    patience: int = 5
    #: the loss must fall below best * (1 - threshold) to count
    threshold: float = 1e-4


Schedule = Constant | Step | Cosine | Plateau
#: how a study file names them: ``schedule: cosine``
SCHEDULES: Mapping[str, Schedule] = {
    "constant": Constant(),
    "step": Step(every=30),
    "cosine": Cosine(),
    "plateau": Plateau(),
}


@final
class _ParamsOfData:
    """``TrainingTask.params`` where nobody has set it."""

    def __get__(self, task: TrainingTask | None, owner: type[TrainingTask]) -> Params:
        if task is None:
            return MappingProxyType({})
        raise ObjectiveError(
            f"{owner.__name__}.params: is there for data alone, while hpsearch calls it; it is of no one run",
            hint="model has the hyperparameters as its argument, and may hand on in its output what loss needs; "
            "a transform may use a variable of data",
        )


class TrainingTask(ABC):
    """What to train; hpsearch owns the loop, so it can train hundreds of runs together.

    Subclass it, give ``model`` and ``data``, and set what differs from the defaults below. A hyperparameter of the
    study with a reserved name (``lr``, ``momentum``, ``weight_decay``, ``l1``, ``betas``, ``clip``,
    ``label_smoothing``, ``batch_size``, ``epochs``, ``optimizer``, ``schedule``) overrules the default; all others are
    in the ``params`` that ``model`` gets. One instance is made per worker, without arguments.
    """

    #: what updates the weights
    optimizer: ClassVar[OptimizerName] = "momentum"
    #: None: the textbook's for the optimizer (``TEXTBOOK``)
    lr: ClassVar[float | None] = None
    #: of ``momentum`` and ``nesterov``
    momentum: ClassVar[float] = 0.9
    #: of ``adam`` and ``adamw``
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    #: on weights only: biases and the parameters of normalisation layers are left alone
    weight_decay: ClassVar[float] = 0.0
    l1: ClassVar[float] = 0.0
    #: largest norm of the whole gradient; None: no clipping
    clip: ClassVar[float | None] = None
    label_smoothing: ClassVar[float] = 0.0
    schedule: ClassVar[Schedule] = Constant()
    epochs: ClassVar[int] = 20
    batch_size: ClassVar[int] = 128
    #: end a run when the validation loss has not fallen for so many epochs; None: never
    patience: ClassVar[int | None] = None
    #: ``kaiming`` or ``xavier`` for every Linear and Conv (biases 0); None: as the factory leaves them
    init: ClassVar[Literal["kaiming", "xavier"] | None] = None
    #: parts of the data for train, validation and test
    split: ClassVar[tuple[float, float, float]] = (0.6, 0.2, 0.2)
    #: k: k-fold cross-validation over train and validation together; a run's value is the mean over the folds
    folds: ClassVar[int | None] = None
    #: of weights, optimiser, data and loss; ``bfloat16`` is mixed precision: all these in float32, and the model's
    #: forward, in training and validation, under ``torch.autocast`` (its output is cast back before loss and metrics)
    precision: ClassVar[Literal["float32", "float64", "bfloat16"]] = "float32"
    #: True: leave the data where it is, in memory or in a mapped file, and bring each batch to the device, where runs
    #: of one seed share it; False: copy all of it there once; None: copy what takes up to half of a GPU's free memory
    #: (on the CPU a quarter, as there are other workers)
    stream: ClassVar[bool | None] = None
    #: examples of a validation batch: ``val_loss`` and ``metrics`` are means over batches, by their sizes. None: the
    #: whole part at once, for a metric that is no mean over examples (F1, AUC, R2)
    validation_batch: ClassVar[int | None] = 1024

    @abstractmethod
    def model(self, params: Params) -> nn.Module:
        """A fresh model. Called under ``torch.manual_seed(run seed)`` on the CPU, with plain numbers."""

    @abstractmethod
    def data(self) -> Data:
        """All data; the same whenever the params it reads are the same. Called with random, numpy and torch seeded by
        the study's seed, so that what it draws is the same in every worker.

        It may read the run's hyperparameters in ``self.params``: a fixed value of the study file
        (``images: data/mnist``) says where the data is. Relative paths begin at the study's folder (``study_dir``).
        """

    #: the study file's folder; set by hpsearch before ``data`` is called
    study_dir: Path = Path()
    #: the hyperparameters, reserved ones aside, for ``data`` to read; set by hpsearch while it calls that, and an error
    #: at any other time: data are kept for other runs, and one task serves them all
    params = _ParamsOfData()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar. Default: cross entropy for classes, mean squared error for float targets.

        ``label_smoothing`` is applied by hpsearch, and only to this default.
        """
        from torch.nn import functional

        if not target.is_floating_point():
            return functional.cross_entropy(output, target)
        if output.shape != target.shape:
            raise ObjectiveError(f"loss: outputs are {tuple(output.shape)}, targets {tuple(target.shape)}")
        return functional.mse_loss(output, target)

    def metrics(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Further numbers of a validation batch, of which the mean over batches is taken: each is a mean over examples,
        or ``validation_batch`` is None. Default: ``accuracy`` for classes."""
        return {} if target.is_floating_point() else {"accuracy": (output.argmax(-1) == target).double().mean()}

    #: a batch and its random numbers -> the augmented batch; None: no augmentation.
    #: Override with ``def augment(self, batch, key)``: ``key.uniform(*shape)`` gives numbers in [0, 1), ``key.normal``
    #: normal ones, that depend on the run's seed, the epoch and the example alone; shapes start with B.
    augment: ClassVar[Callable[[Any, Tensor, Any], Tensor] | None] = None


@final
@dataclass(frozen=True, kw_only=True)
class Workload:
    """What all runs of a study share, as a worker needs it. Plain data, so that it can travel."""

    study: str
    objective: ObjectiveAddress
    metric: str
    #: ``minimize`` or ``maximize``
    direction: str
    #: the study's seed: splits the data
    seed: int
    #: seconds that one attempt may take; None: no limit
    timeout_s: float | None = None
    #: a process of its own for every run
    isolate: bool = False
    #: torch threads of a worker
    threads: int = 1
    #: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
    device: str = "auto"
    #: how many runs a worker may train together; 1: each alone
    lanes: int = 1
    #: train exactly so many together where there are so many; False: as many of them as pays, measured
    fixed_lanes: bool = False
    #: leave the weights of each run's best epoch in a file, where hpsearch has the loop
    keep: bool = False
    #: where logs and checkpoints go: ``files/<trial>/<seed>[.<repeat>]/``
    files: Path = field(default_factory=Path)


def find(address: ObjectiveAddress) -> Path:
    """The file that defines the objective, found without importing or running anything (by a look at its syntax).

    Raises:
        ObjectiveError: no such file or module, no such name in it, or no Python; names what is near.
    """
    file = address.file or _module_file(address)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, _python_files(file.parent))
        raise ObjectiveError(f"objective {address}: there is no file {file}", hint=_did_you_mean(near))
    try:
        names = set(_names(ast.parse(file.read_bytes(), str(file)).body))
    except (SyntaxError, ValueError) as error:
        where = f"{file}:{error.lineno}" if isinstance(error, SyntaxError) else str(file)
        raise ObjectiveError(f"objective {address}: {where} is no Python: {error}") from error
    # What a star import or a module's __getattr__ gives cannot be seen from here.
    if address.name not in names and not names & {"*", "__getattr__"}:
        near = difflib.get_close_matches(address.name, names) or sorted(n for n in names if not n.startswith("_"))[:8]
        raise ObjectiveError(f"objective {address}: {file} defines no {address.name!r}", hint=_did_you_mean(near))
    return file


def source_hash(address: ObjectiveAddress) -> str:
    """sha256 of the file that defines the objective, in hexadecimal.

    Raises:
        ObjectiveError: as ``find``.
    """
    return hashlib.sha256(find(address).read_bytes()).hexdigest()


def _did_you_mean(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}?" if near else ""


def _python_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.py")) if folder.is_dir() else []


def _module_file(address: ObjectiveAddress) -> Path:
    # importlib.util.find_spec would import the parent packages; the finders themselves import nothing.
    spec, path = None, [str(address.folder), *sys.path]
    parts = address.source.split(".")
    for k in range(len(parts)):
        spec = _spec(".".join(parts[: k + 1]), path, top=k == 0)
        if spec is None:
            raise ObjectiveError(
                f"objective {address}: there is no module {'.'.join(parts[: k + 1])}",
                hint="path/to/file.py:Name (relative to the study file) or package.module:Name",
            )
        path = list(spec.submodule_search_locations or [])
    assert spec is not None
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ObjectiveError(f"objective {address}: module {address.source} has no Python file")
    return Path(spec.origin)


def _spec(name: str, path: Sequence[str], *, top: bool) -> ModuleSpec | None:
    spec = PathFinder.find_spec(name, path)
    for finder in sys.meta_path if spec is None and top else []:  # editable installs bring their own finder
        spec = spec or finder.find_spec(name, None)
    return spec


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Names that the statements define at the level of the module."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in aliases)
            case ast.Assign(targets=targets):
                yield from (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                yield name
            case ast.If() | ast.Try() | ast.With() | ast.For():
                for part in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, part, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _names(handler.body)
