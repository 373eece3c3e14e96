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
from pathlib import Path
from typing import Any, TypeVar

import torch

from hpsearch.errors import ObjectiveError, Paused, Pruned, Stopped, shown
from hpsearch.executor import Assignment
from hpsearch.objective import TrainingTask, Workload
from hpsearch.training.active import LiveRun, number_of, split_sealed, what_is
from hpsearch.training.course import Orders, Outcome
from hpsearch.training.data import prepare
from hpsearch.training.environment import environment
from hpsearch.training.guard import clean_process, seed_everything
from hpsearch.training.load import TrainingFunction, load
from hpsearch.training.precision import noted
from hpsearch.training.recipe import ModelParams, resolve
from hpsearch.training.solo import train
from hpsearch.trial import LONGEST_NAME, Direction, Finished, PausedReport, Report, State

Last = TypeVar("Last", bound=Finished | PausedReport)
#: characters of a traceback that are kept
ERROR_LENGTH = 20_000
_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class _TooLongError(Exception):
    """A run is older than ``timeout_s``."""


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
    device = found(device)
    active = LiveRun(assignment, workload, send=send, stopped=stopped, device=device)
    with clean_process(workload.threads):
        last = _attempt(active, workload)
    send(signed(last, active, time.perf_counter() - started, workload, active.engine))


def found(device: str) -> str:
    """``auto`` is the first GPU there is, else the CPU."""
    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _require(device: str) -> None:
    """Raises:
    ObjectiveError: there is no such GPU.
    """
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            raise ObjectiveError(
                f"device {device}: torch {torch.__version__} finds {count or 'no'} GPU{'s' * (count > 1)} here",
                hint="device: auto takes what there is",
            )


def signed(last: Last, active: LiveRun, seconds: float, workload: Workload, engine: str) -> Last:
    """A run's last report with where, how and how long it was trained."""
    last = replace(
        last,
        seconds=seconds,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        engine=engine,
        environment=replace(environment(workload.objective.folder, active.device), data=active.data),
    )
    if isinstance(last, PausedReport):
        return last
    epoch = active.last_epoch if last.last_epoch is None else last.last_epoch
    return replace(last, last_epoch=epoch, sealed={**active.sealed, **last.sealed})


def _attempt(active: LiveRun, workload: Workload) -> Finished | PausedReport:
    """Train, and turn whatever happens into the last report."""
    finished = Finished(run=active.key, attempt=active.attempt, state=State.FAILED)
    try:
        _require(active.device)
        active.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        objective = load(workload.objective)
        seed_everything(active.seed)
        if isinstance(objective, TrainingTask):
            return of_outcome(finished, _train(objective, active, workload))
        return _call(objective, active, workload.metric, finished)
    except Stopped as ending:
        if not _is_meant(active, ending):
            return replace(finished, reason="exception", error=traceback_text(ending))
        return of_ending(finished, active, active.ending or ending)
    except ObjectiveError as error:
        return replace(finished, reason="study", error=study_text(error))
    except _TooLongError as error:
        return replace(finished, reason="timeout", error=str(error))
    except _InvalidResultError as error:
        return replace(finished, reason="invalid_result", error=_cut(str(error)))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        return replace(finished, reason=f"exit:{code}", error=traceback_text(error))
    except BaseException as error:  # noqa: BLE001 (training code's own; it costs this run only)
        if is_out_of_memory(error):
            text = traceback_text(error)
            del error
            gc.collect()
            torch.cuda.empty_cache()
            return replace(finished, reason="oom", error=text)
        return replace(finished, reason="exception", error=traceback_text(error))


def _train(task: TrainingTask, active: LiveRun, workload: Workload) -> Outcome:
    epochs = resolve(task, active.params).epochs
    active.engine = noted(active.engine, task)
    began, limit = time.monotonic(), workload.timeout_s

    def tell(epoch: int, metrics: Mapping[str, float], layers: Mapping[str, tuple[float, float]]) -> None:
        active.tell(epoch, metrics, layers, epochs=epochs)
        # With other runs in hand the guard does not know whose time is over.
        if limit is not None and time.monotonic() - began > limit:
            raise _TooLongError(f"ran longer than {limit:g} s")

    # Kept for ``train``; here because a run that is pruned, paused or diverges has seen data as well.
    active.data = prepare(task, workload.seed, active.device, ModelParams(active.params))[0].fingerprint
    return train(task, active.params, orders_of(active, workload), tell)


def orders_of(active: LiveRun, workload: Workload) -> Orders:
    """What a training is told of a run."""
    return Orders(
        seed=active.seed,
        study_seed=workload.seed,
        metric=workload.metric,
        direction=Direction(workload.direction),
        device=active.device,
        checkpoint_dir=active.checkpoint_dir,
        until_epoch=active.until_epoch,
        from_epoch=active.from_epoch,
        keep=workload.keep,
    )


def _call(objective: TrainingFunction, active: LiveRun, metric: str, finished: Finished) -> Finished | PausedReport:
    try:
        result = objective(active)
    except (Exception, Stopped):
        if not active.ahead:
            raise
    if active.ahead:
        active.start_anew()
        seed_everything(active.seed)
        result = objective(active)
    if active.ending is not None:
        return of_ending(finished, active, active.ending)
    value, others = _value_of(result, metric)
    plain, sealed = split_sealed({name: number for name, number in others.items() if math.isfinite(number)})
    if not math.isfinite(value):
        kind = "nan" if math.isnan(value) else "inf"
        return replace(finished, state=State.DIVERGED, reason=f"{kind} result", metrics=plain, sealed=sealed)
    best = active.best[1] if active.best else None
    return replace(finished, state=State.COMPLETE, value=value, best_epoch=best, metrics=plain, sealed=sealed)


def of_outcome(finished: Finished, outcome: Outcome) -> Finished:
    """Complete or diverged."""
    state = State.DIVERGED if outcome.value is None else State.COMPLETE
    return replace(
        finished,
        state=state,
        value=outcome.value,
        best_epoch=outcome.best_epoch,
        last_epoch=outcome.last_epoch,
        reason=outcome.reason,
        checkpoint=outcome.checkpoint,
    )


def _is_meant(active: LiveRun, ending: Stopped) -> bool:
    """Whether the coordinator asked for it, or training code prunes itself; any other run would wait for ever."""
    if active.ending is not None or isinstance(ending, Pruned):
        return True
    return isinstance(ending, Paused) and active.until_epoch is not None and active.last_epoch is not None


def of_ending(finished: Finished, active: LiveRun, ending: Stopped) -> Finished | PausedReport:
    """Paused, diverged, pruned or cancelled."""
    if active.diverged:
        return replace(finished, state=State.DIVERGED, reason=active.diverged)
    if isinstance(ending, Paused) and active.last_epoch is not None:
        return PausedReport(run=active.key, attempt=active.attempt, epoch=active.last_epoch)
    if isinstance(ending, Pruned):
        value, epoch = active.best or (None, None)
        return replace(finished, state=State.PRUNED, value=value, best_epoch=epoch, reason="pruned")
    return replace(finished, state=State.CANCELLED, reason="cancelled")


def _value_of(result: object, metric: str) -> tuple[float, dict[str, float]]:
    """The metric and the further numbers that a training function returned."""
    right = f"return {metric} as a number, or a dict with it"
    if not isinstance(result, Mapping):
        value = number_of(result)
        if value is None:
            raise _InvalidResultError(f"the training function returned {what_is(result)}; {right}")
        return value, {}
    if metric not in result:
        names = ", ".join(str(name) for name in result) or "nothing"
        raise _InvalidResultError(f"the training function returned a dict without {metric!r} (it has {names}); {right}")
    others = {}
    for name, given in result.items():
        number = number_of(given)
        if number is None or not isinstance(name, str):
            raise _InvalidResultError(f"the training function returned a dict with {name!r}: {what_is(given)}; {right}")
        if len(name) > LONGEST_NAME:
            words = f"a name of {len(name)} characters ({shown(name)}); {LONGEST_NAME} are the most"
            raise _InvalidResultError(f"the training function returned a dict with {words}; {right}")
        others[name] = number
    return others.pop(metric), others


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was memory that ran out, on the host or on the device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def study_text(error: ObjectiveError) -> str:
    """What is said of a task that does not fit its study."""
    text = f"{error}\n  hint: {error.hint}" if error.hint else str(error)
    return _cut(f"{text}\n\n{traceback_text(error.__cause__)}" if error.__cause__ is not None else text)


def traceback_text(error: BaseException) -> str:
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
