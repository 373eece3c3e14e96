"""The page of one trial, and of one run of it."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch import reproduce
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.pages.trial import decisions_about, ending, failures, surroundings
from hpsearch.dashboard.problem import sentence
from hpsearch.dashboard.record import Record
from hpsearch.errors import UnusableError
from hpsearch.store import Command
from hpsearch.stores.sql import open_store
from hpsearch.strategy import Decision
from hpsearch.trial import Environment, Run, RunKey, State

TRAIN = """
def f(run):
    run.report(0, loss=run["x"], accuracy=0.5)
    if run["x"] > 0.5:
        raise ValueError("<script>alert(1)</script>")
    run.report(1, loss=run["x"] / 2, accuracy=0.75)
    return run["x"] / 2
"""
SPACE = {"x": {"uniform": [0, 1]}, "how": ["<b>one", "two"], "fixed": 3}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, hp.Results, str]]:
    """A study in which some trials fail, with notes; two seeds."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "t.py").write_text(TRAIN)
    url = f"sqlite:///{folder}/record.db"
    study = hp.define(
        name="odd", objective=f"{folder}/t.py:f", search_space=SPACE, metric={"loss": "minimize"}, strategy="random",
        n_trials=8, seeds=2, baseline={"x": 0.1, "how": "two"}, max_failures=100,
    )  # fmt: skip
    with contextlib.suppress(UnusableError):
        hp.run(study, db=url, on="inline")
    store = open_store(url)
    for address, text in (("odd/1", "look <i>here</i>"), ("odd/1/0", "this seed"), ("odd/2", "not here")):
        assert store.send("odd", Command(verb="note", payload={"address": address, "text": text}))
    with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1") as client:
        yield client, hp.load("odd", url), url


def words(client: TestClient, path: str) -> str:
    """A page's HTML, with its texts as they are read."""
    answer = client.get(path)
    assert answer.status_code == 200
    assert not re.search(r"<script(?! src=\"/static/)|<i>|<b>one| style=| on\w+=\"", answer.text)
    return html.unescape(answer.text)


def test_a_trial_that_went_well(odd) -> None:
    client, results, url = odd
    best = results.best
    assert best is not None
    text = words(client, f"/s/odd/t/{best.number}")
    assert f'{best.value:.4g} <span class="spread">± 0</span> <span class="spread">(2)</span>' in text
    assert "Rank</span><b>1 <span" in text
    assert f"hpsearch rerun odd/{best.number} --verify --db {url}" in text
    raw = client.get(f"/s/odd/t/{best.number}").text
    copied = [html.unescape(found) for found in re.findall('data-copy="([^"]*)"', raw)]
    assert reproduce.command(results.study, best.trial, db=url).rstrip("\n") in copied
    assert reproduce.snippet(results.study, best.trial).rstrip("\n") in copied
    assert f'href="/s/odd/t/{best.number}/1">1</a>' in text
    assert f"/figures/trial_curves?trial={best.number}" in text
    assert "What went wrong" not in text
    second = results.top(2)[1].number
    assert f'/s/odd/compare?a={best.number}&b={second}"' in text
    assert f'/compare?a={second}&b={best.number}"' in words(client, f"/s/odd/t/{second}")


def test_a_trial_that_failed_says_why_once(odd) -> None:
    client, results, _ = odd
    failed = next(t.number for t in results.trials if t.state is State.FAILED)
    text = words(client, f"/s/odd/t/{failed}")
    assert text.count("ValueError: <script>alert(1)</script>") == 1, "two seeds, one error"
    assert "failed</span>, seeds 0, 1</b>: exception" in text
    assert "Rank</span><b>–" in text


def test_notes_are_those_of_the_trial_and_its_runs(odd) -> None:
    client, _, _ = odd
    answer = client.get("/s/odd/t/1").text
    assert "look &lt;i&gt;here&lt;/i&gt;" in answer
    assert "this seed" in answer
    assert "not here" not in answer
    run = client.get("/s/odd/t/1/0").text
    assert "this seed" in run
    assert "look" not in run


def test_neighbours(odd) -> None:
    client, results, _ = odd
    last = len(results.trials) - 1
    assert ('rel="prev"' in words(client, "/s/odd/t/0"), 'rel="next"' in words(client, "/s/odd/t/0")) == (False, True)
    assert 'rel="next"' not in words(client, f"/s/odd/t/{last}")
    assert f'rel="prev" href="/s/odd/t/{last - 1}"' in words(client, f"/s/odd/t/{last}")


def test_a_run_with_its_log(odd) -> None:
    client, results, _ = odd
    log = results.files / "1" / "1" / "log.txt"
    assert "There is no log of this run in" in words(client, "/s/odd/t/1/1")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("one\n<script>two</script>\x1b[31m\n")
    text = words(client, "/s/odd/t/1/1")
    assert "one\n<script>two</script>\\x1b[31m</pre>" in text
    assert "all of 1/1/log.txt" in text
    assert "/figures/run_metrics?run=1%2F1" in text
    assert 'rel="prev" href="/s/odd/t/1/0"' in text
    assert "hpsearch rerun odd/1/1 --db" in text


def test_the_pictures_of_one_trial_and_one_run(odd) -> None:
    client, _, _ = odd
    curves = client.get("/api/v1/studies/odd/figures/trial_curves?trial=0").json()
    assert {trace["name"] for trace in curves["data"]} == {"seed 0", "seed 1", "mean"}
    metrics = client.get("/api/v1/studies/odd/figures/run_metrics?run=0/1").json()
    assert [trace["name"] for trace in metrics["data"]] == ["loss", "accuracy"]
    assert client.get("/api/v1/studies/odd/figures/run_metrics?run=0/7").status_code == 404


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("t/99", "it has 9 trials."),
        ("t/0/7", "its seeds: 0, 1"),
        ("t/0/0.1", "its seeds: 0, 1"),
        ("t/99/0", "it has 9"),
    ],
)
def test_what_is_not_there_is_named(odd, path: str, hint: str) -> None:
    client, _, _ = odd
    answer = client.get(f"/s/odd/{path}", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert hint in answer.text


def test_what_is_said_ends_like_a_sentence_and_names_and_commands_stay_as_they_are() -> None:
    assert sentence("fine has no trial 9") == "fine has no trial 9."
    assert sentence("which one?") == "which one?"
    assert sentence("hpsearch tag fine paper") == "hpsearch tag fine paper"


def test_a_trial_of_every_study_has_its_page(client: TestClient) -> None:
    for study in ("digits", "fine", "grid"):
        assert "<h1>Trial #0" in words(client, f"/s/{study}/t/0")
        assert "<h1>Trial #0, seed 2" in words(client, f"/s/{study}/t/0/2")


def test_environments_that_differ_are_told_apart() -> None:
    here = Environment(
        python="3.11", torch="2", device="cpu", machine="m", git_commit="a" * 40, packages={"numpy": "2"}, data="d" * 16
    )
    there = replace(here, device="cuda:0", git_dirty=True)
    runs = [Run(key=RunKey(0, seed), environment=e) for seed, e in enumerate([here, there, here, None])]
    found = surroundings(runs)
    assert found.differs == [
        ("device", [("cpu", "seeds 0, 2"), ("cuda:0", "seed 1")]),
        ("commit", [("aaaaaaaaaaaa", "seeds 0, 2"), ("aaaaaaaaaaaa, with changes", "seed 1")]),
    ]
    assert {("numpy", "2"), ("data", "d" * 16)} <= set(found.same)
    assert surroundings([]).same == []


def test_decisions_about_a_trial() -> None:
    made = [
        Decision(kind="grouped", subject="3", reason="a count"),
        Decision(kind="race", subject="1", reason="race", details={"contenders": [3, 4]}),
        Decision(kind="prune", subject="3", reason="pruned"),
        Decision(kind="confirmed", subject="4", reason="ties", details={"ties": [4, 3]}),
        Decision(kind="zoom", subject="3", reason="a parameter called 3"),
    ]
    assert [one.reason for one in decisions_about(made, 3)] == ["race", "pruned", "ties"]
    assert [one.reason for one in decisions_about(made, 1)] == []


def test_long_errors_show_their_end() -> None:
    assert ending("x" * 10_000 + "ValueError") == f"… 4,010 characters before\n{'x' * 5990}ValueError"
    many = [Run(key=RunKey(0, s), state=State.FAILED, reason=f"exit:{s % 9}", error="e") for s in range(40)]
    found = failures(many)
    assert len(found) == 6
    assert found[0].who == "seeds 0, 9, 18, 27, 36"
