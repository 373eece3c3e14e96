"""Workers on a Ray cluster: placement, lost nodes and new ones are Ray's; retry and bookkeeping are ours."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, final

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment, Executor
from hpsearch.executors import _wire as wire
from hpsearch.executors._ray_cluster import ClusterOptions, RayCluster
from hpsearch.executors._shares import spread
from hpsearch.objective import Workload
from hpsearch.trial import Finished, Grouped, Lost, PausedReport, Report, RunKey

__all__ = ["ClusterOptions", "RayCluster", "RayExecutor"]

#: seconds until the first worker must be there, and how long the others are waited for then
START_S, OTHERS_S = 120.0, 10.0
#: seconds that a study waits for a worker when it has lost all of them
BARREN_S = 300.0
#: seconds that a worker has to end runs that were stopped now; then it is given up
STOP_S = 10.0
#: seconds without a word of a worker, which speaks every 20 s, after which its runs are lost; after twice as many it is
#: ended, and replaced
SILENT_S = 60.0


@final
class _Member:
    """A worker of the cluster as the coordinator knows it."""

    def __init__(self, place: str) -> None:
        #: ``host:pid`` of its actor
        self.place = place
        #: what it has in hand, each with the time at which it was given
        self.jobs: dict[RunKey, tuple[Assignment, float]] = {}
        #: when it was told to end runs now
        self.doomed: float | None = None
        #: it says nothing at present
        self.silent = False
        #: the attempts that were lost by its silence and that it has not ended yet; what it still says of them is void
        self.void: dict[RunKey, int] = {}

    @property
    def alone(self) -> bool:
        """Whether it has a group that is to be alone."""
        return any(assignment.group is not None for assignment, _ in self.jobs.values())


@final
class RayExecutor(Executor):
    """Long-lived Ray actors, each with a local worker, its guard and a part of the cluster (``ClusterOptions``).

    New nodes get workers while a study runs, those that are lost are replaced where there is room. A lost worker is a
    ``Lost`` report of each run that it had: cause ``node`` where its machine is gone, ``oom`` where Ray says so,
    ``silent`` where its process or machine is stopped, else ``connection``. A silent worker that goes on is told to end
    what it has lost, and takes new runs then. What happens within a worker (a crash, a timeout) is told as by the local
    executor.

    Args:
        cluster: where; closed with the executor.
        workers: how many; None: as many as the cluster holds, also when it grows.
        lanes: how many runs a worker takes at once.

    Raises:
        ExecutorError: ``workers`` or ``lanes`` below 1; no worker can be started, or it is not like this process.
    """

    def __init__(self, cluster: RayCluster, workers: int | None = None, lanes: int = 1) -> None:
        self._cluster, self._lanes, self._closed = cluster, lanes, False
        self._members: dict[str, _Member] = {}
        self._said: list[Report] = []
        self._wanted = workers or 1
        self._barren = time.monotonic()
        self._wrong: ExecutorError | None = None
        try:
            for name, number in (("workers", workers), ("lanes", lanes)):
                if number is not None and number < 1:
                    raise ExecutorError(f"{name} must be at least 1, not {number}")
            terms = {"workers": workers, "lanes": lanes, "device": cluster.device, "silent_s": SILENT_S}
            cluster.send({"is": "hire", **terms})
            self._gather()
        except BaseException:
            self.close()
            raise

    def _gather(self) -> None:
        """Wait for the first worker, and a little for the others, so that runs are dealt out evenly."""
        end = time.monotonic() + START_S
        while len(self._members) < self._wanted and time.monotonic() < end:
            alone = not self._members
            for message in self._cluster.receive(0.2):
                self._hear(message)
            if alone and self._members:
                end = min(end, time.monotonic() + OTHERS_S)
        if not self._members:
            raise ExecutorError(
                f"no worker was placed within {START_S:g} s: nobody else may be using the cluster's "
                f"{self._cluster.options.cpus_per_worker:g} CPU and {self._cluster.gpus:g} GPU for each",
                hint="ray status says who has what; --cpus-per-worker and --gpus-per-worker ask for less",
            )

    def capacity(self) -> int:
        return 0 if self._closed else sum(self._rooms().values())

    def idle(self) -> int:
        return 0 if self._closed else sum(room == self._lanes for room in self._rooms().values())

    def _rooms(self) -> dict[str, int]:
        return {
            name: 0 if member.alone or member.doomed or member.silent or member.void else self._lanes - len(member.jobs)
            for name, member in self._members.items()
        }

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Make what workers have even (``_shares``); a group goes to one that has none.

        Raises:
            ExecutorError: the executor is closed, there are more assignments than ``capacity()`` or more groups than
                ``idle()``, or one is larger than a worker's lanes.
        """
        if self._closed or len(assignments) > self.capacity():
            why = "is closed" if self._closed else f"has room for {self.capacity()}"
            raise ExecutorError(f"{len(assignments)} runs were started on a Ray executor that {why}")
        for name, share in spread(assignments, self._rooms(), self._lanes, (), "a Ray executor").items():
            now = time.monotonic()
            self._members[name].jobs |= {assignment.run: (assignment, now) for assignment in share}
            packed = [wire.pack_assignment(assignment) for assignment in share]
            order = {"is": "give", "assignments": packed, "workload": wire.pack_workload(workload)}
            self._cluster.send({"is": "order", "worker": name, "order": order})

    def poll(self, timeout_s: float) -> list[Report]:
        """What has been said since the last poll.

        Raises:
            ExecutorError: the cluster is lost, or has had no worker for minutes; workers cannot be started.
        """
        end = time.monotonic() + timeout_s
        while not self._closed:
            if self._wrong and not self._said:
                raise self._wrong
            patience = 0.0 if self._said or self._wrong else end - time.monotonic()
            try:
                messages = self._cluster.receive(patience) if not self._wrong else []
            except ExecutorError as error:
                self._wrong = error  # what was said before it is given first
                continue
            for message in messages:
                self._hear(message)
            self._give_up()
            if (self._said and not messages) or time.monotonic() >= end:
                break
        said, self._said = self._said, []
        return said

    def stop(self, runs: Collection[RunKey], *, now: bool = False) -> None:
        """End these runs. ``now`` ends the workers' processes that have them, and their other runs."""
        for name, member in self._members.items():
            mine = [run for run in member.jobs if run in set(runs)]
            if not mine or (now and member.doomed):
                continue
            order = {"is": "stop", "runs": [list(run) for run in mine], "now": now}
            self._cluster.send({"is": "order", "worker": name, "order": order})
            if now:
                member.doomed = time.monotonic()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._members.clear()
        self._cluster.close()

    def _hear(self, message: Mapping[str, Any]) -> None:
        kind, name = message["is"], message.get("worker", "")
        if kind == "wanted":
            self._wanted = message["count"]
        elif kind == "joined":
            self._members[name] = _Member(message["place"])
        elif kind == "left" and name in self._members:
            self._lose(name, message["cause"])
        elif kind == "silent" and name in self._members:
            self._suspect(name)
        elif kind == "heard" and name in self._members:
            self._members[name].silent = False
        elif kind == "reports" and name in self._members:
            self._take(self._members[name], message["reports"])

    def _take(self, member: _Member, packed: Sequence[Mapping[str, Any]]) -> None:
        """Keep what a worker says of the runs that it has in hand."""
        for report in wire.unpack_reports(packed, lost=True):
            if isinstance(report, Grouped):
                if not member.void:
                    self._said.append(report)
                continue
            if member.void.get(report.run) == report.attempt:
                self._said.append(report)  # the coordinator refuses it, and counts how often that happens
                if isinstance(report, Finished | PausedReport | Lost):
                    del member.void[report.run]
                continue
            assignment, _ = member.jobs.get(report.run, (None, 0.0))
            if assignment is None or assignment.attempt != report.attempt:
                continue
            self._said.append(report)
            if isinstance(report, Finished | PausedReport | Lost):
                del member.jobs[report.run]
        if not member.jobs:
            member.doomed = None

    def _lose(self, name: str, cause: str) -> None:
        """A worker is gone, and what it had in hand is lost together."""
        member = self._members.pop(name)
        self._barren = time.monotonic()
        self._tell_lost(member, cause)

    def _suspect(self, name: str) -> None:
        """A worker says nothing: others train its runs, and it is to end them should it go on."""
        member = self._members[name]
        member.silent = True
        if not member.jobs:
            return
        order = {"is": "stop", "runs": [list(run) for run in member.jobs], "now": True}
        self._cluster.send({"is": "order", "worker": name, "order": order})
        self._tell_lost(member, "silent")
        member.void |= {run: assignment.attempt for run, (assignment, _) in member.jobs.items()}
        member.jobs.clear()
        member.doomed = None

    def _tell_lost(self, member: _Member, cause: str) -> None:
        for run, (assignment, began) in member.jobs.items():
            self._said.append(
                Lost(
                    run=run,
                    attempt=assignment.attempt,
                    cause="stopped" if member.doomed else cause,
                    seconds=time.monotonic() - began,
                    worker=member.place,
                    company=tuple(other for other in member.jobs if other != run),
                )
            )

    def _give_up(self) -> None:
        """Workers that do not end what they were told to end, and a cluster that has had none for too long."""
        now = time.monotonic()
        for name, member in list(self._members.items()):
            if member.doomed and now - member.doomed > STOP_S:
                self._cluster.send({"is": "kill", "worker": name})
                self._lose(name, "stopped")
        if not self._members and now - self._barren > BARREN_S and not self._wrong:
            self._wrong = ExecutorError(
                f"the Ray cluster has had no worker for {BARREN_S:g} s",
                hint="when it has nodes again, the same command goes on",
            )
