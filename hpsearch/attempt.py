"""Attempts that nobody records (``try``, ``plan --measure``, ``rerun``), and the one place where executors are made."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hpsearch.errors import Problem, StudyError
from hpsearch.executor import Assignment, Executor
from hpsearch.objective import Workload, find
from hpsearch.study import Study
from hpsearch.trial import Finished, Lost, PausedReport, Report


def watch(
    study: Study,
    assignments: Sequence[Assignment],
    *,
    device: str,
    workers: int | None = 1,
    hear: Callable[[Report], bool],
    limit_s: float = float("inf"),
) -> None:
    """Make these attempts, each alone in a process of its own, until all have ended or ``hear`` returns True.

    Their files are in a temporary folder, which is gone afterwards, as every process is.

    Args:
        study: whose they are.
        assignments: at most one for a run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        workers: how many at once; None: one a CUDA device, or one a core.
        hear: takes every report, in order for each run; True ends all of it.
        limit_s: the longest it may take.

    Raises:
        ObjectiveError: there is no such training code.
        ExecutorError: no worker can be started.
    """
    find(study.objective)
    waiting, running = deque(assignments), len(assignments)
    with tempfile.TemporaryDirectory(prefix="hpsearch-") as files:
        workload = replace(workload_of(study, device, Path(files)), isolate=True)
        executor = executor_of("local", workers, device)
        try:
            end = time.monotonic() + limit_s
            while running and time.monotonic() < end:
                room = min(len(waiting), executor.capacity())
                executor.start([waiting.popleft() for _ in range(room)], workload)
                for report in executor.poll(0.5):
                    running -= isinstance(report, Finished | Lost | PausedReport)
                    if hear(report):
                        return
        finally:
            executor.close()


def executor_of(on: str, workers: int | None, device: str, lanes: int = 1) -> Executor:
    """The executor of this name, ``local`` or ``inline``, whose workers take so many runs at once.

    Raises:
        StudyError: no such executor.
    """
    if on == "inline":
        from hpsearch.executors.inline import InlineExecutor

        return InlineExecutor(device=device, lanes=lanes)
    if on == "local":
        from hpsearch.executors.local import LocalExecutor

        return LocalExecutor(workers, device=device, lanes=lanes)
    raise StudyError([Problem(field="--on", message=f"{on!r} is no place for workers", hint="local or inline")])


def workload_of(study: Study, device: str, files: Path) -> Workload:
    """What the study's workers are told; each run alone."""
    return Workload(
        study=study.name,
        objective=study.objective,
        metric=study.metric,
        direction=str(study.direction),
        seed=study.seed,
        timeout_s=study.timeout_s,
        isolate=study.isolate,
        threads=study.threads,
        device=device,
        files=files,
    )
