"""A coordinator killed before and after each of its statements, then started again: the machinery of ``test_sweep.py``.

``python -m tests.faults.sweep`` reads jobs from stdin, a line of JSON each, and prints what they found. It is a process
of its own, of one thread, that has already run a study like theirs but of another seed: all is imported and every
statement compiled, and nothing that is chosen, trained or stored in their study is known. Each coordinator is a fork of
it, so a point costs a quarter of a second of CPU on SQLite: nearly all of it is the work itself.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine.default import DefaultDialect

import hpsearch as hp
from hpsearch.archive import Archive
from hpsearch.audit import Facts
from hpsearch.objective import Workload, source_hash
from hpsearch.search import search
from hpsearch.store import StudyRecord, this_process
from hpsearch.stores.sql import engine as engines
from hpsearch.stores.sql import open_archive, open_audit, open_store
from hpsearch.study import Study, fingerprint, spec_of
from hpsearch.training.environment import environment
from hpsearch.trial import Environment
from hpsearch.verify import verify
from tests.faults.lanes import LaneExecutor

TRAIN = """
import math

def train(run):
    saved = run.checkpoint_dir / "epoch"
    start = int(saved.read_text()) if saved.exists() else 0
    if run["lr"] > 0.7:
        return math.nan
    for epoch in range(start, 3):
        value = abs(math.log10(run["lr"]) + 1.5) + run["dropout"] / (epoch + 1) + 0.01 * run.seed
        saved.write_text(str(epoch + 1))
        run.report(epoch, loss=value)
    return value
"""
SPACE = """
baseline: false
metric: {loss: minimize}
search_space: {lr: {log: [1e-4, 1]}, dropout: {uniform: [0, 0.5]}}
seeds: 2
n_trials: 8
"""
STUDIES = {
    "coarse": """
strategy: {coarse_to_fine: {trials_per_round: 4}}
pruner: {successive_halving: {max_epochs: 3, eta: 2}}
""",
    "tpe": """
strategy: {bayesian: {model: tpe, startup: 4, batch: 4}}
pruner: {median: {max_epochs: 3, warmup_epochs: 1, min_trials: 2}}
""",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process of a sweep does."""

    #: a name of STUDIES
    study: str
    #: an existing folder of the test's own
    folder: str
    #: the database; SQLite's file is made anew for each point, a server's studies are deleted
    url: str
    #: events of the first start at which it is killed, from 1; each statement has two, each commit too
    points: Sequence[int] = ()
    #: and every so many after the last of them, to the end; 0: no more
    step: int = 0
    #: after each of them, events of the second start at which it is killed as well
    again: Sequence[int] = ()
    #: a name of ``mutants.MUTANTS``; empty: the real code
    mutant: str = ""


class Killer:
    """Counts this process's events with its database, and kills it at one of them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count = at, 0

    def __call__(self, *_: Any, **__: Any) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        event.listen(Engine, "before_cursor_execute", self)
        event.listen(Engine, "after_cursor_execute", self)
        commit = DefaultDialect.do_commit

        def watched(dialect: DefaultDialect, connection: Any) -> None:
            self()
            commit(dialect, connection)
            self()

        DefaultDialect.do_commit = watched  # type: ignore[method-assign]


#: all that this process has made
ENGINES: list[Engine] = []


def keep_engines() -> None:
    """One engine for each address and way to use it: SQLAlchemy keeps the statements that it has compiled there.

    No connection is kept: a reader's engine has none at rest, and a writer's is disposed of as ever.
    """

    def kept(make: Callable[[URL, engines.Mode], Engine]) -> Callable[[URL, engines.Mode], Engine]:
        @cache
        def made(url: URL, mode: engines.Mode) -> Engine:
            ENGINES.append(make(url, mode))
            return ENGINES[-1]

        return made

    engines._sqlite, engines._postgres = kept(engines._sqlite), kept(engines._postgres)


class Interrupt:
    level = 0


def in_fork(work: Callable[[], Any]) -> tuple[int, Any]:
    """(wait status, what ``work`` has returned as JSON knows it, or the text of its traceback) of a fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            said = work()
            code = 0
        except BaseException:
            said = traceback.format_exc()
        with os.fdopen(writer, "w") as file:
            json.dump(said, file)
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    return status, json.loads(text) if text else None


class Scene:
    """One study of a sweep, and its places."""

    def __init__(self, job: Job, seed: int = 0) -> None:
        self.job, self.folder = job, Path(job.folder)
        (self.folder / "train.py").write_text(TRAIN)
        file = self.folder / f"{job.study}-{seed}.yaml"
        file.write_text(f"name: {job.study}\nseed: {seed}\nobjective: train.py:train\n{SPACE}{STUDIES[job.study]}")
        self.study: Study = hp.read_study(file)
        self.log, self.files = self.folder / f"log-{os.getpid()}.jsonl", self.folder / f"files-{os.getpid()}"
        spec = spec_of(self.study)
        self.record = StudyRecord(
            name=self.study.name,
            spec=spec,
            fingerprint=fingerprint(spec),
            code_hash=source_hash(self.study.objective),
            file=str(file),
        )

        self.workload = Workload(
            study=self.study.name,
            objective=self.study.objective,
            metric=self.study.metric,
            direction=self.study.direction.value,
            seed=0,
            files=self.files,
        )

    def here(self) -> Environment:
        """Looked up once, before the forks."""
        return environment(self.folder, "cpu")

    def warm(self) -> None:
        """Do in this process all that its forks do, so that they find it imported and compiled."""
        self.blank()
        self.here()
        self.coordinate()
        self.coordinate()
        wrong = self.wrong("warm")
        assert not wrong, wrong
        self.outcome()
        self.fenced()
        for made in ENGINES:
            made.dispose()

    def blank(self) -> None:
        """No study in the database, no file of an earlier point; the schema is there."""
        self.log.unlink(missing_ok=True)
        shutil.rmtree(self.files, ignore_errors=True)
        path = Path(self.job.url.removeprefix("sqlite:///"))
        if self.job.url.startswith("sqlite"):
            empty = path.with_suffix(".empty")
            if not empty.exists():
                in_fork(lambda: open_store(f"sqlite:///{empty}")._engine.dispose())  # type: ignore[attr-defined]
            for left in path.parent.glob(f"{path.name}-*"):
                left.unlink()
            shutil.copy(empty, path)
        else:
            in_fork(self._delete_all)

    def _delete_all(self) -> None:
        store = open_store(self.job.url)
        with store._engine.begin() as connection:  # type: ignore[attr-defined]
            connection.exec_driver_sql("DELETE FROM study")
            connection.exec_driver_sql("DELETE FROM environment")

    def coordinate(self, kill_at: int | None = None) -> dict[str, int]:
        """Run the study from where its record stands, in this process. Returns what was counted."""
        killer = Killer(kill_at)
        killer.install()
        executor = LaneExecutor(self.log)
        search(
            self.study,
            self.record,
            store=open_store(self.job.url),
            executor=executor,
            workload=self.workload,
            holder=this_process(),
            interrupt=Interrupt(),
            observer=lambda progress: executor.note(done=progress.runs_done),
        )
        return {"events": killer.count, "late": executor.late}

    # What must hold

    def wrong(self, when: str) -> list[str]:
        """What ``verify`` says of the record as it lies, after the word ``when``, and what it should know of."""
        audit = open_audit(self.job.url)
        damage = [f"{when}: database: {words}" for words in audit.damage()[0]]
        facts = audit.facts(self.study.name) if self.study.name in audit.names() else None
        unrecorded = [f"unrecorded: {words}" for words in self._unrecorded(facts)]
        if facts is None:
            return damage + unrecorded
        verdict = verify(facts, self.study, environment=self.here, code_hash=self.record.code_hash)
        breaches = [f"{b.address} {b.rule}: expected {b.expected}, found {b.found}" for b in verdict.breaches]
        return damage + [f"{when}: {words}" for words in breaches] + unrecorded

    def _unrecorded(self, facts: Facts | None) -> list[str]:
        """What workers and watchers were told of that the record does not know."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        if facts is None:
            return [f"{len(lines)} things were said of a study that is not there"] if lines else []
        params = {trial.number: dict(trial.params) for trial in facts.trials}
        claimed = {(*key, attempt.number) for key, attempts in facts.attempts.items() for attempt in attempts}
        ended = sum(run.state.final for trial in facts.trials for run in trial.runs)
        wrong = []
        for line in lines:
            if "done" in line and line["done"] > ended:
                wrong.append(f"{line['done']} runs were said to have ended, the record knows of {ended}")
            if "started" in line:
                known = (*line["started"], line["attempt"]) in claimed
                if not known or params[line["started"][0]] != line["params"]:
                    wrong.append(
                        f"attempt {line['attempt']} at {line['started']} was started, and is not in the record"
                    )
        return wrong

    def outcome(self) -> dict[str, Any]:
        """All that must be the same, whatever happened on the way; as JSON knows it."""
        archive: Archive = open_archive(self.job.url)
        name = self.study.name
        trials = archive.trials(name)
        numbers = [trial.number for trial in trials]
        return json.loads(
            json.dumps(
                {
                    "state": archive.study(name).state,
                    "trials": [
                        [t.number, dict(t.params), t.state, t.value, t.sd, t.batch, t.history_seq]
                        + [[str(r.key), r.state, r.value, r.best_epoch, r.last_epoch, r.reason] for r in t.runs]
                        for t in trials
                    ],
                    "curves": [[str(c.run), c.metric, c.epochs, c.values] for c in archive.curves(name, numbers)],
                    "decisions": sorted(str(asdict(decision)) for decision in archive.decisions(name)),
                }
            )
        )

    def fenced(self) -> int:
        archive = open_archive(self.job.url)
        return sum(study.fenced for study in archive.studies() if study.name == self.study.name)


class Sweep:
    """A job, point by point."""

    def __init__(self, job: Job) -> None:
        self.scene = Scene(job)
        self.job = job
        self.calm: dict[str, Any] = {}

    def uninterrupted(self) -> dict[str, Any]:
        """Run it once without a kill: what all others are compared with."""
        self.scene.blank()
        status, counted = in_fork(self.scene.coordinate)
        if status:
            return {"mutant": self.job.mutant, "events": 0, "problems": [f"the uninterrupted study fails: {counted}"]}
        status, self.calm = in_fork(self.scene.outcome)
        _, wrong = in_fork(lambda: self.scene.wrong("verify"))
        return {"mutant": self.job.mutant, "events": counted["events"], "problems": wrong, "calm": self.calm}

    def point(self, first: int, second: int | None = None) -> dict[str, Any]:
        """One kill, or two, and the start that ends the study."""
        self.scene.blank()
        problems: list[str] = []
        for at in (first, *(() if second is None else (second,))):
            status, said = in_fork(lambda at=at: self.scene.coordinate(at))  # type: ignore[misc]
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                problems.append(f"resume: {said}")
            if not os.WIFSIGNALED(status):
                break
        if not problems:
            _, problems = in_fork(self._end)
        killed = os.WIFSIGNALED(status)
        return {"mutant": self.job.mutant, "point": [first, second], "killed": killed, "problems": problems}

    def _end(self) -> list[str]:
        """After the kills: what lies there, the start that ends it, and what came of it."""
        scene = self.scene
        problems = scene.wrong("killed")
        before = scene.fenced()
        try:
            counted = scene.coordinate()
        except BaseException:
            return [*problems, f"resume: {traceback.format_exc()}"]
        problems += scene.wrong("verify")
        if scene.fenced() - before != counted["late"]:
            problems.append(f"fenced: {counted['late']} reports came late, {scene.fenced() - before} were counted")
        return problems + differences(self.calm, scene.outcome())


def differences(calm: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Where two outcomes are not the same."""
    found = []
    for name, expected in calm.items():
        if expected == now[name]:
            continue
        if isinstance(expected, str) or len(expected) != len(now[name]):
            found.append(f"differs: {name}: {len(expected)} {expected!s:.40}, now {len(now[name])} {now[name]!s:.40}")
            continue
        odd = next(k for k, pair in enumerate(zip(expected, now[name], strict=True)) if pair[0] != pair[1])
        found.append(f"differs: {name}[{odd}]: {expected[odd]!s:.300}, now {now[name][odd]!s:.300}")
    return found


def do(job: Job) -> None:
    """A line of JSON for the uninterrupted study, and one for each point."""
    if job.mutant:
        from tests.faults.mutants import MUTANTS

        MUTANTS[job.mutant]()
    sweep = Sweep(job)
    calm = sweep.uninterrupted()
    print(json.dumps(calm), flush=True)
    more = range(job.points[-1] + job.step, calm["events"] + 1, job.step) if job.step else ()
    for first in (*job.points, *more):
        for second in job.again or (None,):
            print(json.dumps(sweep.point(first, second)), flush=True)


def main() -> None:
    """Do the jobs on stdin, all of one study in one place, each in a fork: what one plants, no other has."""
    jobs = [Job(**json.loads(line)) for line in sys.stdin]
    keep_engines()
    Scene(jobs[0], seed=1).warm()
    threads = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads"))
    assert threads.split()[1] == "1", f"{threads}: a fork of several threads may hang"
    # What is there stays: no fork walks through it, which would copy its pages.
    gc.freeze()
    for job in jobs:
        status, said = in_fork(lambda job=job: do(job))  # type: ignore[misc]
        assert status == 0, said


if __name__ == "__main__":
    main()
