"""Trials side by side: what the page says is what ``verdict`` found, on the seeds it names."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.compare import trial_row
from hpsearch.verdict import paired
from hpsearch.written import number


def test_without_numbers_the_best_two_are_proposed(client: TestClient, url: str) -> None:
    best = [trial.number for trial in hp.load("digits", db=url).top(2)]
    page = client.get("/s/digits/compare").text
    for name, n in zip("ab", best, strict=True):
        assert f'name="{name}" inputmode="numeric" pattern="[0-9]{{1,9}}" required value="{n}"' in page
    assert "data-figure" not in page


def test_two_trials_are_judged_on_their_common_seeds(client: TestClient, url: str) -> None:
    results = hp.load("digits", db=url)
    one, two = results.top(2)
    sides = [dict(trial_row("digits", trial).judged) for trial in (one, two)]
    found = paired(*sides, results.direction, names=(f"#{one.number}", f"#{two.number}"))
    page = client.get(f"/s/digits/compare?a={one.number}&b={two.number}").text
    assert "○ not shown yet" in page
    assert f"{found.words}." in page
    assert number(found.difference, 3) in page
    assert f"{found.wins} of 3" in page
    assert f"hpsearch rerun digits/{one.number} digits/{two.number} --add-seeds {found.more}" in page
    assert "the search&#39;s own" in page or "the search's own" in page
    for name in one.params:
        assert name in page
    for name, value in (("dropout", one.params["dropout"]),):
        assert f'<th scope="row" class="text">{name}</th><td>{value:g}</td>' in page


def test_several_are_corrected_and_the_order_is_theirs(client: TestClient) -> None:
    page = client.get("/s/digits/compare?t=0&t=1&t=2").text
    assert "p corrected by Holm for 3 pairs" in page
    assert page.index("#0 against #1") < page.index("#1 against #2")


def test_curves_are_of_the_chosen_trials(client: TestClient) -> None:
    answer = client.get("/api/v1/studies/digits/figures/curves?trial=1&trial=0").json()
    assert [trace["name"] for trace in answer["data"] if trace.get("name")] == ["#1", "#0"]
    assert answer["sentence"] == "How #1 and #0 learned, over the search's seeds."


@pytest.mark.parametrize(("query", "status"), [("a=99&b=1", 404), ("t=0&t=1&t=2&t=3&t=4&t=5&t=6", 422), ("a=x", 422)])
def test_what_is_not_there_is_said(client: TestClient, query: str, status: int) -> None:
    assert client.get(f"/s/digits/compare?{query}").status_code == status


def test_studies_are_put_side_by_side_at_equal_budget(client: TestClient, url: str) -> None:
    page = client.get("/compare?s=fine&s=grid").text
    grid = hp.load("grid", db=url)
    assert "at equal budget: 12 trials" in page
    assert "one study of a strategy that learns is one draw" in page
    assert number(grid.best.value if grid.best else None) in page
    assert "figures/searches?with=grid" in page.replace("&amp;", "&")
    answer = client.get("/api/v1/studies/fine/figures/searches?with=grid").json()
    lines = {trace["name"]: trace["y"] for trace in answer["data"] if trace.get("name")}
    assert list(lines) == ["fine", "grid"]
    assert len(lines["grid"]) == 12
    assert lines["grid"][-1] == pytest.approx(grid.best.value if grid.best else None)
    alone = client.get("/api/v1/studies/fine/figures/searches").json()
    assert (alone["shown"], alone["sentence"]) == (False, "There is no other study to compare with.")


def test_studies_of_different_metrics_have_rows_and_no_more(client: TestClient) -> None:
    page = client.get("/compare?s=digits&s=grid").text
    assert "They measure different things" in page
    assert "data-figure" not in page
    answer = client.get("/api/v1/studies/digits/figures/searches?with=grid").json()
    assert (answer["shown"], answer["sentence"]) == (False, "These studies measure different things.")


def test_without_studies_there_is_a_form(client: TestClient) -> None:
    page = client.get("/compare").text
    assert all(f'name="s" value="{name}"' in page for name in ("digits", "fine", "grid"))
    assert client.get("/compare?s=fine&s=nothing").status_code == 404
