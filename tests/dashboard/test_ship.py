"""Ship, and the comparison of confirmed trials, over a study that raced for real."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.attempt import record_of
from hpsearch.confirm import confirm
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.launch import Place
from hpsearch.settings import files_folder
from hpsearch.ship import checklist, reveal
from hpsearch.stores.sql import open_archive, open_store, sealed_metrics
from hpsearch.written import number

TRAIN = """
import random
def train(run):
    shared = random.Random(run.seed).gauss(0, 0.1)
    loss = (run["lr"] - 0.4) ** 2 + shared + random.Random(f"{run.seed} {run['lr']}").gauss(0, 0.003)
    for epoch in range(2):
        run.report(epoch, loss=loss + 1 - epoch)
    return {"loss": loss, "test_loss": loss + 7.25}
"""


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[hp.Study, str, int]:
    """A study of a plain function, searched and confirmed: (study, url, the trial that was chosen)."""
    folder: Path = tmp_path_factory.mktemp("shipped")
    (folder / "train.py").write_text(TRAIN)
    (folder / "s.yaml").write_text(
        "name: s\nobjective: train.py:train\nmetric: {loss: minimize}\nseeds: {search: 2, confirm: 6}\n"
        "search_space: {lr: [0.1, 0.41, 0.9]}\nstrategy: grid\nbaseline: {lr: 0.9}\n"
    )
    url = f"sqlite:///{folder}/r.db"
    study = hp.read_study(folder / "s.yaml")
    hp.run(study, db=url, on="inline")
    _, found = confirm(study, open_archive(url), Place(db=url, on="inline"), max_seeds=6)
    assert found.chosen is not None
    return study, url, found.chosen


@pytest.fixture
def door(raced: tuple[hp.Study, str, int]) -> Iterator[TestClient]:
    with TestClient(make_app(Record(raced[1]), Access()), base_url="http://127.0.0.1:8787") as made:
        yield made


def test_the_checklist_is_that_of_the_command(raced: tuple[hp.Study, str, int], door: TestClient) -> None:
    study, url, chosen = raced
    archive = open_archive(url)
    checks, _ = checklist(study, archive.study("s"), archive, chosen)
    page = door.get("/s/s/ship").text
    assert f"Ship #{chosen}?" in page
    words = {True: "✓ yes", False: "✗ no", None: "○ cannot be said"}
    for check in checks:
        row = page.split(f">{check.name}</th>")[1].split("</tr>")[0]
        assert words[check.holds] in row
    told = door.get("/api/v1/studies/s/ship").json()
    assert [(one["name"], one["holds"], one["words"]) for one in told["checks"]] == [
        (check.name, check.holds, check.words) for check in checks
    ]
    assert (told["trial"], told["confirmed"], told["seen"]) == (f"s/{chosen}", chosen, [])
    assert f"hpsearch ship s/{chosen} --reveal-test --reason" in page
    assert '<form method="post"' not in page


def test_another_trial_is_not_offered_the_test_set(raced: tuple[hp.Study, str, int], door: TestClient) -> None:
    other = next(n for n in range(4) if n != raced[2])
    page = door.get(f"/s/s/ship?t={other}").text
    assert "reveal-test" not in page
    assert f'href="?t={raced[2]}"' in page
    assert door.get("/s/s/ship?t=44").status_code == 404


def test_who_may_act_gets_a_form(raced: tuple[hp.Study, str, int]) -> None:
    access = Access(allow_actions=True)
    with TestClient(make_app(Record(raced[1]), access), base_url="http://127.0.0.1:8787") as door:
        assert 'method="post"' not in door.get("/s/s/ship").text
        door.cookies.set("hpsearch-session-8787", access.new_session(), domain="127.0.0.1")
        page = door.get("/s/s/ship").text
    assert 'method="post" action="/api/v1/studies/s/reveal-test"' in page
    assert f'name="trial" value="{raced[2]}"' in page


def test_without_the_training_code_it_cannot_be_said(raced: tuple[hp.Study, str, int], door: TestClient) -> None:
    file = raced[0].objective.file
    assert file is not None
    kept = file.read_text()
    file.unlink()
    try:
        page = door.get("/s/s/ship").text
    finally:
        file.write_text(kept)
    assert "the training code is not on this machine" in page


def test_a_look_is_shown_with_its_number_who_when_and_why(raced: tuple[hp.Study, str, int], door: TestClient) -> None:
    study, url, chosen = raced
    before = door.get("/s/s/ship").text
    assert "Nobody has looked at it yet." in before
    look = reveal(
        study, open_archive(url), record_of(study), partial(open_store, url), chosen, reason="<b>table 2</b>",
        files=files_folder(url, "s"), sealed=partial(sealed_metrics, url, "s"),
    )  # fmt: skip
    value = number(look.metrics["test_loss"].mean)
    page = door.get("/s/s/ship").text
    assert value not in before
    assert value in page
    assert f"Look 1: #{chosen}" in page
    assert "&lt;b&gt;table 2&lt;/b&gt;" in page
    assert look.who in page
    (told,) = door.get(f"/api/v1/studies/s/ship?trial={chosen}").json()["seen"]
    assert told["metrics"]["test_loss"]["mean"] == look.metrics["test_loss"].mean
    assert (told["who"], told["reason"], told["number"]) == (look.who, "<b>table 2</b>", 1)


def test_confirmed_trials_are_compared_on_fresh_seeds(raced: tuple[hp.Study, str, int], door: TestClient) -> None:
    _, _, chosen = raced
    page = door.get(f"/s/s/compare?a={chosen}&b=0").text
    assert "The seeds are those of the confirmation" in page
    assert f"✓ #{chosen} beats #0" in page
    assert "6 of 6" in page
    answer = door.get(f"/api/v1/studies/s/figures/pairs?trial={chosen}&trial=0").json()
    assert "fresh seeds" in answer["sentence"]
    assert "better on 6 of 6 seeds" in answer["note"]
    curves = door.get(f"/api/v1/studies/s/figures/curves?trial={chosen}&trial=0").json()
    assert "over fresh seeds" in curves["sentence"]
