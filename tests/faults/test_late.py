"""A coordinator that sleeps past its lease, and a flood of metrics."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

import hpsearch as hp
from hpsearch.store import Claim, Score, Turn, this_process
from hpsearch.stores.sql import open_archive, open_store
from hpsearch.trial import EpochReport, Finished, RunKey, State
from tests.conformance.stores import RECORD, trial

TRAIN = """
import time

def train(run):
    for epoch in range(4):
        time.sleep(0.05)
        run.report(epoch, loss=run["x"] + 1 / (1 + epoch))
    return run["x"]
"""
STUDY = """
name: s
objective: train.py:train
metric: {loss: minimize}
search_space: {x: {uniform: [0, 1]}}
strategy: {coarse_to_fine: {trials_per_round: 10}}
n_trials: 30
baseline: false
"""
COORDINATOR = """
import sys
import hpsearch as hp
import hpsearch.launch
hpsearch.launch.LEASE_S = 3.0
try:
    code = hp.run(hp.read_study("s.yaml"), db=sys.argv[1], workers=2).exit_code
except hp.HpsearchError as error:
    print(error, file=sys.stderr)
    code = error.exit_code
sys.exit(code)
"""


def coordinator(folder: Path, db: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", COORDINATOR, db], cwd=folder, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str], busy: Callable[[], bool]) -> None:
    """SIGSTOP, and not within a transaction: one that holds a lock keeps everybody out, as it must."""
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if not busy():
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.03)


def locked(database: Path) -> bool:
    """SQLite's file is another process's."""
    try:
        with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    return False


#: sessions of hpsearch that are in a transaction
BUSY = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hpsearch' AND state <> 'idle'"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
def test_a_coordinator_that_sleeps_past_its_lease_has_lost_the_study(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "s.yaml").write_text(STUDY)
    if engine == "sqlite":
        db = f"sqlite:///{tmp_path}/r.db"
        busy = partial(locked, tmp_path / "r.db")
    else:
        db, server = request.getfixturevalue("postgres"), request.getfixturevalue("postgres_server")
        busy = lambda: server.execute(BUSY) != [(0,)]  # noqa: E731
    first = coordinator(tmp_path, db)
    try:
        while first.poll() is None and not done(db):
            time.sleep(0.05)
        stop(first, busy)
        # Stopped, it is not dead: only its lease can say that the study is free.
        early = coordinator(tmp_path, db)
        _, words = early.communicate(timeout=60)
        if early.returncode == 7:  # a slow start may already have come after the lease
            assert f"process {first.pid} on" in words
            time.sleep(3.0)
            second = coordinator(tmp_path, db)
            _, words = second.communicate(timeout=120)
            assert second.returncode == 0, words
        else:
            assert early.returncode == 0, words
        ended = facts(db)
        first.send_signal(signal.SIGCONT)
        _, words = first.communicate(timeout=60)
    finally:
        first.kill()
        first.communicate()
    assert first.returncode == 7, words
    assert "s was taken over" in words  # its turn, and what its workers had said by then, was refused
    assert facts(db) == ended
    (tmp_path / "calm").mkdir()
    (tmp_path / "calm/train.py").write_text(TRAIN.replace("time.sleep(0.05)", ""))
    (tmp_path / "calm/s.yaml").write_text(STUDY)
    hp.run(hp.read_study(tmp_path / "calm/s.yaml"), db=f"sqlite:///{tmp_path}/calm.db", on="inline")
    assert ended == facts(f"sqlite:///{tmp_path}/calm.db")
    command = [sys.executable, "-m", "hpsearch", "verify", "--db", db]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def done(db: str) -> int:
    try:
        return sum(trial.state.final for trial in hp.load("s", db).trials)
    except hp.HpsearchError:
        return 0


def facts(db: str) -> list[tuple[object, ...]]:
    return [(t.number, dict(t.params), t.state, t.value) for t in hp.load("s", db).trials]


@pytest.mark.full
def test_a_million_metrics_cost_no_memory(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path}/r.db"
    store, process = open_store(db), psutil.Process(os.getpid())
    store.open(RECORD, this_process(), lease_s=600.0)
    base = 0
    for number in range(100):
        key = RunKey(number, 0)
        new = trial(number)
        store.write(Turn(trials=[new], claims=[Claim(run=run.key, attempt=1) for run in new.runs]))
        for start in range(0, 1000, 100):
            epochs = [
                EpochReport(run=key, attempt=1, epoch=e, metrics={f"m{k}": e / 7 + k for k in range(10)})
                for e in range(start, start + 100)
            ]
            store.write(Turn(epochs=epochs))
        ends = [Finished(run=run.key, attempt=1, state=State.COMPLETE, value=1.0, last_epoch=999) for run in new.runs]
        score = Score(number=number, state=State.COMPLETE, value=1.0, sd=None, tell_seq=number + 1)
        store.write(Turn(finished=ends, scores=[score]))
        if number == 10:
            base = process.memory_info().rss
    # SQLite's cache of 64 MiB is filled meanwhile.
    assert process.memory_info().rss - base < 100 * 2**20
    store.close("complete")
    curves = open_archive(db).curves(RECORD.name, [0])
    assert sum(len(curve.epochs) for curve in curves) == 10_000
