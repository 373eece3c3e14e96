"""Sizes on a large study: marks, HTML, answers. ``benchmarks/dashboard.py`` measures times and memory."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from benchmarks import dashboard as benchmark
from benchmarks.dashboard_record import STUDY, fill
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.pictures import PICTURES, picture
from tests.figures.test_figures import marks

MARKS, LARGE = 2000, 150_000
PAGES = ("", "/trials", "/params", "/rounds", "/grid-vs-random", "/compare?t=5&t=9", "/diagnostics", "/workers",
         "/ship", "/t/7", "/t/7/0")  # fmt: skip
ROUTES = ("", "/trials?limit=1000", "/trials?format=columns", "/trials/7", "/importance", "/rounds", "/workers",
          "/decisions")  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """2,400 trials of 2 seeds."""
    folder: Path = tmp_path_factory.mktemp("scale")
    fill(f"sqlite:///{folder}/record.db", 2400, 2, 2)
    app = make_app(Record(f"sqlite:///{folder}/record.db"), Access())
    with TestClient(app, base_url="http://127.0.0.1:8787") as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_small(large, path) -> None:
    answer = large.get(f"/s/{STUDY}{path}")
    assert answer.status_code == 200
    assert len(answer.content) < LARGE


@pytest.mark.parametrize("path", ROUTES)
def test_an_answer_is_small(large, path) -> None:
    answer = large.get(f"/api/v1/studies/{STUDY}{path}")
    assert answer.status_code == 200
    assert len(gzip.compress(answer.content, 6)) < LARGE


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_sent_once(large, name) -> None:
    address = f"/api/v1/studies/{STUDY}/figures/{name}"
    answer = large.get(address)
    while answer.json().get("again"):
        assert not answer.json()["shown"]
        assert "etag" not in answer.headers
        assert answer.headers["retry-after"] == "1"
        time.sleep(0.2)
        answer = large.get(address)
    assert answer.status_code == 200
    assert len(gzip.compress(answer.content, 6)) < LARGE
    if len(answer.content) > 1000:
        assert answer.headers["content-encoding"] == "gzip"
    drawn = picture(name, large.app.state.record.view(STUDY).source).figure
    assert (drawn is not None) == answer.json()["shown"]
    assert drawn is None or marks(drawn) <= MARKS
    again = large.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert large.get(f"{address}?where=lr<0.1", headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_benchmark_fails_above_an_aim(tmp_path, monkeypatch, capsys) -> None:
    """On a small study, with less memory allowed than Python takes."""
    fill(f"sqlite:///{tmp_path}/record.db", 12, 2, 2)
    monkeypatch.setattr("benchmarks.dashboard.MOST_MB", 1)
    monkeypatch.setattr("sys.argv", ["dashboard", "--db", f"sqlite:///{tmp_path}/record.db", "--chromium", ""])
    assert benchmark.main() == 1
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missed: ")]
    assert re.fullmatch(r"missed: server: \d+(\.\d+)? MB, and 1 MB is the aim", missed[-1])
    assert benchmark.above(0.5, 0.5, "s", "an answer") == []
    assert benchmark.above(0.51, 0.5, "s", "an answer") == ["an answer: 0.51 s, and 0.5 s is the aim"]
