from __future__ import annotations

from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch import actions
from hpsearch.attempt import record_of
from hpsearch.confirm import confirm
from hpsearch.errors import NotFoundError, StudyHeldError, UsageError
from hpsearch.launch import Place
from hpsearch.store import Command, this_process
from hpsearch.stores.sql import open_archive, open_store
from tests.conformance.stores import ELSEWHERE

TRAIN = "def train(run):\n    return {'loss': run['x'] + run.seed / 10, 'test_loss': run['x']}\n"
STUDY = """
name: toy
objective: train.py:train
metric: {loss: minimize}
search_space: {x: [0.3, 0.9]}
strategy: grid
seeds: {search: 2, confirm: 4}
baseline: false
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "toy.yaml").write_text(STUDY)
    url = f"sqlite:///{tmp_path}/record.db"
    hp.run(hp.read_study(tmp_path / "toy.yaml"), db=url, on="inline")
    return url


def held(url: str):
    """The study, as a coordinator holds it that does nothing."""
    store = open_store(url)
    summary = open_archive(url).study("toy")
    store.open(record_of(hp.read_study(summary.file)), this_process(), lease_s=60)
    return store


def test_stop_reaches_the_coordinator_and_nobody_else(url: str) -> None:
    idle = actions.stop(url, "to")
    assert (idle.study, idle.asked, idle.words) == ("toy", False, "toy is not running (complete)")
    store = held(url)
    asked = actions.stop(url, "toy", now=True)
    assert (asked.asked, asked.words) == (True, "asked toy to stop; it ends its runs first")
    assert store.renew(0.0) == [Command(verb="stop", payload={"now": True})]
    store.close("complete")
    with pytest.raises(NotFoundError, match="nothing"):
        actions.stop(url, "nothing")


@pytest.mark.parametrize("live", [False, True])
def test_notes_and_tags_are_in_the_record_at_once(url: str, live: bool) -> None:
    store = held(url) if live else None
    assert actions.note(url, "toy", " of two\nlines ") == "toy"
    assert actions.note(url, "to/#1", "<script>") == "toy/1"
    assert actions.note(url, "toy/1/1", "x" * actions.LONGEST_TEXT) == "toy/1/1"
    for address in ("toy", "toy/0", "toy/0/1", "toy/0"):
        assert actions.tag(url, address, "paper") == address
    summary = open_archive(url).study("toy")
    assert list(summary.notes) == [("toy", "of two\nlines"), ("toy/1", "<script>"), ("toy/1/1", "x" * 10_000)]
    assert list(summary.tags) == ["paper"]
    assert list(summary.trial_tags) == [("toy/0", "paper"), ("toy/0/1", "paper")]
    assert [trial.state for trial in open_archive(url).trials("toy")] == ["complete", "complete"]
    if store is not None:
        store.close("complete")


@pytest.mark.parametrize(
    ("address", "text", "words"),
    [
        ("toy", "", "empty"),
        ("toy", " \n", "empty"),
        ("toy", "x" * 10_001, "10001 characters"),
        ("toy", "a\0b", "no database keeps"),
        ("toy", "a\udc80b", "no database keeps"),
        ("toy/x", "odd", "no address"),
        ("toy/1/2/3", "odd", "no address"),
        ("../toy", "odd", "no address"),
        ("", "odd", "no address"),
    ],
)
def test_what_cannot_be_noted_is_refused(url: str, address: str, text: str, words: str) -> None:
    for act in (actions.note, actions.tag):
        with pytest.raises(UsageError, match=words):
            act(url, address, text)
    assert open_archive(url).revisions()["toy"].said == 0


@pytest.mark.parametrize("address", ["no", "toy/2", "toy/1/7", "toy/1/0.3"])
def test_what_is_not_there_cannot_be_noted(url: str, address: str) -> None:
    with pytest.raises(NotFoundError):
        actions.note(url, address, "odd")


@pytest.mark.parametrize("text", ["two words", "a\tb", "a\x1b[31m", "y" * 101])
def test_a_tag_is_one_word(url: str, text: str) -> None:
    with pytest.raises(UsageError):
        actions.tag(url, "toy", text)


def test_a_look_at_the_test_set_takes_the_lease_and_gives_it_back(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no race has chosen"):
        actions.reveal(url, "toy", reason="curious")
    stored = hp.read_study(tmp_path / "toy.yaml")
    confirm(stored, open_archive(url), Place(db=url, on="inline"), top=2, max_seeds=4)
    with pytest.raises(UsageError, match="reason is empty"):
        actions.reveal(url, "toy", reason=" ")
    store = open_store(url)
    store.open(record_of(stored), ELSEWHERE, lease_s=60)
    with pytest.raises(StudyHeldError):
        actions.reveal(url, "toy", reason="the table")
    store.close("complete")
    look = actions.reveal(url, "to", reason=" the table ")
    assert (look.number, look.reason, list(look.metrics)) == (1, "the table", ["test_loss"])
    summary = open_archive(url).study("toy")
    assert (summary.state, summary.holder) == ("complete", "")
    assert [d.reason for d in open_archive(url).decisions("toy") if d.kind == "reveal"] == ["the table"]
