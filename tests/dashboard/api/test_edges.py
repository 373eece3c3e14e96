"""The table of trials by pages and as files; and studies of every odd kind, which all have sensible answers."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from hpsearch.dashboard.api.history import decisions_of
from hpsearch.dashboard.api.metrics import escaped
from hpsearch.dashboard.record import Record
from hpsearch.further import REVEAL
from hpsearch.strategy import Decision
from tests.dashboard.odd import ODD

API = "/api/v1/studies"
PATHS = ["", "/trials", "/trials?format=columns", "/importance", "/rounds", "/workers", "/losses", "/diagnostics"]
PATHS += ["/decisions", "/report"]


@pytest.mark.parametrize("study", ODD)
@pytest.mark.parametrize("path", [*PATHS, "/trials/0", "/trials/0/curves", "/trials/0/layers", "/trials/0/log"])
def test_odd_studies_have_answers(odd: TestClient, study: str, path: str) -> None:
    answer = odd.get(f"{API}/{study}{path}")
    assert answer.status_code == 200
    assert "NaN" not in answer.text.replace("isNaN", "") or path == "/report"


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_study_has_answers(odd: TestClient, path: str) -> None:
    assert odd.get(f"{API}/empty/trials").json() == {"trials": [], "total": 0, "next": None}
    assert odd.get(f"{API}/empty{path}").status_code == 200
    assert odd.get(f"{API}/empty/trials?format=csv").text.startswith("number,state,value")


def test_what_was_seen_of_the_test_set_stays_there(url: str) -> None:
    seen = Record(url).view("fine")
    details = {"look": 1, "who": "me", "test": {"test_loss": [0.123]}}
    look = Decision(kind=REVEAL, subject="3", reason="the paper", details=details)
    told = decisions_of(replace(seen, read=replace(seen.read, decisions=[look])))["decisions"][0]
    assert told["details"] == {"look": 1, "who": "me"}
    assert told["reason"] == "the paper"


def test_one_seed_has_no_interval(odd: TestClient) -> None:
    found = odd.get(f"{API}/alone/trials/0").json()
    metric = found["metrics"]["loss"]
    assert (metric["n"], metric["sd"], metric["low"], metric["high"]) == (1, None, None, None)
    assert odd.get(f"{API}/alone/trials/0/curves").json()["band"] is None
    pair = odd.get(f"{API}/alone/compare?a=0&b=1").json()["verdicts"][0]
    assert not pair["beats"]
    assert pair["words"]


def test_all_failed_and_all_diverged_say_so(odd: TestClient) -> None:
    failed = odd.get(f"{API}/failed").json()
    assert failed["best"] is None
    assert failed["interval"] is None
    assert "<script>alert(1)</script>" in odd.get(f"{API}/failed/trials/0").json()["runs"][0]["error"]
    rows = odd.get(f"{API}/diverged/trials").json()["trials"]
    assert all(row["diverged"] and row["value"] is None and row["low"] is None for row in rows)


def test_long_names_are_whole(odd: TestClient) -> None:
    found = odd.get(f"{API}/one/trials/0").json()
    assert "p" * 100 in found["params"]
    curves = odd.get(f"{API}/one/trials/0/curves", params={"metric": "m" * 200}).json()
    assert curves["runs"][0]["values"] == [1.0]
    too_long = odd.get(f"{API}/one/trials/0/curves", params={"metric": "m" * 300})
    assert too_long.status_code == 422


def test_rounds_narrow(odd: TestClient) -> None:
    first, second = odd.get(f"{API}/narrow/rounds").json()["rounds"]
    assert first["windows"] == {"x": [0.0, 1.0]}
    low, high = second["windows"]["x"]
    assert 0 <= low < 0.3 < high <= 1
    assert high - low < 1
    assert first["reasons"].keys() == {"x"}
    assert (first["round"], second["round"]) == (1, 2)


@pytest.mark.parametrize("sort", ["rank", "-rank", "number", "-x", "kind", "-kind", "state"])
def test_pages_follow_each_other(odd: TestClient, sort: str) -> None:
    whole = odd.get(f"{API}/alone/trials", params={"sort": sort}).json()
    assert whole["next"] is None
    seen, cursor = [], ""
    while cursor is not None:
        page = odd.get(f"{API}/alone/trials", params={"sort": sort, "limit": 7, "cursor": cursor}).json()
        seen += page["trials"]
        cursor = page["next"]
    assert seen == whole["trials"]
    assert len(seen) == 30


def test_studies_by_pages_and_by_words(odd: TestClient) -> None:
    whole = odd.get(API).json()["studies"]
    seen, cursor = [], ""
    while cursor is not None:
        page = odd.get(API, params={"limit": 2, "cursor": cursor}).json()
        seen += page["studies"]
        cursor = page["next"]
    assert seen == whole
    assert [one["study"] for one in odd.get(f"{API}?q=ALON").json()["studies"]] == ["alone"]
    assert odd.get(f"{API}?state=running").json()["total"] == 0


@pytest.mark.parametrize(
    "query",
    [
        "cursor=AAAA", "cursor=%00", "sort=nope", "limit=0", "limit=1001", "limit=" + "9" * 5000, "fields=x", "where=x",
        "where=nope<1", "state=nope", "format=columns&limit=5", "format=columns&fields=nope", "digits=18",
        "sort=" + "x" * 300,
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_problem_with_a_way_out(odd: TestClient, query: str) -> None:
    answer = odd.get(f"{API}/alone/trials?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert answer.json()["hint"]


def test_csv_is_harmless_to_a_spreadsheet(odd: TestClient) -> None:
    answer = odd.get(f"{API}/alone/trials?format=csv&sort=number")
    assert answer.headers["content-disposition"] == 'attachment; filename="alone-trials.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    stored = odd.get(f"{API}/alone/trials?sort=number").json()["trials"]
    for row, trial in zip(rows, stored, strict=True):
        kind = trial["params"]["kind"]
        assert row["kind"] == (f"'{kind}" if kind[0] in "=+-@\t\r" else kind)
        assert float(row["x"]) == trial["params"]["x"]
        assert int(row["param_seed"]) == trial["params"]["seed"]
    assert any(row["kind"].startswith("'") for row in rows)


def test_parquet_has_the_same_table(odd: TestClient) -> None:
    answer = odd.get(f"{API}/alone/trials?format=parquet&fields=number,x,value&where=x<0.5")
    frame = pd.read_parquet(io.BytesIO(answer.content))
    stored = odd.get(f"{API}/alone/trials?where=x<0.5").json()["trials"]
    assert list(frame.columns) == ["number", "x", "value"]
    assert frame["x"].tolist() == [trial["params"]["x"] for trial in stored]


def test_columns_are_rows_turned(odd: TestClient) -> None:
    exact = odd.get(f"{API}/alone/trials?format=columns&digits=17&fields=value,low&fields=x").json()
    rows = odd.get(f"{API}/alone/trials").json()["trials"]
    assert exact["columns"] == {
        "value": [row["value"] for row in rows],
        "low": [row["low"] for row in rows],
        "x": [row["params"]["x"] for row in rows],
    }
    short = odd.get(f"{API}/alone/trials?format=columns&digits=3&fields=x").json()["columns"]["x"]
    assert short == [float(f"{row['params']['x']:.3g}") for row in rows]


def test_many_trials_are_sampled_and_it_is_said(odd: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.dashboard.api.trials.MOST_COLUMNS", 10)
    found = odd.get(f"{API}/alone/trials?format=columns&sort=rank").json()
    assert (found["shown"], found["total"], len(found["columns"]["number"])) == (10, 30, 10)
    assert "10 of 30" in found["note"]
    best = odd.get(f"{API}/alone").json()["best"]["trial"]
    assert found["columns"]["number"][0] == best


def test_labels_are_escaped() -> None:
    assert escaped('a\\b"c\nd') == 'a\\\\b\\"c\\nd'
