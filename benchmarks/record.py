"""What the record costs: ask + record of a no-op trial of four params on durable SQLite, against Optuna's storage.

    python benchmarks/record.py                      10,000 trials here, 1,000 in Optuna (its cost grows with more)
    python benchmarks/record.py --trials 1000 --optuna-trials 200
    python benchmarks/record.py --lanes 1024         an epoch of a group of 1,024 lanes, 10 metrics each, in one turn

Both run in this process, one trial at a time, random strategy, in databases of the same folder (``--folder``: put it
on the disk you care about). SQLAlchemy's events count statements and commits;
a multi-row statement counts once.
CPU time is this process's; wall time includes the disk's syncs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

import hpsearch as hp
from hpsearch.executor import Assignment, Executor
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.search import search
from hpsearch.store import Claim, StudyRecord, Turn, this_process
from hpsearch.stores.sql import open_store
from hpsearch.study import fingerprint, spec_of
from hpsearch.trial import EpochReport, Finished, Report, Run, RunKey, State, Trial

SPACE = hp.SearchSpace(
    {
        "lr": hp.Float(1e-5, 1.0, log=True),
        "momentum": hp.Float(0.5, 0.999, reverse_log=True),
        "dropout": hp.Float(0.0, 0.5),
        "weight_decay": hp.Float(1e-6, 1e-1, log=True),
    }
)


def value_of(params: Any) -> float:
    """A number that costs nothing."""
    return float(params["lr"]) + float(params["dropout"])


class NoOp(Executor):
    """Runs are over before they begin: what remains is ask + record. Takes one run at a time, the worst case."""

    def __init__(self) -> None:
        self.done: deque[Report] = deque()
        #: CPU and wall time at each finished trial
        self.marks: list[tuple[float, float]] = []

    def capacity(self) -> int:
        return 1 - len(self.done)

    def idle(self) -> int:
        return self.capacity()

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        for a in assignments:
            value = value_of(a.params)
            self.done.append(Finished(run=a.run, attempt=a.attempt, state=State.COMPLETE, value=value))

    def poll(self, timeout_s: float) -> list[Report]:
        reports = list(self.done)
        self.done.clear()
        self.marks += [(time.process_time(), time.perf_counter())] * len(reports)
        return reports

    def stop(self, runs: Collection[RunKey], *, now: bool = False) -> None: ...

    def close(self) -> None: ...


class Never:
    """Nobody interrupts."""

    level = 0


def count(counter: Counter[str]) -> None:
    """Count the statements and commits of every engine of this process."""

    @event.listens_for(Engine, "before_cursor_execute")
    def statement(conn: Any, cursor: Any, sql: str, *rest: Any) -> None:
        if not sql.lstrip().upper().startswith(("PRAGMA", "BEGIN", "COMMIT")):
            counter["statements"] += 1

    @event.listens_for(Engine, "commit")
    def commit(conn: Any) -> None:
        counter["commits"] += 1


def ours(folder: Path, n: int) -> list[tuple[float, float]]:
    """Run a study of ``n`` no-op trials; CPU and wall time at each."""
    (folder / "noop.py").write_text("def train(run): return 0.0\n")
    address = ObjectiveAddress("noop.py", "train", folder)
    study = hp.Study(
        name="noop", objective=address, search_space=SPACE, strategy=hp.Random(), metric="value", n_trials=n
    )
    spec = spec_of(study)
    record = StudyRecord(name="noop", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64)
    executor = NoOp()
    search(
        study,
        record,
        store=open_store(f"sqlite:///{folder / 'ours.db'}"),
        executor=executor,
        workload=Workload(study="noop", objective=address, metric="value", direction="minimize", seed=0),
        holder=this_process(),
        interrupt=Never(),
    )
    return executor.marks


def optunas(folder: Path, n: int) -> list[tuple[float, float]]:
    """The same in Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    marks: list[tuple[float, float]] = []

    def objective(trial: optuna.Trial) -> float:
        params = {
            "lr": trial.suggest_float("lr", 1e-5, 1.0, log=True),
            "momentum": trial.suggest_float("momentum", 0.5, 0.999),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
            "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        }
        return value_of(params)

    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(
        objective,
        n_trials=n,
        callbacks=[lambda study, trial: marks.append((time.process_time(), time.perf_counter()))],
    )
    return marks


def epochs(folder: Path, lanes: int, metrics: int, epochs: int) -> list[tuple[float, float]]:
    """Write epochs of a group in which so many runs train together, a turn each; CPU and wall time at each."""
    store = open_store(f"sqlite:///{folder / 'lanes.db'}")
    store.open(StudyRecord(name="lanes", spec={}, fingerprint="", code_hash=""), this_process(), lease_s=600.0)
    keys = [RunKey(number, 0) for number in range(lanes)]
    trials = [Trial(number=key.trial, params={"lr": 0.1}, runs=(Run(key=key),)) for key in keys]
    store.write(Turn(trials=trials, claims=[Claim(run=key, attempt=1) for key in keys]))
    marks = [(time.process_time(), time.perf_counter())]
    for epoch in range(epochs):
        said = {f"metric_{k}": 1.0 / (k + epoch + 3) for k in range(metrics)}
        store.write(Turn(epochs=[EpochReport(run=key, attempt=1, epoch=epoch, metrics=said) for key in keys]))
        marks.append((time.process_time(), time.perf_counter()))
    store.close("stopped")
    return marks


def show_epochs(folder: Path | None, lanes: int, metrics: int, count: int) -> None:
    """Measure ``epochs`` and print it."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        marks = epochs(Path(name), lanes, metrics, count)
        size = (Path(name) / "lanes.db").stat().st_size
    spans = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks)]
    print(f"an epoch of {lanes:,} lanes with {metrics} metrics, in one turn ({count} epochs, {size / 1e6:.0f} MB):")
    for what, of in (("CPU", 0), ("wall", 1)):
        times = sorted(span[of] * 1e3 for span in spans)
        print(f"  {what:<5} median {times[len(times) // 2]:7.1f} ms   slowest {times[-1]:7.1f} ms")


def per_trial(marks: list[tuple[float, float]], start: int, end: int) -> tuple[float, float]:
    """Milliseconds of CPU and of wall time a trial, from trial ``start`` to ``end``."""
    (cpu0, wall0), (cpu1, wall1) = marks[start], marks[end - 1]
    n = end - 1 - start
    return (cpu1 - cpu0) / n * 1e3, (wall1 - wall0) / n * 1e3


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--optuna-trials", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--lanes", type=int, default=None, help="measure epochs of a group of so many runs instead")
    parser.add_argument("--metrics", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if options.lanes is not None:
        show_epochs(options.folder, options.lanes, options.metrics, options.epochs)
        return
    counter: Counter[str] = Counter()
    count(counter)
    print(f"{'':<10}{'trials':>14}{'CPU ms':>9}{'wall ms':>9}{'statements':>12}{'commits':>9}   a trial")
    for name, job, n in (("hpsearch", ours, options.trials), ("optuna", optunas, options.optuna_trials)):
        counter.clear()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            marks = job(Path(folder), n)
        cpu, wall = per_trial(marks, 0, n)
        counts = f"{counter['statements'] / n:>12.2f}{counter['commits'] / n:>9.2f}"
        print(f"{name:<10}{'all ' + str(n):>14}{cpu:>9.2f}{wall:>9.2f}{counts}")
        width = min(200, n // 4)
        for start in (100, n - width):
            if start > 0 and start + width <= n:
                cpu, wall = per_trial(marks, start, start + width)
                print(f"{'':<10}{f'{start}..{start + width}':>14}{cpu:>9.2f}{wall:>9.2f}")


if __name__ == "__main__":
    main()
