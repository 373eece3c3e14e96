"""``--fuse``: what may be said, what comes of it, and where the runs of a group print to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hpsearch.cli.live import Log
from hpsearch.cli.settings import fusing
from hpsearch.errors import UsageError
from tests.cli.conftest import shell, write_studies
from tests.cli.test_live import progress

TASK = """
import torch
from torch import nn
import hpsearch as hp

class Task(hp.TrainingTask):
    epochs = 2
    batch_size = 20

    def model(self, params):
        print(f"a model of {params['name']}")
        if params["name"] == "recurrent":
            return Recurrent()
        return nn.Linear(4, 2)

    def data(self):
        inputs = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        return hp.Data(inputs, (inputs[:, 0] > 0).long())

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 2, batch_first=True)

    def forward(self, inputs):
        return self.lstm(inputs[:, None])[0][:, -1]
"""
STUDY = """
name: fused
objective: task.py:Task
metric: {val_loss: minimize}
search_space: {lr: {log: [1e-3, 1]}, name: plain}
strategy: random
n_trials: 6
baseline: false
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    write_studies(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "fused.yaml").write_text(STUDY)
    return tmp_path


def test_a_task_trains_together_by_default_and_its_logs_are_found(fresh: Path) -> None:
    ended = shell(fresh, "run", "fused.yaml", "--workers", "1", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["trials"] == {"complete": 6}
    assert re.search(r"^\S+ trains study=fused how=\"6 lanes, vmap on cpu\"$", ended.err, re.M), ended.err
    logs = shell(fresh, "logs", "fused/2")
    pointer, names, *printed = logs.out.splitlines()
    assert "trains with other runs" in pointer
    assert names.endswith(": 0/0, 1/0, 2/0, 3/0, 4/0, 5/0 ---")
    assert printed == ["a model of plain"] * 6
    assert shell(fresh, "logs", "fused/2/0", "-f").out == logs.out


def test_off_trains_each_alone_with_a_log_of_its_own(fresh: Path) -> None:
    ended = shell(fresh, "run", "fused.yaml", "--workers", "1", "--fuse", "off", "-n", "2")
    assert ended.code == 0, ended.err
    assert " trains " not in ended.err
    assert not list(fresh.glob("hpsearch-files/fused/groups/*"))
    header, printed = shell(fresh, "logs", "fused/1").out.splitlines()
    assert header.startswith("--- attempt 1, ")
    assert printed == "a model of plain"


def test_a_number_is_how_many_train_together_and_resume_takes_it_too(fresh: Path) -> None:
    ended = shell(fresh, "run", "fused.yaml", "--workers", "1", "--fuse", "3", "--set", "seeds=2")
    assert ended.code == 0, ended.err
    assert "3 lanes, vmap on cpu" in ended.err
    assert shell(fresh, "resume", "fused", "--fuse", "off").code == 0


def test_what_cannot_be_fused_says_why_once(fresh: Path) -> None:
    ended = shell(fresh, "run", "fused.yaml", "--workers", "1", "--set", "search_space.name=recurrent")
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if " trains " in line]
    assert "solo on cpu: " in line
    assert "lstm" in line.lower()


def test_a_function_trains_alone_and_a_number_is_told_so(fresh: Path) -> None:
    ended = shell(fresh, "run", "other.yaml", "--workers", "1", "--fuse", "4")
    assert ended.code == 0, ended.err
    assert "note: --fuse 4 does nothing: train is a function, only a TrainingTask can be fused" in ended.err
    assert "note" not in shell(fresh, "run", "other.yaml", "--on", "inline", "--name", "again").err


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_what_is_no_number_of_runs(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--fuse: {text!r} must be a whole number of at least 1")):
        fusing(text)


def test_a_way_of_training_is_said_once_whatever_the_lanes(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    few, many = "2 lanes, vmap on cpu", "64 lanes, vmap on cpu"
    for engines in ((few,), (few,), (many,), (many, "solo on cpu: LSTM has no rule"), (many,)):
        log(progress(engines=engines))
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        'trains study=toy how="2 lanes, vmap on cpu"',
        'trains study=toy how="solo on cpu: LSTM has no rule"',
    ]
