"""Diagnostics and workers, over a study in which real things went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from markupsafe import escape

import hpsearch as hp
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record

TRAIN = """
import math, os, pathlib, signal
def train(run):
    lr = run["lr"]
    if lr == 1.0:
        run.report(0, loss=1.0)
        run.report(1, loss=1.0)
        return math.nan
    if 2 <= lr < 3:
        raise ValueError(f"<i>shape</i> {40 * lr} does not fit")
    if lr == 3.0:
        once = pathlib.Path(__file__).with_name(f"killed{run.seed}")
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return lr
"""
DEAD = """
import sys
sys.path.insert(0, {studies!r})
import torch
from torch import nn
from digits import DigitsMLP
class Dead(DigitsMLP):
    epochs = 4
    optimizer = "sgd"
    init = None
    def model(self, params):
        made = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        with torch.no_grad():
            made[0].bias -= 1e3 * params["dead"]
        return made
"""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("wrong")
    (folder / "train.py").write_text(TRAIN)
    (folder / "dead.py").write_text(DEAD.format(studies=str(Path(__file__).parents[2] / "studies")))
    url = f"sqlite:///{folder}/r.db"
    common = {"strategy": "grid", "max_failures": 9, "seeds": 1}
    plain = {"objective": f"{folder}/train.py:train", "metric": {"loss": "minimize"}}
    points = {"lr": [0.5, 1.0, 2.0, 2.5]}
    hp.run(hp.define(name="wrong", search_space=points, **plain, **common), db=url, on="inline")
    lost = hp.define(name="lost", search_space={"lr": [0.5, 3.0]}, **plain, **common)
    hp.run(lost, db=url, on="local", workers=1)
    hp.run(
        hp.define(name="dead", objective=f"{folder}/dead.py:Dead", metric={"val_loss": "minimize"},
                  search_space={"dead": [0, 1], "lr": 0.1}, **common),
        db=url, on="inline",
    )  # fmt: skip
    with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1:8787") as made:
        yield made


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_failures_are_grouped_by_message_and_stay_text(door: TestClient) -> None:
    page = door.get("/s/wrong/diagnostics").text
    assert "<i>shape" not in page
    (row,) = re.findall(r'<tr><th scope="row" class="text">ValueError.*?</tr>', page)
    assert "&lt;i&gt;shape&lt;/i&gt;" in row
    assert "<td>2</td><td>2</td>" in row
    assert "Traceback" in page
    assert re.search(r"hpsearch logs wrong/\d/0", page)


def test_a_filter_leaves_what_went_wrong_with_its_trials(door: TestClient) -> None:
    page = door.get("/s/wrong/diagnostics?where=lr=2").text
    (row,) = re.findall(r'<tr><th scope="row" class="text">ValueError.*?</tr>', page)
    assert "<td>1</td><td>1</td>" in row
    assert "No run that fits has diverged." in page
    assert "No run that fits has failed." in door.get("/s/wrong/diagnostics?where=lr<2").text
    lost = plain(door.get("/s/lost/diagnostics?where=lr<1").text)
    assert "signal:9" not in lost
    assert "signal:9" in plain(door.get("/s/lost/diagnostics?where=lr>1").text)


def test_divergence_says_where_and_when(door: TestClient) -> None:
    page = plain(door.get("/s/wrong/diagnostics").text)
    assert "1 run of 1 trial diverged" in page
    assert re.search(r"last epoch 1 runs 1 ", page)


def test_lost_attempts_have_their_cause(door: TestClient) -> None:
    for path in ("diagnostics", "workers"):
        page = plain(door.get(f"/s/lost/{path}").text)
        assert "signal:9: 1. The worker was gone" in page
        assert re.search(r"\d/0 1 signal:9", page)


def test_sick_layers_are_named(door: TestClient) -> None:
    page = door.get("/s/dead/diagnostics").text
    assert "1 of the first runs of the best 2 trials have a layer" in page
    assert "0: gradient vanishes from epoch 0" in page
    assert "figures/layers?run=1%2F0" in page
    answer = door.get("/api/v1/studies/dead/figures/layers?run=1%2F0").json()
    assert answer["shown"]


def test_a_healthy_study_says_so(client: TestClient) -> None:
    page = client.get("/s/digits/diagnostics").text
    assert "No run has failed." in page
    assert "No run has diverged." in page
    assert re.search(r"No layer vanishes or explodes in the first runs of the best \d trials\.", page)
    assert "No worker was lost." in page


def test_workers_have_a_row_each(client: TestClient) -> None:
    page = client.get("/s/digits/workers").text
    assert "figures/timeline?" in page
    rows = page.split('data-live="workers"')[1].split("</table>")[0]
    assert rows.count("<tr>") == 2
    assert "cpu" in rows
    assert "100 %" in rows


def test_the_api_says_the_same(door: TestClient) -> None:
    wrong = door.get("/api/v1/studies/wrong/diagnostics").json()
    page = door.get("/s/wrong/diagnostics").text
    (failure,) = wrong["failures"]
    assert escape(failure["message"]) in page
    assert (wrong["failed"], wrong["kinds"], failure["runs"], failure["trials"]) == (2, 1, 2, 2)
    assert escape(failure["error"]) in page
    assert wrong["diverged"]["epochs"] == [{"epoch": 1, "runs": 1}]
    assert sum(one["diverged"] for one in wrong["diverged"]["shares"]) in (0, 1)
    dead = door.get("/api/v1/studies/dead/diagnostics").json()
    assert (dead["looked"], [one["run"] for one in dead["sick"]]) == (2, ["1/0"])
    lost = door.get("/api/v1/studies/lost/losses").json()
    assert (lost["total"], lost["causes"], lost["losses"][0]["cause"]) == (1, {"signal:9": 1}, "signal:9")
    (worker,) = (one for one in door.get("/api/v1/studies/lost/workers").json()["workers"] if one["lost"])
    assert worker["worker"] == lost["losses"][0]["worker"]


def test_a_log_is_told_as_the_page_shows_it(door: TestClient) -> None:
    run = door.get("/api/v1/studies/lost/losses").json()["losses"][0]
    address = f"{run['trial']}/{run['seed']}"
    told = door.get(f"/api/v1/studies/lost/trials/{run['trial']}/log?seed={run['seed']}").json()
    assert told["files"] == [f"{address}/log.txt"]
    assert any("attempt 2" in line for line in told["lines"])
    assert escape("\n".join(told["lines"])) in door.get(f"/s/lost/t/{address}").text
    inline = door.get("/api/v1/studies/wrong/trials/0/log").json()
    assert (inline["lines"], inline["files"]) == ([], [])
    assert "trained inline" in inline["note"]
    assert door.get("/api/v1/studies/wrong/trials/0/log?seed=7").status_code == 404
