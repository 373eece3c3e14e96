"""The pages on hyperparameters: each alone, round by round, as a grid or at random."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.profile import edges_of
from hpsearch.read import space_of
from hpsearch.written import setting_text


def test_every_hyperparameter_has_its_picture_and_two_are_chosen(client: TestClient) -> None:
    page = client.get("/s/fine/params?x=x&y=lr").text.replace("&amp;", "&")
    assert {"lr_curve?x=lr", "lr_curve?x=x", "importances?", "parallel?", "interaction?x=x&y=lr"} <= set(
        re.findall(r"figures/([^\"]+)\"", page)
    )
    assert re.findall(r"<option selected>(\w+)</option>", page.split("Two together")[1]) == ["x", "lr"]
    assert "Show all" not in page


def test_what_is_filtered_reaches_the_pictures(client: TestClient) -> None:
    page = client.get("/s/fine/params?where=lr<0.1").text
    assert "lr_curve?x=lr&amp;where=lr%3C0.1" in page
    assert "&#39;lr&#39; is no condition" in client.get("/s/fine/params?where=lr").text


def test_an_edge_is_warned_of_with_the_range_to_try(client: TestClient, url: str) -> None:
    results = hp.load("digits", db=url)
    edges = edges_of(space_of(results.study.spec), results.trials, results.direction)
    page = client.get("/s/digits/params").text
    assert ("The best lies at an edge" in page) == bool(edges)
    for edge in edges:
        assert f'data-copy="{edge.suggestion}"' in page


def test_rounds_say_where_each_looked(client: TestClient, url: str) -> None:
    page = client.get("/s/fine/rounds").text.replace("&amp;", "&")
    zooms = [d for d in hp.load("fine", db=url).decisions if d.kind == "zoom" and d.batch == 0]
    assert "figures/rounds?played=1" in page
    assert 'href="?round=1"' in page
    assert "0.0001 … 1" in page
    for zoom in zooms:
        low, high = zoom.details["new"]
        assert f"{setting_text(low)} … {setting_text(high)}" in page
    first = client.get("/s/fine/rounds?round=1").text
    assert "figures/rounds?round=1" in first
    shown, played = (client.get(f"/api/v1/studies/fine/figures/rounds?{q}").json() for q in ("round=1", "played=1"))
    assert set(shown["data"][0]["x"]) == {1}
    assert len(played["layout"]["updatemenus"][0]["buttons"][0]["args"][0]) == 2


def test_another_strategy_has_no_rounds(client: TestClient) -> None:
    page = client.get("/s/grid/rounds").text
    assert "does not narrow the search space" in page
    assert "data-figure" not in page


def test_grid_and_random_are_counted(client: TestClient) -> None:
    page = client.get("/s/fine/grid-vs-random?x=lr&y=x&with=grid").text.replace("&amp;", "&")
    assert "grid (grid): 4 distinct lr in 12 trials" in page
    assert "fine (coarse to fine): 24 distinct lr in 24 trials" in page
    assert "figures/grid_or_random?x=lr&y=x&with=grid" in page
    answer = client.get("/api/v1/studies/fine/figures/grid_or_random?x=lr&y=x&with=grid").json()
    assert sum("xaxis" in key for key in answer["layout"]) == 4
    assert "independent random" not in page
    random = client.get("/s/digits/grid-vs-random").text
    assert "5 independent random trials hit the best 5 %" in random
    assert "= 23 %." in random
    assert client.get("/s/fine/grid-vs-random?x=lr&y=x&with=digits").status_code == 422
    chosen = client.get("/s/fine/grid-vs-random?with=grid")
    assert chosen.status_code == 200  # the axes are those that both search


def test_of_many_hyperparameters_the_first_twelve_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("def train(run):\n    return sum(run.params.values())\n")
    url = f"sqlite:///{tmp_path}/r.db"
    space = {f"p{k}": {"uniform": [0, 1]} for k in range(20)}
    study = hp.define(name="wide", objective=f"{tmp_path}/train.py:train", metric={"loss": "minimize"}, n_trials=2,
                      search_space=space, strategy="random")  # fmt: skip
    hp.run(study, db=url, on="inline")
    with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1:8787") as door:
        first, every = (door.get(f"/s/wide/params{query}").text for query in ("", "?all=1"))
    assert (first.count("lr_curve?"), every.count("lr_curve?")) == (12, 20)
    assert 'href="?all=1"' in first
    assert "Show all" not in every
