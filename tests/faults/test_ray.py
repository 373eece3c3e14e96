"""A study on three nodes of one machine: parts of the cluster die, come and go; then its head."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import hpsearch as hp
from hpsearch.stores.sql import open_audit
from hpsearch.trial import State
from tests.postgres import Server
from tests.ray_nodes import add_node, cluster

TASK = """
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
import hpsearch as hp


class Task(hp.TrainingTask):
    epochs = 8
    batch_size = 50

    def model(self, params):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(8, 2))

    def data(self):
        inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        return hp.Data(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())

    def metrics(self, output, target):
        with suppress(FileNotFoundError):
            time.sleep(float(Path({slow!r}).read_text() or 0.7))
        return {{}}
"""
STUDY = """
name: abroad
objective: task.py:Task
search_space:
  lr: {log: [1e-3, 1]}
  dropout: {uniform: [0, 0.5]}
strategy: {coarse_to_fine: {trials_per_round: 20}}
metric: {val_loss: minimize}
n_trials: 40
pruner: {successive_halving: {min_epochs: 2, eta: 2}}
baseline: false
"""
#: runs that a worker trains together
LANES = 5
#: the command, which takes a worker that says nothing for 6 s for lost
COMMAND = """
import sys
from hpsearch.cli.app import call
from hpsearch.executors import ray
ray.SILENT_S = 6.0
sys.exit(call(sys.argv[1:]))
"""
Outcome = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("abroad")
    (folder / "task.py").write_text(TASK.format(slow=str(folder / "slow")))
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def calm(folder: Path) -> Outcome:
    """The study by local workers."""
    process = start(folder, "calm", "--workers", "2")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()
    return outcome(folder, "calm")


@pytest.fixture
def slow(folder: Path, calm: Outcome) -> Iterator[Path]:
    """While this file is there, an epoch takes most of a second more: there is time for something to happen."""
    path = folder / "slow"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def nodes() -> Iterator[Any]:
    with cluster(2) as made:
        yield made


def url(folder: Path, db: str) -> str:
    """Of a database on a server, or of a file in the folder."""
    return db if "://" in db else f"sqlite:///{folder}/{db}.db"


def start(folder: Path, db: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", COMMAND, "run", "study.yaml", "--db", url(folder, db)]
    files = ["--files", str(folder / db.rpartition("/")[2]), "--progress", "none", "--fuse", str(LANES)]
    return subprocess.Popen([*command, *files, *options], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def outcome(folder: Path, db: str) -> Outcome:
    """All that must be the same, wherever it was trained."""
    trials = hp.load("abroad", url(folder, db)).trials
    assert {trial.state for trial in trials} <= {State.COMPLETE, State.PRUNED}
    return [
        (t.number, t.batch, t.history_seq, dict(t.params), t.state, t.value, t.sd, [(r.key, r.value) for r in t.runs])
        for t in trials
    ]


def finished(folder: Path, db: str) -> dict[object, float | None]:
    try:
        trials = hp.load("abroad", url(folder, db)).trials
    except hp.HpsearchError:
        return {}
    return {run.key: run.value for trial in trials for run in trial.runs if run.state.final}


def until(process: subprocess.Popen[bytes], true: Callable[[], object], limit_s: float = 90.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert process.poll() is None, f"it has ended: {process.communicate()[1].decode()}"
        assert time.monotonic() < end
        time.sleep(0.1)


def ends(folder: Path, db: str) -> Callable[[], int]:
    """How many further runs have ended."""
    before = len(finished(folder, db))
    return lambda: len(finished(folder, db)) - before


def causes(folder: Path, db: str) -> set[str | None]:
    """Why attempts were lost."""
    facts = open_audit(url(folder, db)).facts("abroad")
    return {attempt.cause for attempts in facts.attempts.values() for attempt in attempts}


def holds(folder: Path, db: str) -> None:
    """Nothing is doubled, lost or changed."""
    verified = [sys.executable, "-m", "hpsearch", "verify", "--db", url(folder, db)]
    done = subprocess.run(verified, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def pid_of(node: Any, kind: str) -> int:
    return int(node.all_processes[kind][0].process.pid)


def actors(node: Any) -> list[psutil.Process]:
    """The workers' actors on a node."""
    children = psutil.Process(pid_of(node, "raylet")).children()
    return [child for child in children if "ray::Actor" in " ".join(child.cmdline())]


@pytest.mark.timeout(400)
def test_a_study_outlives_each_of_its_parts(
    folder: Path, calm: Outcome, slow: Path, nodes: Any, postgres: str, postgres_server: Server
) -> None:
    """Three nodes and a database server; the head has a test of its own."""
    first, second = sorted(nodes.worker_nodes, key=lambda node: pid_of(node, "raylet"))
    options = ("--on", "ray", "--ray-address", nodes.address)
    process = start(folder, postgres, *options)
    try:
        until(process, lambda: actors(first) and actors(second))
        until(process, ends(folder, postgres))
        # The process of a worker: it is lost, and replaced.
        actors(first)[0].kill()
        until(process, ends(folder, postgres))
        # The database server: it is waited for.
        postgres_server.restart("immediate", down_s=0.5)
        until(process, ends(folder, postgres))
        # A node without notice.
        os.kill(pid_of(second, "raylet"), signal.SIGKILL)
        until(process, ends(folder, postgres))
        # Another one comes, and gets a worker, which on a busy machine takes as long as the rest of the study.
        slow.write_text("4")
        third = add_node(nodes)
        until(process, lambda: actors(third))
        slow.write_text("")
        # The last of the old ones is taken away in good order.
        nodes.remove_node(first)
        until(process, ends(folder, postgres))
        # The coordinator: the same command goes on.
        process.kill()
        process.communicate()
        slow.unlink()
        process = start(folder, postgres, *options)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, errors.decode()
    assert outcome(folder, postgres) == calm
    attempts = [run.attempt for trial in hp.load("abroad", postgres).trials for run in trial.runs]
    assert max(attempts) > 1
    holds(folder, postgres)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
def test_a_stopped_worker_is_late_and_without_its_head_a_study_pauses_and_goes_on_with_another(
    folder: Path, calm: Outcome, slow: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    db: str = request.getfixturevalue("postgres") if engine == "postgresql" else "head"
    with cluster(2) as made:
        process = start(folder, db, "--on", "ray", "--ray-address", made.address)
        try:
            until(process, lambda: finished(folder, db))
            # Stopped until its runs are another's, then it goes on: what it says is refused, and counted.
            sleeper = next(actor for node in made.worker_nodes for actor in actors(node))
            sleeper.suspend()
            until(process, lambda: "together: silent" in causes(folder, db))
            sleeper.resume()
            until(process, lambda: hp.load("abroad", url(folder, db)).study.fenced)
            made.head_node.kill_gcs_server(check_alive=False)
            _, errors = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 6, errors.decode()
    said = errors.decode()
    assert "the Ray cluster at" in said
    assert "is lost" in said
    assert "the same command goes on" in said
    known = finished(folder, db)
    study = hp.load("abroad", url(folder, db)).study
    assert study.fenced > 0
    assert study.state == "interrupted"
    assert "is lost" in study.reason
    # Another cluster, which the command starts for itself.
    slow.unlink()
    process = start(folder, db, "--on", "ray")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()
    assert known.items() <= finished(folder, db).items()
    assert outcome(folder, db) == calm
    shown = [sys.executable, "-m", "hpsearch", "status", "abroad", "--db", url(folder, db)]
    assert "late reports" in subprocess.run(shown, cwd=folder, capture_output=True, text=True, check=True).stdout
    holds(folder, db)
