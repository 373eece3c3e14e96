"""What a worker on Ray costs: no-op runs through Ray actors, beside the local executor's workers, in one run.

    python benchmarks/ray_workers.py [--runs 1000] [--epochs 2000] [--workers 1] [--ray-address auto]

One run at a time for each worker, so the whole way there and back counts; no database. Then one run that reports many
epochs, which come in batches. Without ``--ray-address`` a cluster of this machine is started. CPU time is that of
this process and all that it has started: for a cluster of one's own all of Ray.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from hpsearch.executor import Assignment, Executor
from hpsearch.executors.local import LocalExecutor
from hpsearch.executors.ray import ClusterOptions, RayCluster, RayExecutor
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.trial import EpochReport, Finished, RunKey, State

TRAIN = """
def nothing(run):
    return 0.5

def reports(run):
    for epoch in range(run["epochs"]):
        run.report(epoch, loss=1.0, accuracy=0.5)
    return 1.0
"""


def cpu_s() -> float:
    """CPU seconds of this process and its living descendants, and of those that they have waited for."""
    total, me = 0.0, psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def drive(executor: Executor, todo: Sequence[Assignment], workload: Workload) -> int:
    """Run them all; how many epochs were reported."""
    waiting, ended, epochs = list(todo), 0, 0
    while ended < len(todo):
        room = min(executor.capacity(), len(waiting))
        if room:
            executor.start(waiting[:room], workload)
            del waiting[:room]
        for report in executor.poll(0.5):
            epochs += isinstance(report, EpochReport)
            if isinstance(report, Finished):
                assert report.state is State.COMPLETE, report
                ended += 1
    return epochs


def measure(name: str, executor: Executor, folder: Path, arguments: argparse.Namespace) -> None:
    """Both tables' row of an executor; the first runs warm its workers."""

    def work(function: str) -> Workload:
        address = ObjectiveAddress(source="train.py", name=function, folder=folder)
        return Workload(
            study="s",
            objective=address,
            metric="loss",
            direction="minimize",
            seed=0,
            device="cpu",
            files=folder / "files",
        )

    def runs(count: int, first: int) -> list[Assignment]:
        params = {"epochs": arguments.epochs}
        return [Assignment(run=RunKey(first + k, 0), params=params, attempt=1) for k in range(count)]

    drive(executor, runs(50, 0), work("nothing"))
    cpu, wall = cpu_s(), time.perf_counter()
    drive(executor, runs(arguments.runs, 100), work("nothing"))
    cpu, wall = cpu_s() - cpu, time.perf_counter() - wall
    row = f"{name:<8}{1000 * wall / arguments.runs:>12.2f}{1000 * cpu / arguments.runs:>12.2f}"
    cpu, wall = cpu_s(), time.perf_counter()
    epochs = drive(executor, runs(1, 50), work("reports"))
    cpu, wall = cpu_s() - cpu, time.perf_counter() - wall
    assert epochs == arguments.epochs
    print(f"{row}{1000 * wall / epochs:>16.3f}{1000 * cpu / epochs:>12.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ray-address")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.py").write_text(TRAIN)
        print(f"{'':<8}{'ms a run':>12}{'CPU ms':>12}{'ms an epoch':>16}{'CPU ms':>12}")
        local = LocalExecutor(arguments.workers, device="cpu")
        try:
            measure("local", local, folder, arguments)
        finally:
            local.close()
        cluster = RayCluster(ClusterOptions(address=arguments.ray_address), folder, folder / "files")
        ray = RayExecutor(cluster, arguments.workers)
        try:
            measure("ray", ray, folder, arguments)
        finally:
            ray.close()


if __name__ == "__main__":
    main()
