"""A run as training code sees it, and what it has said so far."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import final

import torch

from hpsearch.errors import Paused, Stopped, shown
from hpsearch.executor import Assignment
from hpsearch.objective import ActiveRun, Workload
from hpsearch.trial import LARGEST, LONGEST_NAME, Direction, EpochReport, Report, RunKey


@final
class LiveRun(ActiveRun):
    """A run as training code sees it, and what it has said so far."""

    def __init__(
        self,
        assignment: Assignment,
        workload: Workload,
        *,
        send: Callable[[Report], None],
        stopped: Callable[[], bool],
        device: str,
    ) -> None:
        key = assignment.run
        self.params, self.seed, self.device = dict(assignment.params), key.seed, device
        self.study_dir = workload.objective.folder
        name = f"{key.seed}.{key.repeat}" if key.repeat else str(key.seed)
        self.checkpoint_dir = workload.files.absolute() / str(key.trial) / name / "checkpoint"
        self.key: RunKey = key
        self.attempt, self.until_epoch = assignment.attempt, assignment.until_epoch
        self.from_epoch = assignment.from_epoch
        self.last_epoch: int | None = None
        self.best: tuple[float, int] | None = None
        self.sealed: dict[str, float] = {}
        #: how it is trained, as ``Finished.engine`` says it
        self.engine = f"solo, {device}"
        #: of the data that it is trained on, as ``Environment.data`` says it
        self.data = ""
        #: why the run is to end; kept, since training code may swallow what ``report`` raises
        self.ending: Stopped | None = None
        #: ``nan val_loss at epoch 4`` where its metric at a rung was no number
        self.diverged = ""
        self._metric, self._direction = workload.metric, Direction(workload.direction)
        self._send, self._stopped = send, stopped
        # A lost worker may have saved more than anyone has heard of; the rungs are decided from what was heard.
        judged = assignment.until_epoch is not None or bool(assignment.from_epoch)
        self._inherits = judged and assignment.attempt > 1 and _has_files(self.checkpoint_dir)
        self._skipped = False

    @property
    def ahead(self) -> bool:
        """True where it has gone on from files of a lost attempt that the record does not know of."""
        return self._inherits and (self._skipped or self.last_epoch is None)

    def start_anew(self) -> None:
        """Forget what was said and saved: the run begins at its first epoch."""
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        self.last_epoch = self.best = self.ending = None
        self.sealed.clear()
        self.diverged = ""
        self._inherits = self._skipped = False

    def _beyond(self, epoch: int) -> bool:
        """Whether epochs before this one are not recorded, or it lies after the rung that the run is to wait at."""
        return epoch > (self.from_epoch or 0) or (self.until_epoch is not None and epoch >= self.until_epoch)

    def report(self, epoch: int, **metrics: float) -> None:
        if self.ending is not None:
            raise self.ending
        if self._inherits and self.last_epoch is None and isinstance(epoch, int) and self._beyond(epoch):
            self._skipped, self.ending = True, Stopped()
            raise self.ending
        numbers = _metrics(metrics)
        self.tell(epoch, numbers)
        if self.until_epoch is not None and epoch + 1 >= self.until_epoch:
            value = numbers.get(self._metric, 0.0)
            if not math.isfinite(value):
                # Paused, it would be compared by the last number before, and go on for ever.
                self.diverged = f"{'nan' if math.isnan(value) else 'inf'} {self._metric} at epoch {epoch}"
            self.ending = Stopped() if self.diverged else Paused()
            raise self.ending

    def tell(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        layers: Mapping[str, tuple[float, float]] | None = None,
        epochs: int | None = None,
    ) -> None:
        """Send an epoch's report; ``test_*`` metrics stay sealed.

        Raises:
            Stopped: the run is to end.
        """
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
            raise TypeError(f"run.report takes a whole epoch from 0, not {epoch!r}")
        if epoch > LARGEST:
            raise ValueError(f"run.report takes epochs up to {LARGEST}, not {shown(epoch)}")
        if self.last_epoch is not None and epoch <= self.last_epoch:
            raise ValueError(f"run.report takes increasing epochs: {epoch} comes after {self.last_epoch}")
        self.last_epoch = epoch
        plain, sealed = split_sealed(metrics)
        self.sealed.update(sealed)
        value = plain.get(self._metric, math.nan)
        if math.isfinite(value) and (self.best is None or self._direction.better(value, self.best[0])):
            self.best = (value, epoch)
        self._send(
            EpochReport(
                run=self.key, attempt=self.attempt, epoch=epoch, metrics=plain, epochs=epochs, layers=layers or {}
            )
        )
        if self._stopped():
            self.ending = Stopped()
            raise self.ending


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def number_of(value: object) -> float | None:
    """A real number as float (numpy's too); None for everything else, bool included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def what_is(value: object) -> str:
    """A value that is no number, for a message."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}; use value.item()"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a user's __repr__)
        text = "?"
    return f"{type(value).__name__} {text[:200]}"


def _metrics(metrics: Mapping[str, object]) -> dict[str, float]:
    numbers = {}
    for name, value in metrics.items():
        number = number_of(value)
        if number is None:
            raise TypeError(f"run.report takes numbers: {name} is {what_is(value)}")
        if len(name) > LONGEST_NAME:
            words = f"not the {len(name)} of {shown(name)}"
            raise ValueError(f"run.report takes names of at most {LONGEST_NAME} characters, {words}")
        numbers[name] = number
    return numbers


def split_sealed(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics to be shown, and those of the test set."""
    shown = {name: value for name, value in metrics.items() if not name.startswith("test_")}
    sealed = {name: value for name, value in metrics.items() if name not in shown and math.isfinite(value)}
    return shown, sealed
