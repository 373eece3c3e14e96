"""What the server leaves to a process of its own."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.archive import StudySummary
from hpsearch.dashboard.apart import Apart
from hpsearch.figures.subject import Subject
from hpsearch.importance import Importances, importances
from hpsearch.objective import ObjectiveAddress
from hpsearch.pictures import NotYet
from hpsearch.study import spec_of
from hpsearch.trial import Direction, State, Trial

SPACE = hp.SearchSpace({"lr": hp.Float(1e-4, 1, log=True), "wd": hp.Float(0, 1)})
SPEC = spec_of(
    hp.Study(
        name="s",
        objective=ObjectiveAddress("train.py", "train", Path()),
        search_space=SPACE,
        strategy=hp.Random(),
        metric="loss",
        n_trials=10,
    )
)
STUDY = StudySummary(
    name="s", state="running", reason="", spec=SPEC, fingerprint="", code_hash="", file="", text="", counts={},
    best=None, created=1.0, updated=1.0, seconds=0.0, holder="", rev=1, fenced=0,
)  # fmt: skip


def seen(n: int) -> Subject:
    """A study in which lr alone matters."""
    source = random.Random(0)
    points = [[source.random(), source.random()] for _ in range(n)]
    trials = [
        Trial(number=k, params=SPACE.from_unit(u), state=State.COMPLETE, value=abs(u[0] - 0.5))
        for k, u in enumerate(points)
    ]
    return Subject(
        study="s", strategy="random", metric="loss", direction=Direction.MINIMIZE, space=SPACE, trials=trials
    )


def waited(apart: Apart, study: StudySummary, subject: Subject) -> Importances:
    """Ask until they are there."""
    until = time.monotonic() + 120
    while True:
        try:
            return apart.importances(None, study, subject)
        except NotYet:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.fixture
def apart(monkeypatch):
    monkeypatch.setattr("hpsearch.dashboard.apart.RESAMPLES", 2)
    made = Apart()
    yield made
    made.close()


def test_importances_are_those_of_this_process_and_kept(apart) -> None:
    with pytest.raises(NotYet) as caught:
        apart.importances(None, STUDY, seen(30))
    assert caught.value.again == 2
    found = waited(apart, STUDY, seen(30))
    assert found == importances(SPACE, seen(30).trials, Direction.MINIMIZE, resamples=2)
    assert apart.importances(None, STUDY, seen(30)) is found
    # A running study keeps them until it has a tenth more trials; another one is another one.
    assert apart.importances(None, STUDY, seen(32)) is found
    for other in (replace(STUDY, state="complete"), replace(STUDY, created=2.0)):
        with pytest.raises(NotYet):
            apart.importances(None, other, seen(32))


def test_of_many_trials_a_sample_goes_there_and_one_method(apart) -> None:
    found = waited(apart, STUDY, seen(1100))
    assert (found.n, found.n_usable, found.resamples, found.fanova) == (500, 1100, 2, [])
    assert found.ped_anova[0].name == "lr"


def test_where_nothing_can_be_said_no_process_is_asked(apart) -> None:
    assert "9 trials" in apart.importances(None, STUDY, seen(9)).reason


def test_a_process_that_is_lost_is_said_and_not_tried_again(apart, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    found = waited(apart, STUDY, seen(30))
    assert "lost (it ended with 1)" in found.reason
    assert apart.importances(None, STUDY, seen(30)) is found


def test_closed_it_begins_nothing() -> None:
    apart = Apart()
    apart.close()
    for _ in range(2):
        with pytest.raises(NotYet):
            apart.importances(None, STUDY, seen(30))
