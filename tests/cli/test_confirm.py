"""confirm and ship as commands: what they print, at 80 columns, and how they end."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import hpsearch as hp

TRAIN = """
import random

def train(run):
    own = random.Random(f"{run.seed} {run['x']}").gauss(0, 0.003)
    loss = (run["x"] - 0.3) ** 2 + random.Random(run.seed).gauss(0, 0.1) + own
    return {"loss": loss, "test_loss": loss + 1}
"""
STUDY = """
name: verdict
objective: fresh.py:train
metric: {loss: minimize}
seeds: {search: 1, confirm: 6}
search_space: {x: [0.3, 0.6, 0.9]}
strategy: grid
baseline: {x: 0.9}
"""


@pytest.fixture
def study(folder: Path) -> str:
    (folder / "fresh.py").write_text(TRAIN)
    (folder / "verdict.yaml").write_text(STUDY)
    return "verdict"


def test_from_a_search_to_a_look_at_the_test_set(study: str, folder: Path, hpsearch) -> None:
    assert hpsearch("run", "verdict.yaml", "--on", "inline", "-q").code == 0
    early = hpsearch("ship", "verdict")
    assert (early.code, early.err) == (
        2,
        "error: no race has chosen a trial of verdict\n  hint: hpsearch confirm verdict, or name verdict/TRIAL\n",
    )
    early = hpsearch("ship", "verdict/1", "--reveal-test", "--reason", "curious")
    assert (early.code, "is not confirmed" in early.err) == (2, True)

    raced = hpsearch("confirm", "verdict", "--max-seeds", "6", "--on", "inline", "--progress", "none")
    assert raced.code == 0, raced.err
    assert raced.out.splitlines()[0].split()[:3] == ["trial", "search", "fresh"]
    assert "shown to be worse" in raced.err
    assert "6 fresh seeds" in raced.err
    assert max(map(len, (raced.out + raced.err).splitlines())) <= 80
    told = json.loads(hpsearch("confirm", "verdict", "--json", "-q").out)
    assert told["over"] is True
    winner = told["winner"]
    assert [one["params"] for one in told["trials"] if one["trial"] == winner] == [{"x": 0.3}]
    assert told["trials"][0]["fresh"]["n"] == 6

    shipped = hpsearch("ship", "verdict")
    assert shipped.code == 0
    assert f"verdict/{winner}" in shipped.out
    assert "✓ confirmed on fresh seeds" in shipped.out
    assert "✓ beats the baseline" in shipped.out
    assert "test_loss" not in shipped.out
    assert max(map(len, (shipped.out + shipped.err).splitlines())) <= 100

    compared = hpsearch("compare", f"verdict/{winner}", "verdict/0")
    assert compared.out.split()[:2] == ["trial", "fresh"]
    assert "ship also corrects for choosing among those that raced" in " ".join(compared.err.split())

    revealed = hpsearch("ship", "verdict", "--reveal-test", "--reason", "the paper's table")
    assert revealed.code == 0, revealed.err
    assert "look 1 at the test set" in revealed.err
    assert "the paper's table" in revealed.err
    assert [line.split()[:2] for line in revealed.out.splitlines()[-2:]] == [
        ["loss", "validation"],
        ["test_loss", "test"],
    ]
    for told in (
        json.loads(hpsearch("show", "verdict", "--json").out)["decisions"],
        [asdict(one) for one in hp.load("verdict").decisions],
    ):
        [look] = [one for one in told if one["kind"] == "reveal"]
        assert look["reason"] == "the paper's table"
        assert set(look["details"]) == {"look", "who", "when", "validation"}
    again = hpsearch("ship", "verdict", "--reveal-test", "--reason=--files=/x", "--via", "dashboard", "-q")
    assert "it is look 2" in again.err
    assert "via dashboard: --files=/x" in " ".join(again.err.split())
    assert json.loads(hpsearch("ship", "verdict", "--json", "-q").out)["looks"] == 2
    assert hpsearch("verify", "verdict").code == 0


def test_a_tie_says_what_would_settle_it(study: str, folder: Path, hpsearch) -> None:
    (folder / "verdict.yaml").write_text(STUDY.replace("[0.3, 0.6, 0.9]", "[0.3, 0.3001]"))
    assert hpsearch("run", "verdict.yaml", "--on", "inline", "-q").code == 0
    raced = hpsearch("confirm", "verdict", "--max-seeds", "6", "--on", "inline", "--progress", "none")
    told = json.loads(hpsearch("confirm", "verdict", "--json", "-q").out)
    assert len(told["ties"]) == 2
    needed = told["seeds_to_settle"]
    words = "more than 1,000 seeds" if needed is None else f"about {needed} seeds"
    assert words in " ".join(raced.err.split())
    assert (f"--again --max-seeds {needed}" in raced.err) is (needed is not None)
    assert max(map(len, (raced.out + raced.err).splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["confirm", "toy", "--top", "0"], "--top: must be at least 1, not 0"),
        (["confirm", "toy", "--max-seeds", "1"], "--max-seeds: must be from 2 to 10000, not 1"),
        (["confirm", "toy", "--alpha", "0.9"], "--alpha: must be above 0 and below 0.5, not 0.9"),
        (["ship", "toy/0", "--reveal-test"], "--reveal-test needs a reason, which is recorded"),
        (["ship", "toy/0", "--reason", "x"], "--reason is for a look at the test set"),
        (["ship", "toy/0/1"], "toy/0/1 is a run; a trial is shipped"),
    ],
)
def test_what_cannot_be_is_said(folder: Path, hpsearch, arguments: list[str], words: str) -> None:
    ended = hpsearch(*arguments)
    assert ended.code == 2
    assert words in ended.err


def test_artifacts_of_a_study_that_keeps_none(folder: Path, hpsearch) -> None:
    ended = hpsearch("artifacts", "list", "toy")
    assert (ended.code, ended.err) == (0, "toy keeps no checkpoint\n")
    assert json.loads(hpsearch("artifacts", "prune", "toy", "--json").out)["removed"] == []


def test_what_a_plain_function_saves_stays_and_is_not_listed(folder: Path, hpsearch) -> None:
    (folder / "fresh.py").write_text(
        "def train(run):\n"
        "    (run.checkpoint_dir / 'model.bin').write_bytes(b'12')\n"
        "    return {'loss': run['x'], 'test_loss': 0.0}\n"
    )
    (folder / "verdict.yaml").write_text(STUDY + "keep: 1\n")
    assert hpsearch("run", "verdict.yaml", "--on", "inline", "-q").code == 0
    saved = sorted(folder.glob("hpsearch-files/verdict/*/0/checkpoint/model.bin"))
    assert len(saved) == 4  # three of the grid, and the baseline
    assert json.loads(hpsearch("artifacts", "list", "verdict", "--json").out)["artifacts"] == []
    assert json.loads(hpsearch("artifacts", "prune", "verdict", "--json").out)["removed"] == []
    assert all(file.read_bytes() == b"12" for file in saved)
