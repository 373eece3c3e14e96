"""What ``hpsearch plan`` says of groups, lanes and what trains alone; with real workers, as ``run`` has them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import write_studies

TASK = """
import torch
from torch import nn
import hpsearch as hp

class Task(hp.TrainingTask):
    epochs = 5
    batch_size = 20

    def model(self, params):
        if params["name"] == "broken":
            raise ValueError("no such model")
        last = (Noisy if params["name"] == "noisy" else nn.Linear)(params["hidden"], 2)
        return nn.Sequential(nn.Linear(4, params["hidden"]), nn.ReLU(), last)

    def data(self):
        inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        return hp.Data(inputs, (inputs[:, 0] > 0).long())

class Streamed(Task):
    stream = True

class Noisy(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) + 0.1 * torch.randn(2)
"""
STUDY = """
name: fused
objective: task.py:Task
metric: {val_loss: minimize}
search_space: {lr: {log: [1e-3, 1]}, name: plain, hidden: 3}
strategy: {bayesian: {batch: 2}}
n_trials: 20
seeds: 3
baseline: false
"""


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_studies(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "fused.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plan(fresh: Path, hpsearch):
    """The lines from what was tried on, without the time; none of them is too long for a terminal."""

    def lines(*changes: str, study: str = "fused.yaml", workers: int = 1) -> list[str]:
        sets = [token for change in changes for token in (["--set", change] if "=" in change else [change])]
        ended = hpsearch("plan", study, "--show", "0", "--device", "cpu", "--workers", str(workers), *sets)
        assert ended.code == 0, ended.err
        shown = ended.out.splitlines()
        assert max(map(len, shown)) <= 80
        start = next((k for k, line in enumerate(shown) if re.match("tried|fused |alone", line)), len(shown))
        end = next((k for k, line in enumerate(shown) if line.startswith("time")), len(shown))
        assert end >= start
        return shown[start:end]

    return lines


def test_a_batch_in_one_group_and_the_batch_that_would_fill_the_lanes(plan) -> None:
    assert plan() == [
        "fused     all 6 runs of the first batch: 6 lanes, vmap on cpu",
        "          a batch of 2 trials x 3 seeds fills 6 of 64 lanes; one of 22 would",
        "          fill them",
    ]


def test_a_batch_that_fills_the_lanes_needs_no_advice(plan) -> None:
    assert plan("--fuse", "4") == ["fused     4 of 6 runs of the first batch: 4 lanes, vmap on cpu"]


def test_the_first_runs_of_all_workers_are_tried(plan) -> None:
    shown = plan("strategy=random", "seeds=1", "--fuse", "6", workers=2)
    assert shown == [
        "tried     12 of 20 runs, on 2 workers, in 2 groups",
        *["fused     6 runs: 6 lanes, vmap on cpu"] * 2,
    ]


def test_no_value_is_left_out_where_workers_share_the_runs(plan) -> None:
    space = "search_space={lr: {log: [1e-3, 1]}, hidden: 3, name: plain, batch_size: [8, 16, 32, 64, 128]}"
    shown = plan(space, "strategy=random", "seeds=1", "n_trials=60", workers=2)
    assert shown[0].startswith("tried     all 60 runs, on 2 workers, in ")
    assert shown[0].endswith(" groups by batch_size")
    found = [re.match(r"fused     (\d+) runs?, batch_size (\d+):", line) for line in shown[1:]]
    counts = [(int(match[2]), int(match[1])) for match in found if match]
    assert {size for size, _ in counts} == {8, 16, 32, 64, 128}
    assert (sum(runs for _, runs in counts), len(counts)) == (60, 6)


def test_what_parts_groups_and_why_others_train_alone(plan) -> None:
    shown = plan(
        "search_space.batch_size=[20, 50]",
        "search_space.name=[plain, noisy]",
        "strategy=random",
        "seeds=1",
        "n_trials=12",
    )
    (tried, *fused), alone = shown[:3], shown[3:]
    assert tried == "tried     all 12 runs, in 2 groups by batch_size"
    counts = dict(
        re.fullmatch(r"fused     (\d+) runs, batch_size (\d+): \1 lanes, vmap on cpu", f).groups() for f in fused
    )
    assert sorted(counts.values()) == ["20", "50"]
    many = 12 - sum(map(int, counts))
    assert alone[0].startswith(f"alone     {many} runs: the forward draws random numbers")
    assert [line[:10].strip() for line in alone[1:]] == [""]


def test_streamed_data_parts_groups_by_their_seed(plan) -> None:
    shown = plan("objective=task.py:Streamed", "seeds=[4, 7]")
    assert shown[0] == "tried     all 4 runs of the first batch, in 2 groups by seed"
    assert " ".join(" ".join(shown[1:5]).split()) == " ".join(
        f"fused 2 runs, seed {seed}: 2 lanes, vmap on cpu: the data is streamed, one seed a group" for seed in (4, 7)
    )


def test_models_that_differ_and_runs_that_come_to_nothing(plan) -> None:
    space = "search_space={lr: 0.1, hidden: [3, 5, 7], name: [plain, broken]}"
    shown = plan(space, "strategy=grid", "n_trials=null", "seeds=1")
    assert shown[0] == "tried     all 6 runs, in 3 groups by hidden"
    assert sorted(shown[1:4]) == [f"fused     1 run, hidden {hidden}: vmap on cpu" for hidden in (3, 5, 7)]
    assert shown[4:] == ["failed    3 runs: ValueError: no such model"]


@pytest.mark.parametrize("fuse", ["auto", "off"])
def test_where_every_run_fails_the_plan_says_how(fresh: Path, hpsearch, fuse) -> None:
    ended = hpsearch("plan", "fused.yaml", "--device", "cpu", "--set", "search_space.name=broken", "--fuse", fuse)
    said = " ".join(ended.out.split())
    assert "tried failed: ValueError: no such model; hpsearch try" in said


def test_a_plan_as_data(fresh: Path, hpsearch) -> None:
    changes = ("--set", "baseline={lr: 0.1, hidden: 3, name: plain}", "--set", "seeds=1")
    found = json.loads(hpsearch("plan", "fused.yaml", "--json", "--workers", "1", "--device", "cpu", *changes).out)
    (group,) = found["groups"]
    assert group["runs"] == ["0/0", "1/0", "2/0"]
    assert (group["engine"], group["device"], group["lanes"], group["reason"]) == ("vmap", "cpu", 3, "")
    assert group["epoch_s"] == pytest.approx(3 * found["epoch_s"])
    assert found["run_s"] == pytest.approx(5 * found["epoch_s"])
    assert found["seconds"] > 21 * found["run_s"]
    assert found["filling"] == {"batch": 2, "runs": 2, "lanes": 64, "filled_by": 64}
    assert (found["alone"], found["failed"], found["unseen"]) == (None, 0, 0)


@pytest.mark.parametrize(
    ("study", "changes", "why"),
    [
        ("other.yaml", (), "a plain training function; a TrainingTask could be fused"),
        ("fused.yaml", ("--fuse", "off"), "every run, as --fuse off says"),
        ("fused.yaml", ("isolate=true",), "isolate gives each run a process of its own"),
    ],
)
def test_where_each_run_trains_alone_without_being_tried(plan, study: str, changes: tuple[str, ...], why: str) -> None:
    assert plan(*changes, study=study) == [f"alone     {why}"]


def test_without_measuring_nothing_is_said_of_groups(plan, hpsearch) -> None:
    assert plan("--no-measure") == []
    found = json.loads(hpsearch("plan", "fused.yaml", "--json", "--no-measure").out)
    assert (found["groups"], found["alone"], found["filling"], found["seconds"]) == ([], None, None, None)


def test_no_number_of_runs(fresh: Path, hpsearch) -> None:
    ended = hpsearch("plan", "fused.yaml", "--fuse", "many")
    assert ended.code == 2
    assert "--fuse: 'many' must be a whole number of at least 1, auto or off" in ended.err


def test_what_is_known_when_the_time_is_up(plan, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.attempt.MEASURE_S", 15.0)
    hangs = "class Noisy(nn.Linear):\n    def forward(self, inputs):\n        __import__('time').sleep(1000)\n"
    (fresh / "task.py").write_text(TASK.partition("class Noisy")[0] + hangs)
    changes = ["search_space={lr: 0.1, hidden: 3, name: [plain, noisy]}", "n_trials=null", "seeds=2"]
    first = "baseline={lr: 0.1, hidden: 3, name: plain}"
    shown = plan(*changes, "strategy={grid: {values: {name: [noisy]}}}", first)
    assert shown == [
        "tried     all 4 runs",
        "fused     2 runs: 2 lanes, vmap on cpu",
        "unknown   2 runs, not begun when the time was up",
    ]
