"""Attempts that nobody records (``try``, ``plan``, ``rerun``), and the one place where executors are made."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, final

from hpsearch.errors import ObjectiveError, Problem, StudyError
from hpsearch.executor import Assignment, Executor
from hpsearch.executors._shares import spread
from hpsearch.objective import Workload, find, source_hash
from hpsearch.plan import Measured, MeasuredGroup, parted_by
from hpsearch.space import Params
from hpsearch.store import StudyRecord
from hpsearch.study import Study, fingerprint, spec_of
from hpsearch.trial import STREAMED, EpochReport, Finished, Grouped, Lost, PausedReport, Report, RunKey, State

if TYPE_CHECKING:
    from hpsearch.executors.ray import ClusterOptions, RayCluster

#: seconds that ``measure`` watches; on a CUDA device, where imports and compiling take some twenty
MEASURE_S, CUDA_MEASURE_S = 20.0, 90.0
#: epochs that each run of a group is watched for: the pause after the last one costs time of its own, so one more
#: than it takes to see a whole epoch from report to report
WATCHED_EPOCHS = 3


def watch(
    study: Study,
    assignments: Sequence[Assignment],
    *,
    device: str,
    workers: int | None = 1,
    lanes: int = 1,
    fixed_lanes: bool = False,
    isolated: bool = False,
    on: str = "local",
    cluster: ClusterOptions | None = None,
    files: Path | None = None,
    hear: Callable[[Report], bool],
    limit_s: float = float("inf"),
) -> None:
    """Make these attempts until all have ended or ``hear`` returns True; each in a process of its own, by default.

    Their files are in a temporary folder, which is gone afterwards, as every process is.

    Args:
        study: whose they are.
        assignments: at most one for a run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        workers: how many at once; None: one a CUDA device, or one a core.
        lanes, fixed_lanes: how many runs a worker takes, as in ``Workload``; 1: each in a process of its own.
        isolated: each in a process of its own whatever the lanes: there it is the only lane.
        on: ``local``, ``ray`` or ``inline`` (this process, which is then no fresh one).
        cluster: which Ray cluster; None: one that is started on this machine.
        files: the folder that the temporary one is made in; one that all machines of a cluster share.
        hear: takes every report, in order for each run; True ends all of it.
        limit_s: the longest it may take.

    Raises:
        ObjectiveError: there is no such training code.
        ExecutorError: no worker can be started.
    """
    find(study.objective)
    waiting, running = deque(assignments), len(assignments)
    if files is not None:
        files.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hpsearch-", dir=files) as temporary:
        folder, ray = Path(temporary), None
        if on == "ray":
            ray = connect(study, cluster, device, folder)
            device = ray.device
        workload = workload_of(study, device, folder)
        isolated = isolated or lanes == 1
        workload = replace(workload, isolate=isolated, lanes=lanes, fixed_lanes=fixed_lanes, keep=False)
        executor = executor_of(on, workers, device, 1 if isolated else lanes, ray)
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


def executor_of(
    on: str, workers: int | None, device: str, lanes: int = 1, cluster: RayCluster | None = None
) -> Executor:
    """The executor of this name, ``local``, ``inline`` or ``ray``, whose workers take so many runs at once.

    Args:
        cluster: where the workers of ``ray`` are; closed with the executor.

    Raises:
        StudyError: no such executor.
        ExecutorError: no worker can be started on the cluster.
    """
    if cluster is not None:
        from hpsearch.executors.ray import RayExecutor

        return RayExecutor(cluster, workers, lanes=lanes)
    if on == "inline":
        from hpsearch.executors.inline import InlineExecutor

        return InlineExecutor(device=device, lanes=lanes)
    if on == "local":
        from hpsearch.executors.local import LocalExecutor

        return LocalExecutor(workers, device=device, lanes=lanes)
    raise StudyError([Problem(field="--on", message=f"{on!r} is no place for workers", hint="local, inline or ray")])


def connect(study: Study, cluster: ClusterOptions | None, device: str, files: Path) -> RayCluster:
    """The Ray cluster whose workers have what ``device`` says: ``cpu`` no GPU, ``cuda`` at least a part of one.

    Raises:
        StudyError: another device.
        ExecutorError: there is no such cluster.
    """
    from hpsearch.executors.ray import ClusterOptions, RayCluster

    options = cluster or ClusterOptions()
    if device not in ("auto", "cpu", "cuda"):
        hint = "auto, cpu or cuda: Ray chooses a GPU for each worker"
        raise StudyError([Problem(field="device", message=f"{device!r} is no device of a cluster", hint=hint)])
    if options.gpus_per_worker is None and device != "auto":
        options = replace(options, gpus_per_worker=1.0 if device == "cuda" else 0.0)
    return RayCluster(options, study.objective.folder, files)


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
        keep=study.keep > 0,
    )


def record_of(study: Study) -> StudyRecord:
    """What is stored of a study itself."""
    spec = spec_of(study)
    file = study.file
    # A study written in Python is known by its spec; its text would not be read again.
    text = file.read_text(encoding="utf-8-sig") if file and file.suffix != ".py" else ""
    return StudyRecord(
        name=study.name,
        spec=spec,
        fingerprint=fingerprint(spec),
        code_hash=source_hash(study.objective),
        file=str(file.resolve()) if file else "",
        text=text,
    )


def on_cuda(device: str) -> bool:
    """Whether workers of this device, as ``run`` takes it, have a GPU each."""
    from hpsearch.executors.local import gpus

    return device.startswith("cuda") or (device == "auto" and bool(gpus()))


def measure_s(device: str) -> float:
    """How long runs on this device are watched at most: seconds."""
    return CUDA_MEASURE_S if on_cuda(device) else MEASURE_S


def time_alone(study: Study, assignment: Assignment, *, device: str) -> Measured | None:
    """Time the first epochs of a run, alone in a worker process; None where it does not get so far.

    Raises:
        ObjectiveError: it failed.
    """
    started = time.monotonic()
    reports: list[tuple[float, Report]] = []

    def enough(report: Report) -> bool:
        if not isinstance(report, Grouped):
            reports.append((time.monotonic() - started, report))
        return len(reports) == 4

    watch(study, [assignment], device=device, hear=enough, limit_s=measure_s(device))
    last = reports[-1][1] if reports else None
    epochs = [(at, report) for at, report in reports if isinstance(report, EpochReport)]
    whole = last.seconds if isinstance(last, Finished) and last.state is State.COMPLETE else None
    if not reports or (whole is None and not epochs):
        _say_failed([last] if isinstance(last, Finished) else [], study)
        return None
    return Measured(
        first_s=reports[0][0],
        # The mean: a report that is heard late makes the time to the next one too short.
        epoch_s=(epochs[-1][0] - epochs[0][0]) / (len(epochs) - 1) if len(epochs) > 1 else None,
        epochs=epochs[0][1].epochs if epochs else None,
        run_s=whole,
    )


def time_together(
    study: Study, assignments: Sequence[Assignment], *, device: str, workers: int, lanes: int, fixed_lanes: bool
) -> Measured | None:
    """Give worker processes these runs, at most as many as they have ``lanes``, and hear how they train them.

    Each is paused after ``WATCHED_EPOCHS``, so that every group has its turn, and all of it ends as soon as every
    group is timed, or after ``measure_s`` with what is known then.

    Returns:
        None where no run reports an epoch.

    Raises:
        ObjectiveError: none did, since they failed.
    """
    watched = [replace(assignment, until_epoch=WATCHED_EPOCHS) for assignment in assignments]
    # As the executor of ``watch`` does it: workers that have yet to start, and nothing in hand.
    rooms = dict.fromkeys(range(workers), lanes)
    seen = _Seen(list(spread(watched, rooms, lanes, rooms, "the plan").values()))
    watch(
        study,
        watched,
        device=device,
        workers=workers,
        lanes=lanes,
        fixed_lanes=fixed_lanes,
        hear=seen.hear,
        limit_s=measure_s(device),
    )
    return seen.measured(study)


@final
class _Seen:
    """What workers have said of the runs that they were given, and when."""

    def __init__(self, shares: Sequence[Sequence[Assignment]]) -> None:
        self._began = time.monotonic()
        self._worker_of = {assignment.run: k for k, share in enumerate(shares) for assignment in share}
        self._params = {assignment.run: assignment.params for share in shares for assignment in share}
        #: the ways in which runs are trained, and for each run the number of the one that was said last
        self._ways: list[Grouped] = []
        self._way_of: dict[RunKey, int] = {}
        #: ways of which a run has told two epochs
        self._timed: set[int] = set()
        #: for each run when it told its epochs; in the order of their first ones
        self._told: dict[RunKey, list[float]] = {}
        self._ended: dict[RunKey, Finished | Lost | PausedReport] = {}
        self._first_s: float | None = None
        self._epochs: int | None = None

    def hear(self, report: Report) -> bool:
        """Keep it; True where nothing more is to be learned."""
        now = time.monotonic() - self._began
        if isinstance(report, Grouped):
            self._regroup(report)
        elif isinstance(report, EpochReport):
            self._first_s = now if self._first_s is None else self._first_s
            self._epochs = report.epochs
            told = self._told.setdefault(report.run, [])
            told.append(now)
            if len(told) > 1 and report.run in self._way_of:
                self._timed.add(self._way_of[report.run])
        else:
            self._ended[report.run] = report
        return all(run in self._ended or self._way_of.get(run) in self._timed for run in self._params)

    def measured(self, study: Study) -> Measured | None:
        """What it comes to."""
        ends = [end for end in self._ended.values() if isinstance(end, Finished)]
        if self._first_s is None:
            _say_failed(ends, study)
            return None
        groups = self._groups()
        fused = [k for k, group in enumerate(groups) if group.said.engine != "solo"]
        told = [self._told_by(groups[k].said) for k in fused]
        tags = parted_by(study.search_space, told, [groups[k].worker for k in fused])
        for k, tag in zip(fused, tags, strict=True):
            groups[k] = replace(groups[k], shared=tag)
        shares = [(g.epoch_s / g.said.lanes, len(g.said.runs), g.worker) for g in groups if g.epoch_s is not None]
        epoch_s = sum(share * n for share, n, _ in shares) / sum(n for _, n, _ in shares) if shares else None
        whole = [end.seconds for end in ends if end.state is State.COMPLETE]
        failed = [end for end in ends if end.state is State.FAILED]
        return Measured(
            first_s=self._first_s,
            epoch_s=epoch_s,
            slowest_s=self._slowest_s(shares, epoch_s),
            epochs=self._epochs,
            run_s=statistics.fmean(whole) if whole and not shares else None,
            lanes=max((group.said.lanes for group in groups), default=1),
            runs=len(self._params),
            workers=len(set(self._worker_of.values())),
            groups=groups,
            failed=len(failed),
            failure=_gist(failed[0]) if failed else "",
            unseen=len(self._params.keys() - self._way_of.keys() - self._ended.keys()),
        )

    def _slowest_s(self, shares: Sequence[tuple[float, int, int]], mean: float | None) -> float | None:
        """Seconds in which the worker that is slowest trains an epoch of all its runs; those not timed as the mean."""
        if mean is None:
            return None
        totals = dict.fromkeys(self._worker_of.values(), 0.0)
        for worker in self._worker_of.values():
            totals[worker] += mean
        for share, n, worker in shares:
            totals[worker] += (share - mean) * n
        return max(totals.values())

    def _told_by(self, said: Grouped) -> list[Params]:
        """The params of a group's runs; with their seed where that parts groups."""
        seeds = STREAMED in said.reason
        return [{"seed": run.seed, **self._params[run]} if seeds else self._params[run] for run in said.runs]

    def _regroup(self, said: Grouped) -> None:
        """These runs are trained in another way from now on, for the reason that is said now or was said before."""
        former = [self._ways[self._way_of[run]] for run in said.runs if run in self._way_of]
        reasons = (said.reason, *(way.reason for way in former if way.engine == said.engine))
        self._ways.append(replace(said, reason=next(filter(None, reasons), "")))
        for run in said.runs:
            self._way_of[run] = len(self._ways) - 1
            self._told.pop(run, None)

    def _groups(self) -> list[MeasuredGroup]:
        found: dict[int, list[RunKey]] = {}
        for run in self._params:
            if run in self._way_of:
                found.setdefault(self._way_of[run], []).append(run)
        return [
            MeasuredGroup(
                said=replace(self._ways[way], runs=tuple(runs)),
                epoch_s=self._epoch_s(way),
                worker=self._worker_of[runs[0]],
            )
            for way, runs in found.items()
        ]

    def _epoch_s(self, way: int) -> float | None:
        """Of the runs that had the lanes first: the middle time from a report to the next one, before any pauses."""
        first = [run for run in self._told if self._way_of.get(run) == way][: self._ways[way].lanes]
        spans = [b - a for run in first for a, b in pairwise(self._told[run][: WATCHED_EPOCHS - 1])]
        return statistics.median(spans) if spans else None


def _say_failed(ends: Sequence[Finished], study: Study) -> None:
    """Where runs failed, say so, and how the first one did."""
    failed = [end for end in ends if end.state is State.FAILED]
    if failed:
        runs = "the run that was tried failed" if len(failed) == 1 else f"{len(failed)} runs that were tried failed"
        raise ObjectiveError(f"{runs}: {_gist(failed[0])}; hpsearch try {study.file} shows it whole")


def _gist(end: Finished) -> str:
    """The line of an error that says what it is: a traceback's last one."""
    lines = end.error.splitlines() or [end.reason]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
