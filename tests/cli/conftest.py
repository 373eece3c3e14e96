"""One study, run once, that every reading command is tried on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from hpsearch.cli.app import call

TRAIN = """
import math, time

def train(run):
    print(f"training {run['x']} with seed {run.seed}")
    if run["mode"] == "[bold]boom\\x1b[31m":
        raise ValueError("[red]no\\x1b[2J luck")
    for epoch in range(4):
        run.report(epoch, loss=(run["x"] - 0.3) ** 2 + run.seed / 100 + 1 / (1 + epoch), other=float(epoch))
    if run["x"] > 0.9:
        return math.nan
    return (run["x"] - 0.3) ** 2 + run.seed / 100

def slow(run):
    for epoch in range(40):
        time.sleep(0.1)
        run.report(epoch, loss=run["x"] + 1 / (1 + epoch))
    return run["x"]

def broken(run):
    raise ValueError("always")
"""
STUDY = """
name: toy
objective: train.py:train
metric: {loss: minimize}
search_space:
  x: {uniform: [0, 1]}
  mode: [plain, "[bold]boom\\e[31m", "=1+1"]
  "eps-1": 1e-5
strategy: {grid: {values: {x: [0.1, 0.3, 0.95]}}}
seeds: 2
baseline: {x: 0.25, mode: plain}
tags: [small]
"""
RANDOM = """
name: other
objective: train.py:train
metric: {loss: minimize}
search_space: {x: {uniform: [0, 1]}, mode: plain}
strategy: random
n_trials: 3
baseline: false
"""
SLOW = """
name: slow
objective: train.py:slow
metric: {loss: minimize}
search_space: {x: {uniform: [0, 1]}}
strategy: random
n_trials: 40
baseline: false
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def write_studies(folder: Path) -> None:
    """The studies above, with their training code."""
    (folder / "train.py").write_text(TRAIN)
    for name, text in [("toy", STUDY), ("other", RANDOM), ("slow", SLOW)]:
        (folder / f"{name}.yaml").write_text(text)


def environment(folder: Path) -> dict[str, str]:
    """As a user's shell has it, with this checkout's hpsearch."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HPSEARCH_", "COV_"))}
    return kept | {"OMP_NUM_THREADS": "1", "HOME": str(folder), "TERM": "xterm", "CI": ""}


def shell(folder: Path, *tokens: str, **variables: str) -> Ended:
    """The real command in a process of its own."""
    command = [sys.executable, "-m", "hpsearch.cli.app", *tokens]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder) | variables, capture_output=True, text=True, timeout=120
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the studies ``toy`` and ``other`` in its database, run by the real command."""
    folder = tmp_path_factory.mktemp("finished")
    write_studies(folder)
    ended = shell(folder, "run", "toy.yaml", "--workers", "1", "--progress", "none")
    assert ended.code == 0, ended.err
    ended = shell(folder, "run", "other.yaml", "--on", "inline", "-q")
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in, as the current folder."""
    place = tmp_path / "work"
    shutil.copytree(finished, place)
    monkeypatch.chdir(place)
    for name in list(os.environ):
        if name.startswith("HPSEARCH_"):
            monkeypatch.delenv(name)
    return place


@pytest.fixture
def hpsearch(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """A command line in this process."""
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*tokens: str) -> Ended:
        capfd.readouterr()
        code = call(tokens)
        return Ended(code, *capfd.readouterr())

    return run
