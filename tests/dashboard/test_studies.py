"""The first page: all studies, found and sorted; and what it says where there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.pages.studies import line_of
from hpsearch.dashboard.record import Record
from hpsearch.trial import Direction


def names(text: str) -> list[str]:
    return re.findall(r'<th scope="row" class="text"><a href="/s/([^"]+)"', text)


def test_every_study_with_its_best_and_its_course(client: TestClient) -> None:
    text = client.get("/").text
    assert set(names(text)) == {"digits", "fine", "grid"}
    assert text.count('<svg class="spark"') == 3
    assert text.count("±") >= 3
    assert "12 / 12" in text or "13 / 13" in text, "the grid's size is known, though it has no n_trials"
    assert "style=" not in text
    told = client.get("/api/v1/changes?study=*").json()["revisions"]["*"]
    assert f"""data-watch='["*"]' data-revision="{told}\"""" in text, "the page is refetched when any study changes"
    assert 'form="compare" name="s" value="grid"' in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=FI", ["fine"]), ("state=complete&sort=name", ["digits", "fine", "grid"]), ("state=failed", []),
        ("sort=-name", ["grid", "fine", "digits"]), ("tag=nothing", []), ("sort=nonsense&q=grid", ["grid"]),
    ],
)  # fmt: skip
def test_the_address_chooses_and_sorts(client: TestClient, query: str, found: list[str]) -> None:
    answer = client.get(f"/?{query}")
    assert answer.status_code == 200
    assert names(answer.text) == found
    assert ("No study fits." in answer.text) == (not found)


def test_a_head_sorts_and_says_so(client: TestClient) -> None:
    text = client.get("/?q=i&sort=name").text
    assert '<th scope="col" class="text" aria-sort="ascending"><a href="?q=i&amp;sort=-name">' in text


def test_no_study_yet_says_how_to_make_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1") as asked:
        answer = asked.get("/")
    assert answer.status_code == 200
    assert "hpsearch init my-study" in answer.text
    assert f"hpsearch run my-study/study.yaml --db {url}" in answer.text
    assert not (tmp_path / "none.db").exists()


def test_a_record_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("this is no database, however long it is" * 100)
    record = Record(f"sqlite:///{tmp_path}/broken.db")
    with TestClient(make_app(record, Access()), base_url="http://127.0.0.1") as asked:
        answer = asked.get("/")
    assert answer.status_code == 503
    assert "The record cannot be read:" in answer.text
    assert "broken.db" in answer.text
    assert "Traceback" not in answer.text


def test_a_line_is_the_best_so_far_in_few_points() -> None:
    line = line_of([(0, 4.0), (1, 2.0), (3, 3.0), (4, 1.0)], Direction.MINIMIZE)
    assert line is not None
    assert line.points == "3.0,3.0 41.0,17.7 79.0,17.7 117.0,25.0"
    assert line.words == "from 4 to 1 over 4 complete trials"
    rising = line_of([(0, 1.0), (1, 2.0)], Direction.MAXIMIZE)
    assert rising is not None
    assert rising.points == "3.0,25.0 117.0,3.0"
    long = line_of([(k, 1e308 * (-1) ** k) for k in range(10_000)], Direction.MINIMIZE)
    assert long is not None
    assert len(long.points.split()) == 60
    assert "nan" not in long.points
    assert line_of([(0, 1.0)], Direction.MINIMIZE) is None
