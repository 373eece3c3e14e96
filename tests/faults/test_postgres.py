"""The database server is restarted while a study runs: it ends by itself, and its record is that of a calm one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

import hpsearch as hp
from tests.faults.test_kill import STUDY, TRAIN, finish, finished_runs, outcome, start
from tests.postgres import Server

TRIALS = 16


@pytest.mark.timeout(200)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_changes_nothing(
    mode: Literal["fast", "immediate"], postgres: str, postgres_server: Server, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    study = tmp_path / "study.yaml"
    study.write_text(STUDY + f"n_trials: {TRIALS}\n")
    calm = f"sqlite:///{tmp_path}/calm.db"
    finish(study, calm)

    process = start(study, postgres)
    for down_s in (0.0, 1.0):
        known = len(finished_runs(postgres))
        while len(finished_runs(postgres)) <= known:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.05)
        postgres_server.restart(mode, down_s=down_s)
    assert len(finished_runs(postgres)) < 2 * TRIALS  # it was not over
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert outcome(postgres) == outcome(calm)
    attempts = {run.attempt for trial in hp.load("killed", postgres).trials for run in trial.runs}
    assert attempts == {1}  # workers have lost nothing
    verified = [sys.executable, "-m", "hpsearch", "verify", "--db", postgres]
    done = subprocess.run(verified, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
