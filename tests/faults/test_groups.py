"""One poisonous run among sixteen that train together: it alone fails, and the others end as if it were not there."""

from __future__ import annotations

import math
import os
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

#: the poisonous one is the first trial: nothing has ended when it strikes
RUNS, POISONED = 16, 6
#: of every healthy run: one with all, one in quarantine, then the halves down to its own neighbour
ATTEMPTS = int(math.log2(RUNS)) + 2
TASK = """
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
import hpsearch as hp

#: what the poisonous run does; no such file: nothing
POISON = Path(__file__).with_name("poison.txt")


def dies(how):
    if how == "hangs":
        time.sleep(1000)
    if how == "exits":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))


class Deadly(nn.Linear):
    def forward(self, inputs):
        dies(POISON.read_text().split()[1])
        return super().forward(inputs)


class Task(hp.TrainingTask):
    epochs = 6
    batch_size = 20
    lr = 0.1

    def model(self, params):
        last = nn.Linear(8, 2)
        if POISON.exists() and params["k"] == 6:
            place, how = POISON.read_text().split()
            if place == "model":
                dies(how)
            last = Deadly(8, 2)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(params["k"] / 40), last)

    def data(self):
        inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        return hp.Data(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())

    def metrics(self, output, target):
        time.sleep(float(os.environ.get("NAP", "0")))
        return {}
"""
STUDY = f"""
name: poisoned
objective: task.py:Task
metric: {{val_loss: minimize}}
search_space: {{k: {list(range(RUNS))}}}
strategy: grid
baseline: false
"""


def write(folder: Path) -> Path:
    (folder / "task.py").write_text(TASK)
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[int, hp.results.Trial]:
    """The study without poison, in a folder of its own: nothing of it can be taken over by another."""
    found = run(write(tmp_path_factory.mktemp("calm")))
    assert {trial.state for trial in found.values()} == {State.COMPLETE}
    assert {trial.runs[0].attempt for trial in found.values()} == {1}
    assert all("vmap" in trial.runs[0].engine for trial in found.values())
    assert len({trial.value for trial in found.values()}) == RUNS
    return found


def start(folder: Path, *options: str, **variables: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hpsearch", "run", "study.yaml", "--db", "sqlite:///r.db", "--workers", "1"]
    return subprocess.Popen(
        [*command, "--fuse", str(RUNS), *options],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run(folder: Path, *options: str) -> dict[int, hp.results.Trial]:
    """The trials of the study, run to its end; nothing of it is left over."""
    process = start(folder, *options)
    try:
        _, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, errors.decode()
    return trials(folder)


def trials(folder: Path) -> dict[int, hp.results.Trial]:
    return {trial.params["k"]: trial for trial in hp.load("poisoned", f"sqlite:///{folder}/r.db").trials}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        pytest.param("model SIGSEGV", "signal:11", marks=pytest.mark.full),
        ("model SIGKILL", "signal:9"),
        pytest.param("forward SIGSEGV", "signal:11", marks=pytest.mark.full),
        pytest.param("forward exits", "exit:3", marks=pytest.mark.full),
        pytest.param("forward hangs", "timeout", marks=pytest.mark.full),
    ],
)
def test_the_poisonous_run_fails_alone(
    folder: Path, calm: dict[int, hp.results.Trial], poison: str, reason: str
) -> None:
    (folder / "poison.txt").write_text(poison)
    found = run(folder, *(["--set", "timeout=4s"] if "hangs" in poison else []))
    guilty = found.pop(POISONED)
    assert (guilty.number, guilty.state) == (0, State.FAILED)
    assert guilty.runs[0].reason.startswith(reason)
    assert {k: trial.value for k, trial in found.items()} == {k: calm[k].value for k in found}
    assert max(trial.runs[0].attempt for trial in found.values()) <= ATTEMPTS
    # It was together with the others at first, or this would show nothing.
    assert min(trial.runs[0].attempt for trial in found.values()) >= 2
    assert call(["verify", "--db", f"sqlite:///{folder}/r.db"]) == 0


@pytest.mark.timeout(600)
def test_a_worker_killed_in_the_middle_costs_an_attempt_of_each_and_no_bit(
    folder: Path, calm: dict[int, hp.results.Trial]
) -> None:
    process = start(folder, NAP="0.2")
    try:
        worker = worker_of(folder, process)
        os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, errors.decode()
    found = trials(folder)
    assert {k: trial.value for k, trial in found.items()} == {k: trial.value for k, trial in calm.items()}
    assert {trial.runs[0].attempt for trial in found.values()} == {2}
    assert not psutil.pid_exists(worker)
    assert call(["verify", "--db", f"sqlite:///{folder}/r.db"]) == 0


def worker_of(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """The process that trains them all, when each has had an epoch."""
    while process.poll() is None:
        try:
            curves = hp.load("poisoned", f"sqlite:///{folder}/r.db").curves_dataframe()
        except hp.HpsearchError:
            curves = None
        if curves is not None and len(curves) and curves["trial"].nunique() == RUNS:
            (log,) = folder.glob("hpsearch-files/poisoned/groups/*")
            return int(log.name.split("-")[1])
        time.sleep(0.05)
    raise AssertionError("the study has ended")
