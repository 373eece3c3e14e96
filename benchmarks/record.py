"""What the record costs: ask + record of a trial of four params that trains nothing, against Optuna's storage.

    python benchmarks/record.py                      10,000 trials here, 1,000 in Optuna (its cost grows with more)
    python benchmarks/record.py --trials 1000 --optuna-trials 200
    python benchmarks/record.py --epochs 20 --metrics 8 --engine postgresql --optuna-trials 100
    python benchmarks/record.py --resume --epochs 20 --metrics 8 --engine postgresql
    python benchmarks/record.py --lanes 1024 --engine postgresql
                                                     an epoch of a group of 1,024 lanes, 10 metrics each, in one turn

Both run in this process, one trial at a time, random strategy, in databases of the same folder (``--folder``: put it
on the disk you care about) or of the same PostgreSQL server (started for it, with fsync; ``tests/postgres.py``).
``--epochs`` and ``--metrics``: what each trial reports. Optuna keeps one number an epoch; the other metrics' curves are
one user attribute each, set once. SQLAlchemy's events count statements and commits; a multi-row statement counts once.
CPU time is this process's and, behind a plus, the server's; wall time includes the disk's syncs.
``--resume`` measures what `hpsearch run` does on such a study until its first claim is written.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
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


#: CPU of this process, CPU of the database server, wall: seconds
Mark = tuple[float, float, float]


class Place:
    """Where databases are: a folder, or a server."""

    def __init__(self, folder: Path, server: Any = None) -> None:
        self.folder, self.server = folder, server

    def url(self, name: str) -> str:
        """A new database."""
        if self.server is None:
            return f"sqlite:///{self.folder / name}.db"
        self.server.execute(f"CREATE DATABASE {name}")
        return str(self.server.url(name))

    def mark(self) -> Mark:
        """The time, three times."""
        return time.process_time(), self._server_s(), time.perf_counter()

    def _server_s(self) -> float:
        if self.server is None:
            return 0.0
        import psutil

        first = psutil.Process(self.server.pid)
        times = [process.cpu_times() for process in first.children()]
        ended = first.cpu_times()
        return float(sum(t.user + t.system for t in times) + ended.children_user + ended.children_system)


@contextmanager
def place(engine: str, folder: Path | None) -> Iterator[Place]:
    """A folder for SQLite, or a fresh PostgreSQL server as an operator would run it."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        if engine == "sqlite":
            yield Place(Path(name))
            return
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.postgres import Server

        server = Server(fsync="on", shared_buffers="128MB")
        try:
            server.start()
            yield Place(Path(name), server)
        finally:
            server.remove()


class NoOp(Executor):
    """Runs are over before they begin: what remains is ask + record. Takes one run at a time, the worst case."""

    def __init__(self, server: Place, epochs: int, metrics: int) -> None:
        self.done: deque[Report] = deque()
        self.place, self.epochs = server, epochs
        self.said = {f"metric_{k}": 1.0 / (k + 3) for k in range(metrics)}
        #: CPU, the server's CPU and wall time at each finished trial
        self.marks: list[Mark] = []

    def capacity(self) -> int:
        return 0 if self.done else 1

    def idle(self) -> int:
        return self.capacity()

    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        for a in assignments:
            value = value_of(a.params)
            self.done += [
                EpochReport(run=a.run, attempt=a.attempt, epoch=epoch, metrics=self.said)
                for epoch in range(self.epochs)
            ]
            self.done.append(Finished(run=a.run, attempt=a.attempt, state=State.COMPLETE, value=value))

    def poll(self, timeout_s: float) -> list[Report]:
        reports = list(self.done)
        self.done.clear()
        self.marks += [self.place.mark()] * sum(isinstance(report, Finished) for report in reports)
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


def ours(at: Place, n: int, epochs: int = 0, metrics: int = 0, url: str = "") -> list[Mark]:
    """Run a study of ``n`` no-op trials; the time at each."""
    (at.folder / "noop.py").write_text("def train(run): return 0.0\n")
    address = ObjectiveAddress("noop.py", "train", at.folder)
    study = hp.Study(
        name="noop", objective=address, search_space=SPACE, strategy=hp.Random(), metric="value", n_trials=n
    )
    spec = spec_of(study)
    record = StudyRecord(name="noop", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64)
    executor = NoOp(at, epochs, metrics)
    search(
        study,
        record,
        store=open_store(url or at.url("ours")),
        executor=executor,
        workload=Workload(study="noop", objective=address, metric="value", direction="minimize", seed=0),
        holder=this_process(),
        interrupt=Never(),
    )
    return executor.marks


def optunas(at: Place, n: int, epochs: int = 0, metrics: int = 0) -> list[Mark]:
    """The same in Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    marks: list[Mark] = []

    def objective(trial: optuna.Trial) -> float:
        params = {
            "lr": trial.suggest_float("lr", 1e-5, 1.0, log=True),
            "momentum": trial.suggest_float("momentum", 0.5, 0.999),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
            "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        }
        for epoch in range(epochs):
            trial.report(1.0 / 3, epoch)
        for k in range(1, metrics):
            trial.set_user_attr(f"metric_{k}", [1.0 / (k + 3)] * epochs)
        return value_of(params)

    study = optuna.create_study(storage=at.url("optuna"), sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=n, callbacks=[lambda study, trial: marks.append(at.mark())])
    return marks


RESUME = """
import sys, time
start = time.perf_counter()
from pathlib import Path
from benchmarks import record
from hpsearch.ledger import Ledger
from sqlalchemy import event
from sqlalchemy.engine import Engine
url, folder, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
class First(Exception): ...
def told(conn, cursor, sql, *rest):
    if sql.startswith("INSERT INTO attempt"):
        raise First
event.listen(Engine, "after_cursor_execute", told)
read = time.process_time()
try:
    record.ours(record.Place(folder), n + 10, url=url)
except First:
    print(f"{read:.2f} {time.process_time() - read:.2f} {time.perf_counter() - start:.2f}")
"""


def show_resume(at: Place, n: int, epochs: int, metrics: int) -> None:
    """A study of ``n`` trials is stored, and gone on with in a process of its own."""
    url = at.url("ours")
    ours(at, n, epochs, metrics, url=url)
    print(f"resume of {n:,} trials, {epochs} epochs x {metrics} metrics each, until the first claim:")
    for _ in range(3):
        command = [sys.executable, "-c", RESUME, url, str(at.folder), str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
        imports, cpu, wall = done.stdout.split()
        print(f"  CPU {imports} s to import, {cpu} s to read and decide; wall {wall} s")


def lanes_of(at: Place, lanes: int, metrics: int, epochs: int) -> list[Mark]:
    """Write epochs of a group in which so many runs train together, a turn each; the time at each."""
    store = open_store(at.url("lanes"))
    store.open(StudyRecord(name="lanes", spec={}, fingerprint="", code_hash=""), this_process(), lease_s=600.0)
    keys = [RunKey(number, 0) for number in range(lanes)]
    trials = [Trial(number=key.trial, params={"lr": 0.1}, runs=(Run(key=key),)) for key in keys]
    store.write(Turn(trials=trials, claims=[Claim(run=key, attempt=1) for key in keys]))
    marks = [at.mark()]
    for epoch in range(epochs):
        said = {f"metric_{k}": 1.0 / (k + epoch + 3) for k in range(metrics)}
        store.write(Turn(epochs=[EpochReport(run=key, attempt=1, epoch=epoch, metrics=said) for key in keys]))
        marks.append(at.mark())
    store.close("stopped")
    return marks


def show_epochs(at: Place, lanes: int, metrics: int, count: int) -> None:
    """Measure ``lanes_of`` and print it."""
    marks = lanes_of(at, lanes, metrics, count)
    print(f"an epoch of {lanes:,} lanes with {metrics} metrics, in one turn, {count} epochs, milliseconds:")
    for k, what in enumerate(("CPU", "+ server", "wall")):
        times = sorted((after[k] - before[k]) * 1e3 for before, after in pairwise(marks))
        print(f"  {what:<9} median {times[len(times) // 2]:7.1f}   slowest {times[-1]:7.1f}")


def per_trial(marks: list[Mark], start: int, end: int) -> list[float]:
    """Milliseconds of CPU, of the server's CPU and of wall time a trial, from trial ``start`` to ``end``."""
    return [(b - a) / (end - 1 - start) * 1e3 for a, b in zip(marks[start], marks[end - 1], strict=True)]


def line(name: str, words: str, times: list[float], more: str = "") -> None:
    """One row of the table."""
    cpu, server, wall = times
    print(f"{name:<10}{words:>16}{cpu:>9.2f}{server:>10.2f}{wall:>9.2f}{more}")


def compare(options: argparse.Namespace) -> None:
    """Measure both and print a table."""
    counter: Counter[str] = Counter()
    count(counter)
    print(
        f"{'':<10}{'trials':>16}{'CPU ms':>9}{'+ server':>10}{'wall ms':>9}{'statements':>12}{'commits':>9}   a trial"
    )
    for name, job, n in (("hpsearch", ours, options.trials), ("optuna", optunas, options.optuna_trials)):
        if n < 2:
            continue
        counter.clear()
        with place(options.engine, options.folder) as at:
            marks = job(at, n, options.epochs, options.metrics)
        counts = f"{counter['statements'] / n:>12.2f}{counter['commits'] / n:>9.2f}"
        line(name, f"all {n}", per_trial(marks, 0, n), counts)
        width = min(200, n // 4)
        starts = [start for start in (100, 1_000, n - width) if start + width <= n]
        for start in dict.fromkeys(starts):
            line("", f"{start}..{start + width}", per_trial(marks, start, start + width))


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--optuna-trials", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--lanes", type=int, default=None, help="measure epochs of a group of so many runs instead")
    parser.add_argument("--resume", action="store_true", help="measure going on with such a study instead")
    parser.add_argument("--metrics", type=int, default=0, help="metrics of an epoch (--lanes: 10)")
    parser.add_argument("--epochs", type=int, default=0, help="epochs that each trial reports (--lanes: 20)")
    options = parser.parse_args()
    if options.lanes is not None:
        with place(options.engine, options.folder) as at:
            show_epochs(at, options.lanes, options.metrics or 10, options.epochs or 20)
    elif options.resume:
        with place(options.engine, options.folder) as at:
            show_resume(at, options.trials, options.epochs, options.metrics)
    else:
        compare(options)


if __name__ == "__main__":
    main()
