"""One attempt at one run, in this process: load, seed, train, report. A worker knows no database."""

from __future__ import annotations

import gc
import math
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, final

import torch

from hpsearch.errors import ObjectiveError, Paused, Pruned, Stopped
from hpsearch.executor import Assignment
from hpsearch.objective import ActiveRun, TrainingTask, Workload
from hpsearch.training.course import Orders, Outcome
from hpsearch.training.environment import environment
from hpsearch.training.guard import clean_process, seed_everything
from hpsearch.training.load import TrainingFunction, load
from hpsearch.training.solo import train
from hpsearch.trial import Direction, EpochReport, Finished, PausedReport, Report, RunKey, State

#: characters of a traceback that are kept
ERROR_LENGTH = 20_000
_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class _InvalidResultError(Exception):
    """A training function returned no number."""


def execute(
    assignment: Assignment,
    workload: Workload,
    *,
    send: Callable[[Report], None],
    stopped: Callable[[], bool],
    device: str,
) -> None:
    """Make one attempt: sends an EpochReport an epoch, and in the end exactly one Finished or PausedReport.

    Whatever training code does (raises, exits, returns nonsense, changes torch's settings) ends as a Finished, and
    the process is as it was before. Only ``send``'s own errors pass when the last report cannot be sent.

    Args:
        assignment: the run, its params and its attempt.
        workload: what all runs of the study share.
        send: takes a report; called from this thread.
        stopped: True when the run is to end at its next report (Finished, cancelled).
        device: ``cpu``, ``cuda:0`` ...; ``auto`` is the first GPU there is, else the CPU.
    """
    started = time.perf_counter()
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    active = _ActiveRun(assignment, workload, send=send, stopped=stopped, device=device)
    with clean_process(workload.threads):
        last = _attempt(active, workload)
    if isinstance(last, Finished):
        last = replace(
            last,
            last_epoch=active.last_epoch if last.last_epoch is None else last.last_epoch,
            sealed={**active.sealed, **last.sealed},
            seconds=time.perf_counter() - started,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            environment=environment(workload.objective.folder, device),
        )
    send(last)


@final
class _ActiveRun(ActiveRun):
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
        self.last_epoch: int | None = None
        self.best: tuple[float, int] | None = None
        self.sealed: dict[str, float] = {}
        #: why the run is to end; kept, since training code may swallow what ``report`` raises
        self.ending: Stopped | None = None
        self._metric, self._direction = workload.metric, Direction(workload.direction)
        self._send, self._stopped = send, stopped

    def report(self, epoch: int, **metrics: float) -> None:
        if self.ending is not None:
            raise self.ending
        self.tell(epoch, _metrics(metrics))
        if self.until_epoch is not None and epoch + 1 >= self.until_epoch:
            self.ending = Paused()
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
        if self.last_epoch is not None and epoch <= self.last_epoch:
            raise ValueError(f"run.report takes increasing epochs: {epoch} comes after {self.last_epoch}")
        self.last_epoch = epoch
        shown, sealed = _split_sealed(metrics)
        self.sealed.update(sealed)
        value = shown.get(self._metric, math.nan)
        if math.isfinite(value) and (self.best is None or self._direction.better(value, self.best[0])):
            self.best = (value, epoch)
        self._send(
            EpochReport(
                run=self.key, attempt=self.attempt, epoch=epoch, metrics=shown, epochs=epochs, layers=layers or {}
            )
        )
        if self._stopped():
            self.ending = Stopped()
            raise self.ending


def _attempt(active: _ActiveRun, workload: Workload) -> Finished | PausedReport:
    """Train, and turn whatever happens into the last report."""
    finished = Finished(run=active.key, attempt=active.attempt, state=State.FAILED)
    try:
        active.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        objective = load(workload.objective)
        seed_everything(active.seed)
        if isinstance(objective, TrainingTask):
            return _of_outcome(finished, _train(objective, active, workload))
        return _call(objective, active, workload.metric, finished)
    except Stopped as ending:
        if not _is_meant(active, ending):
            return replace(finished, reason="exception", error=_traceback(ending))
        return _of_ending(finished, active, active.ending or ending)
    except ObjectiveError as error:
        return replace(finished, reason="study", error=_study_text(error))
    except _InvalidResultError as error:
        return replace(finished, reason="invalid_result", error=_cut(str(error)))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        return replace(finished, reason=f"exit:{code}", error=_traceback(error))
    except BaseException as error:  # noqa: BLE001 (training code's own; it costs this run only)
        if _is_out_of_memory(error):
            text = _traceback(error)
            del error
            gc.collect()
            torch.cuda.empty_cache()
            return replace(finished, reason="oom", error=text)
        return replace(finished, reason="exception", error=_traceback(error))


def _train(task: TrainingTask, active: _ActiveRun, workload: Workload) -> Outcome:
    orders = Orders(
        seed=active.seed,
        study_seed=workload.seed,
        metric=workload.metric,
        direction=Direction(workload.direction),
        device=active.device,
        checkpoint_dir=active.checkpoint_dir,
        until_epoch=active.until_epoch,
    )
    return train(task, active.params, orders, partial(active.tell, epochs=task.epochs))


def _call(objective: TrainingFunction, active: _ActiveRun, metric: str, finished: Finished) -> Finished | PausedReport:
    result = objective(active)
    if active.ending is not None:
        return _of_ending(finished, active, active.ending)
    value, others = _value_of(result, metric)
    shown, sealed = _split_sealed({name: number for name, number in others.items() if math.isfinite(number)})
    if not math.isfinite(value):
        kind = "nan" if math.isnan(value) else "inf"
        return replace(finished, state=State.DIVERGED, reason=f"{kind} result", metrics=shown, sealed=sealed)
    best = active.best[1] if active.best else None
    return replace(finished, state=State.COMPLETE, value=value, best_epoch=best, metrics=shown, sealed=sealed)


def _of_outcome(finished: Finished, outcome: Outcome) -> Finished:
    state = State.DIVERGED if outcome.value is None else State.COMPLETE
    return replace(
        finished,
        state=state,
        value=outcome.value,
        best_epoch=outcome.best_epoch,
        last_epoch=outcome.last_epoch,
        reason=outcome.reason,
    )


def _is_meant(active: _ActiveRun, ending: Stopped) -> bool:
    """Whether the coordinator asked for it, or training code prunes itself; any other run would wait for ever."""
    if active.ending is not None or isinstance(ending, Pruned):
        return True
    return isinstance(ending, Paused) and active.until_epoch is not None and active.last_epoch is not None


def _of_ending(finished: Finished, active: _ActiveRun, ending: Stopped) -> Finished | PausedReport:
    """Paused, pruned or cancelled."""
    if isinstance(ending, Paused) and active.last_epoch is not None:
        return PausedReport(run=active.key, attempt=active.attempt, epoch=active.last_epoch)
    if isinstance(ending, Pruned):
        value, epoch = active.best or (None, None)
        return replace(finished, state=State.PRUNED, value=value, best_epoch=epoch, reason="pruned")
    return replace(finished, state=State.CANCELLED, reason="cancelled")


def _number(value: object) -> float | None:
    """A real number as float (numpy's too); None for everything else, bool included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def _what(value: object) -> str:
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
        number = _number(value)
        if number is None:
            raise TypeError(f"run.report takes numbers: {name} is {_what(value)}")
        numbers[name] = number
    return numbers


def _value_of(result: object, metric: str) -> tuple[float, dict[str, float]]:
    """The metric and the further numbers that a training function returned."""
    right = f"return {metric} as a number, or a dict with it"
    if not isinstance(result, Mapping):
        value = _number(result)
        if value is None:
            raise _InvalidResultError(f"the training function returned {_what(result)}; {right}")
        return value, {}
    if metric not in result:
        names = ", ".join(str(name) for name in result) or "nothing"
        raise _InvalidResultError(f"the training function returned a dict without {metric!r} (it has {names}); {right}")
    others = {}
    for name, given in result.items():
        number = _number(given)
        if number is None or not isinstance(name, str):
            raise _InvalidResultError(f"the training function returned a dict with {name!r}: {_what(given)}; {right}")
        others[name] = number
    return others.pop(metric), others


def _split_sealed(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    shown = {name: value for name, value in metrics.items() if not name.startswith("test_")}
    sealed = {name: value for name, value in metrics.items() if name not in shown and math.isfinite(value)}
    return shown, sealed


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _study_text(error: ObjectiveError) -> str:
    text = f"{error}\n  hint: {error.hint}" if error.hint else str(error)
    return _cut(f"{text}\n\n{_traceback(error.__cause__)}" if error.__cause__ is not None else text)


def _traceback(error: BaseException) -> str:
    """The traceback without hpsearch's own frames and the import machinery's."""
    whole = traceback.TracebackException.from_exception(error)
    pending: list[Any] = [whole]
    while pending:
        part = pending.pop()
        mine = [f for f in part.stack if not f.filename.startswith(_PACKAGE) and "<frozen importlib" not in f.filename]
        part.stack[:] = mine
        pending += [other for other in (part.__cause__, part.__context__) if other is not None]
    return _cut("".join(whole.format()))


def _cut(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= ERROR_LENGTH:
        return text.rstrip()
    half = ERROR_LENGTH // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}".rstrip()
