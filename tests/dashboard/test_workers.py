"""Workers: the page and the API say the same; how busy one was is a share of its own time."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.written import number

TRAIN = "def train(run):\n    return run['x']\n"


@pytest.fixture
def door(tmp_path: Path) -> TestClient:
    """A worker that trained for 2 of 8 seconds, and one that began long after and never waited."""
    (tmp_path / "train.py").write_text(TRAIN)
    study = hp.define(
        name="s", objective=f"{tmp_path}/train.py:train", search_space={"x": [0.1, 0.2, 0.3]},
        metric={"loss": "minimize"}, strategy="grid", baseline=False,
    )  # fmt: skip
    url = f"sqlite:///{tmp_path}/r.db"
    hp.run(study, db=url, on="inline")
    with sqlite3.connect(tmp_path / "r.db") as connection:
        when = "UPDATE run SET worker = ?, started = ?, ended = ? WHERE trial = ?"
        connection.executemany(when, [("a:1", 100, 101, 0), ("a:1", 107, 108, 1), ("b:2", 900, 950, 2)])
    connection.close()
    return TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1:8787")


def test_busy_is_of_a_workers_own_time(door: TestClient) -> None:
    told = door.get("/api/v1/studies/s/workers").json()["workers"]
    assert [(one["worker"], one["total"], one["busy"]) for one in told] == [("a:1", 2, 0.25), ("b:2", 1, 1.0)]
    early = "/api/v1/studies/s/workers?to=1970-01-01T00:01:45Z"
    assert [(one["worker"], one["busy"]) for one in door.get(early).json()["workers"]] == [("a:1", 1.0)]


@pytest.mark.parametrize("study", ["digits", "fine", "s"])
def test_the_page_and_the_api_say_the_same(client: TestClient, door: TestClient, study: str) -> None:
    asked = door if study == "s" else client
    told = asked.get(f"/api/v1/studies/{study}/workers").json()["workers"]
    page = asked.get(f"/s/{study}/workers").text.split('data-live="workers"')[1].split("</table>")[0]
    rows = re.findall(r'<tr><th scope="row" class="text">(.*?)</th><td>(\d+)</td><td>(\d+)</td><td>(.*?) %</td>', page)
    assert rows
    assert rows == [
        (one["worker"], str(one["total"]), str(one["running"]), number(100 * one["busy"], 3)) for one in told
    ]
