"""SIGKILL the coordinator at random moments of a study, and run the command again: nothing lost, nothing changed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import hpsearch as hp
from hpsearch.cli.app import call
from hpsearch.trial import State

TRAIN = """
import time

def train(run):
    value = 0.0
    for epoch in range(3):
        time.sleep(0.05)
        value = (run["lr"] - 0.03) ** 2 + run["dropout"] / (epoch + 1) + 0.001 * run.seed
        run.report(epoch, loss=value)
    return value
"""
STUDY = """
name: killed
objective: train.py:train
search_space:
  lr: {log: [1e-4, 1]}
  dropout: {uniform: [0, 0.5]}
strategy: {coarse_to_fine: {trials_per_round: 10}}
metric: {loss: minimize}
seeds: 2
"""


@pytest.fixture
def study(tmp_path: Path, trials: int) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "study.yaml").write_text(STUDY + f"n_trials: {trials}\n")
    return tmp_path / "study.yaml"


def start(study: Path, db: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hpsearch", "run", str(study), "--db", db, "--workers", "2"]
    return subprocess.Popen(command, cwd=study.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(study: Path, db: str) -> None:
    process = start(study, db)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def outcome(db: str) -> list[tuple[object, ...]]:
    """All that must be the same, whatever happened on the way."""
    trials = hp.load("killed", db).trials
    assert all(trial.state is State.COMPLETE for trial in trials)
    return [
        (t.number, t.batch, t.history_seq, dict(t.params), t.value, t.sd, [(r.key, r.value) for r in t.runs])
        for t in trials
    ]


def finished_runs(db: str) -> dict[object, float | None]:
    try:
        trials = hp.load("killed", db).trials
    except hp.HpsearchError:
        return {}
    return {run.key: run.value for trial in trials for run in trial.runs if run.state.final}


def wait_for_more(db: str, known: int, process: subprocess.Popen[bytes]) -> None:
    while len(finished_runs(db)) <= known and process.poll() is None:
        time.sleep(0.1)


def children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("kills", "trials"), [(4, 40), pytest.param(20, 100, marks=pytest.mark.full)])
def test_kills_change_nothing(study: Path, tmp_path: Path, kills: int) -> None:
    calm, killed = f"sqlite:///{tmp_path}/calm.db", f"sqlite:///{tmp_path}/killed.db"
    # Nothing happens to it, so it need not take its time.
    (tmp_path / "calm").mkdir()
    (tmp_path / "calm/train.py").write_text(TRAIN.replace("time.sleep(0.05)", ""))
    (tmp_path / "calm/study.yaml").write_text(study.read_text())
    hp.run(hp.read_study(tmp_path / "calm/study.yaml"), db=calm, on="inline")
    moments, known, orphans = random.Random(20), {}, []
    for kill in range(kills):
        process = start(study, killed)
        if kill % 2:
            # Every other one while runs are ending, the rest while the coordinator and its workers start.
            wait_for_more(killed, len(known), process)
            time.sleep(moments.uniform(0.0, 0.8))
        else:
            time.sleep(moments.uniform(0.1, 3.0))
        if process.poll() is not None:
            pytest.fail(f"the study ended after {kill} kills: give it more trials")
        orphans += children_of(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # What had been recorded is still there, with the same value.
        now = finished_runs(killed)
        assert known.items() <= now.items()
        known = now
    assert len(known) >= kills // 2
    finish(study, killed)
    assert outcome(killed) == outcome(calm)
    assert call(["verify", "--db", killed]) == 0
    _, alive = psutil.wait_procs(orphans, timeout=5)
    assert not alive
