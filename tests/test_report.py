"""The page: self-contained, hostile text harmless, and true for studies of every kind."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.errors import UnusableError, UsageError
from hpsearch.findings import verdict_of
from hpsearch.report import page, report
from hpsearch.verdict import paired

TRAIN = """
import math
def edge(run):
    run.report(0, loss=1 - run["x"])
    return 1 - run["x"] + run.seed / 1000
def tie(run):
    return 0.5
def diverged(run):
    return math.nan
def failing(run):
    raise ValueError("<script>alert(1)</script></script>")

def late(run):
    for epoch in range(4):
        run.report(epoch, **({"loss": run["x"]} if epoch == 3 else {"other": 1.0}))
    return run["x"]
"""
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture
def study(tmp_path: Path):
    """Runs a study of one of the functions above and loads it."""
    (tmp_path / "train.py").write_text(TRAIN)

    def run(function: str, **fields):
        db = f"sqlite:///{tmp_path}/record.db"
        given = {
            "name": "s",
            "objective": str(tmp_path / "train.py") + f":{function}",
            "search_space": {"x": {"log": [0.01, 0.9]}, "z": {"uniform": [0, 1]}, "mode": ["<b>bold", EVIL]},
            "metric": {"loss": "minimize"},
            "n_trials": 16,
            "baseline": False,
            "strategy": "random",
            **fields,
        }
        with contextlib.suppress(UnusableError):  # the first runs all failed: what there is has been recorded
            hp.run(hp.define(**given), db=db, on="inline")
        return hp.load("s", db)

    return run


class Page(HTMLParser):
    """The tags of a page, its scripts' texts, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.words += data


def said(results) -> str:
    return " ".join(sentence.text for sentence in verdict_of(results))


def test_a_page_is_one_file_and_its_text_is_no_markup(study, tmp_path: Path) -> None:
    results = study("edge", description=EVIL, seeds=2)
    path = tmp_path / "r.html"
    assert report(results, path) == len(path.read_bytes())
    text = path.read_text("utf-8")
    seen = Page(text)
    assert not [tag for tag, attrs in seen.tags if "src" in attrs or "href" in attrs or tag == "link"]
    figures = [attrs for tag, attrs in seen.tags if attrs.get("class") == "figure"]
    assert len(figures) >= 8
    # Each figure's JSON, plotly.js and the page's own few lines; a hostile text would have made more.
    assert len(seen.scripts) == len(figures) + 2
    assert all("alert(1)" not in script for script in seen.scripts if not script.lstrip().startswith("{"))
    for script in seen.scripts[: len(figures)]:
        assert set(json.loads(script)) >= {"data", "layout"}
    assert EVIL in seen.words
    assert text.count("plotly.js v") == 1
    assert re.search(r"<h2>What is shown</h2>.*<h2>Pictures</h2>.*<h2>Trials</h2>", text, re.DOTALL)
    with pytest.raises(UsageError, match="cannot be written"):
        report(results, tmp_path / "no" / "r.html")
    assert [p.name for p in tmp_path.glob(".r.html*")] == []


def test_a_best_at_the_edge(study) -> None:
    results = study("edge", seeds=2)
    ways = [sentence.way_out for sentence in verdict_of(results)]
    assert "x: {log: [0.01, 2.7]}" in ways
    assert "mean of 2 seeds; 95 % interval" in said(results)
    assert re.search(
        r"against the runner-up #\d+: 0\.\d+ better on the 2 seeds that it was chosen by; not", said(results)
    )
    assert "hpsearch confirm s" in ways
    assert "The best of 16 values is partly luck" in said(results)


def test_one_seed_has_no_interval(study) -> None:
    results = study("edge")
    assert "one seed: nobody knows the spread" in said(results)
    assert "±" not in said(results)
    text = Page(page(results)).words
    assert "one seed" in text


def test_all_tie(study) -> None:
    results = study("tie")
    assert "All 16 complete trials have this value: nothing is shown to be better." in said(results)
    assert "runner-up" not in said(results)
    assert page(results)


def test_every_run_diverged(study) -> None:
    results = study("diverged")
    (sentence,) = verdict_of(results)
    assert "Every one of the 16 trials diverged" in sentence.text
    assert sentence.way_out == "x: {log: [1e-05, 0.01]}"
    assert "diverged" in page(results)


def test_every_run_failed(study) -> None:
    results = study("failing")
    assert "None of the 3 trials that ended is complete" in said(results)
    assert "Most failed runs ended with: exception" in said(results)
    assert "alert(1)</script>" not in page(results).replace(EVIL, "")


def test_every_run_was_pruned_before_it_told_its_metric(study) -> None:
    results = study("late", pruner={"median": {"max_epochs": 4, "warmup_epochs": 2}})
    words = "no run had reported loss by epoch 2, so all were pruned: raise warmup_epochs"
    assert said(results) == f"There is no result: {words}."
    assert words in page(results)


def test_a_single_trial(study) -> None:
    results = study("edge", n_trials=1)
    assert said(results).startswith("The best trial is #0")
    assert "luck" not in said(results)
    assert "1 of 1 trials" in page(results)


def test_a_baseline_is_compared(study) -> None:
    results = study("edge", baseline={"x": 0.95, "z": 0.0, "mode": "<b>bold"})
    assert "The best trial is a baseline" in said(results)


def test_nothing_beats_anything_on_the_seeds_that_chose_it(study) -> None:
    results = study("edge", n_trials=4, seeds=8, baseline={"x": 0.011, "z": 0.0, "mode": "<b>bold"})
    best = min((t for t in results.trials if not t.baseline), key=lambda t: t.value)
    assert paired(best.values(), results.trials[0].values(), results.direction).beats
    assert re.search(r"against the baseline #0: 0\.\d+ better on the 8 seeds that .*; not confirmed", said(results))
    assert "beats" not in said(results)


def test_a_study_of_which_nothing_has_run(study) -> None:
    results = replace(study("edge", n_trials=1), trials=[])
    assert said(results) == "Nothing has run yet."
    text = page(results)
    assert "There are none yet." in text
    assert "Plotly" not in text
