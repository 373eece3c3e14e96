"""Small tasks, and their runs trained in lanes and alone: what the tests of fused training compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.executor import Assignment
from hpsearch.objective import Data, ObjectiveAddress, TrainingTask, Workload
from hpsearch.training.course import CHECKPOINT
from hpsearch.training.groups import Trainer
from hpsearch.training.worker import execute
from hpsearch.trial import EpochReport, Finished, Grouped, PausedReport, Report, RunKey

ROWS = 130
#: the train part is 78 of them: four batches of 16 and one of 14
STEPS = 5


def classes() -> Tensor:
    return torch.arange(ROWS) % 3


def noise(*shape: int) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(9))


class Small(TrainingTask):
    epochs = 4
    batch_size = 16
    precision = "float64"


class MLP(Small):
    def model(self, params):
        p = params.get("dropout", 0.2)
        layers = [nn.Linear(5, 12), nn.ReLU(), nn.Dropout(p), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)]
        return nn.Sequential(*layers)

    def data(self):
        return Data(noise(5) + classes()[:, None], classes())


class CNN(Small):
    # No bias before the BatchNorm: its gradient is rounding noise, which adaptive methods blow up to full steps.
    def model(self, params):
        p = params.get("dropout", 0.2)
        first = [nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(p)]
        return nn.Sequential(*first, nn.Flatten(), nn.Linear(16, 3))

    def data(self):
        return Data(noise(1, 6, 6) + classes()[:, None, None, None], classes())


class Block(nn.Module):
    """A transformer's encoder layer (Vaswani et al., 2017), written out; keys have no bias, for the reason above."""

    def __init__(self, width: int, heads: int, p: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = self.drop((q @ k.transpose(-2, -1) / (width / self.heads) ** 0.5).softmax(-1))
        x = x + self.drop(self.out((weights @ v).transpose(1, 2).reshape(b, t, width)))
        return x + self.drop(self.narrow(functional.gelu(self.wide(self.norm2(x)))))


class Encoder(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(4, 8))
        self.first, self.block, self.norm, self.last = nn.Linear(6, 8), Block(8, 2, p), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.block(self.first(x) + self.place)).mean(1))


class Transformer(Small):
    def model(self, params):
        return Encoder(params.get("dropout", 0.2))

    def data(self):
        return Data(noise(4, 6) + classes()[:, None, None], classes())


class Bag(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.words, self.drop, self.last = nn.Embedding(11, 6, padding_idx=0), nn.Dropout(p), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.words(x).mean(1)).relu())


class Words(Small):
    def model(self, params):
        return Bag(params.get("dropout", 0.2))

    def data(self):
        words = (noise(6).abs() * 4 + classes()[:, None]).long() % 11
        return Data(words, classes())


class MLP32(MLP):
    precision = "float32"


class CNN32(CNN):
    precision = "float32"


class Transformer32(Transformer):
    precision = "float32"


class Words32(Words):
    precision = "float32"


class MLP16(MLP):
    precision = "bfloat16"


class CNN16(CNN):
    precision = "bfloat16"


class Transformer16(Transformer):
    precision = "bfloat16"


class Words16(Words):
    precision = "bfloat16"


@final
@dataclass
class Told:
    """All that was said of some runs, and what they left."""

    folder: Path
    #: as ``send`` got them
    sent: list[list[Report]] = field(default_factory=list)

    @property
    def reports(self) -> list[Report]:
        return [report for together in self.sent for report in together]

    @property
    def grouped(self) -> list[Grouped]:
        return [report for report in self.reports if isinstance(report, Grouped)]

    def epochs(self, run: RunKey) -> list[EpochReport]:
        return [report for report in self.reports if isinstance(report, EpochReport) and report.run == run]

    def curve(self, run: RunKey) -> list[Mapping[str, float]]:
        return [report.metrics for report in self.epochs(run)]

    def last(self, run: RunKey) -> Finished | PausedReport:
        (end,) = [r for r in self.reports if isinstance(r, Finished | PausedReport) and r.run == run]
        return end

    def unpaused(self) -> list[list[Report]]:
        """What was sent, as if no run had paused."""
        return [[report for report in sent if not isinstance(report, PausedReport)] for sent in self.sent]

    def checkpoint(self, run: RunKey) -> dict[str, Any]:
        """What a paused run has left; with one fold, its training's state."""
        file = self.folder / "files" / str(run.trial) / str(run.seed) / "checkpoint" / CHECKPOINT
        return torch.load(file, weights_only=False)["trainings"][0]


def key(k: int) -> RunKey:
    return RunKey(k, 5 + k)


def assignments(settings: Sequence[Mapping[str, Any]], until: int | None = None, first: int = 0) -> list[Assignment]:
    """Runs of seeds of their own."""
    return [
        Assignment(run=key(first + k), params=dict(params), attempt=1, until_epoch=until)
        for k, params in enumerate(settings)
    ]


def workload(task: type[TrainingTask], folder: Path, **changes: Any) -> Workload:
    defaults = {"seed": 0, "metric": "val_loss", "direction": "minimize", "lanes": 64, "fixed_lanes": True}
    address = ObjectiveAddress(task.__module__, task.__qualname__, folder)
    return Workload(study="s", objective=address, files=folder / "files", **{**defaults, **changes})


def together(
    task: type[TrainingTask],
    folder: Path,
    runs: Sequence[Assignment],
    *,
    more: Callable[[], Sequence[Assignment]] = tuple,
    stopped: Callable[[RunKey], bool] = lambda run: False,
    device: str = "cpu",
    trainer: Trainer | None = None,
    **changes: Any,
) -> Told:
    """Train runs in lanes, by what a worker calls; ``trainer``: of a worker that has trained others before."""
    folder.mkdir(parents=True, exist_ok=True)
    told = Told(folder)
    (trainer or Trainer(device)).train(
        runs,
        workload(task, folder, **changes),
        send=lambda reports: told.sent.append(list(reports)),
        stopped=stopped,
        more=more,
    )
    return told


def alone(
    task: type[TrainingTask], folder: Path, runs: Sequence[Assignment], *, device: str = "cpu", **changes: Any
) -> Told:
    """Train each by the solo loop."""
    folder.mkdir(parents=True, exist_ok=True)
    told = Told(folder)
    for run in runs:
        execute(
            run,
            workload(task, folder, **changes),
            send=lambda report: told.sent.append([report]),
            stopped=lambda: False,
            device=device,
        )
    return told


#: two runs
TWO = assignments([{"lr": 0.05}] * 2)


def in_two_parts(task: type[TrainingTask], folder: Path, ways: str) -> tuple[Told, Told]:
    """Two runs that pause after two epochs and go on: all that was said, and what was said by the second part.

    ``ways``: how each part is trained, "lanes solo".
    """
    first, second = (together if way == "lanes" else alone for way in ways.split())
    told = first(task, folder / "parts", [replace(run, until_epoch=2) for run in TWO])
    on = second(task, folder / "parts", TWO)
    told.sent = told.unpaused() + on.sent
    return told, on


class Later:
    """``more`` that gives some runs at each call."""

    def __init__(self, *batches: Sequence[Assignment]) -> None:
        self.batches = list(batches)

    def __call__(self) -> Sequence[Assignment]:
        return self.batches.pop(0) if self.batches else []


def keys(runs: Sequence[Assignment]) -> list[RunKey]:
    return [run.run for run in runs]


def is_fused(told: Told, lanes: int | None = None, engine: str = "vmap") -> bool:
    """Whether all that was trained was trained in lanes, so many, on that rung."""
    return bool(told.grouped) and all(g.engine == engine and lanes in (None, g.lanes) for g in told.grouped)


def gap(a: Tensor, b: Tensor) -> float:
    """The difference relative to b, in the 2-norm."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))


def assert_close(a: Mapping[str, float], b: Mapping[str, float], tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name, number in b.items():
        assert abs(a[name] - number) <= tolerance * max(1.0, abs(number)), (name, a[name], number)


def assert_same(lanes: Told, others: Told, runs: Sequence[RunKey], tolerance: float = 1e-8) -> None:
    """Every epoch's metrics and layer norms within a tolerance, and the end, of each run."""
    for run in runs:
        ours, theirs = lanes.epochs(run), others.epochs(run)
        assert [(r.epoch, r.epochs) for r in ours] == [(r.epoch, r.epochs) for r in theirs], run
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a.metrics, b.metrics, tolerance)
            for index in (0, 1):
                norms = [{name: pair[index] for name, pair in r.layers.items()} for r in (a, b)]
                assert_close(*norms, tolerance)
        assert_same_end(lanes.last(run), others.last(run), tolerance)


def assert_same_end(a: Finished | PausedReport, b: Finished | PausedReport, tolerance: float = 1e-8) -> None:
    assert type(a) is type(b), (a, b)
    if isinstance(a, PausedReport) or isinstance(b, PausedReport):
        assert a.epoch == b.epoch
        return
    assert (a.state, a.reason, a.best_epoch, a.last_epoch) == (b.state, b.reason, b.best_epoch, b.last_epoch)
    assert (a.value is None) == (b.value is None)
    if a.value is not None and b.value is not None:
        assert abs(a.value - b.value) <= tolerance * max(1.0, abs(b.value))


def assert_same_state(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float = 1e-8) -> None:
    """Weights, buffers, the best weights, the optimiser's buffers, steps and learning rate of two checkpoints."""
    for part in ("model", "best", "buffers"):
        assert a[part].keys() == b[part].keys()
        for name, tensor in b[part].items():
            assert a[part][name].dtype == tensor.dtype
            worst = float((a[part][name].double() - tensor.double()).abs().max())
            assert worst <= tolerance, (part, name, worst)
    assert a["steps"] == b["steps"]
    assert torch.allclose(torch.tensor(a["rate"]), torch.tensor(b["rate"]))
