"""Every shape is JSON as it stands: no NaN, no enumeration, no tuple-keyed or other thing that only Python knows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch import actions, reproduce, shapes
from hpsearch.archive import Curve
from hpsearch.compare import chances, param_differences, searches, study_row, trial_row, verdicts
from hpsearch.confirm import confirm
from hpsearch.gain import more_trials
from hpsearch.importance import importances
from hpsearch.launch import Place
from hpsearch.profile import edges_of, profile_of
from hpsearch.read import space_of
from hpsearch.ship import checklist, looks
from hpsearch.stores.sql import open_archive
from hpsearch.trial import Direction, Environment, Run, RunKey, Stage, State, Trial
from hpsearch.verdict import spread

TRAIN = """
import math

def train(run):
    for epoch in range(2):
        run.report(epoch, loss=run["x"] + 1 / (1 + epoch))
    return {"loss": math.nan if run["x"] > 0.9 else run["x"] + run.seed / 100, "test_loss": run["x"]}
"""
STUDY = """
name: toy
objective: train.py:train
metric: {loss: minimize}
search_space: {x: {uniform: [0, 1]}, y: {uniform: [0, 1]}}
strategy: {grid: {values: {x: [0.1, 0.4, 0.6, 0.8, 0.95], y: [0.2, 0.7]}}}
seeds: {search: 2, confirm: 4}
baseline: false
"""


def same(shape: dict) -> dict:
    """The shape after a way through JSON, which changes nothing of it."""
    again = json.loads(json.dumps(shape, allow_nan=False))
    assert again == shape
    return again


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("shapes")
    (folder / "train.py").write_text(TRAIN)
    (folder / "toy.yaml").write_text(STUDY)
    url = f"sqlite:///{folder}/record.db"
    hp.run(hp.read_study(folder / "toy.yaml"), db=url, on="inline")
    return url


def test_a_study_with_its_words(url: str) -> None:
    actions.note(url, "toy/1", "odd")
    actions.tag(url, "toy/1", "kept")
    archive = open_archive(url)
    summary = archive.study("toy")
    told = same(shapes.study(summary))
    assert (told["study"], told["trials"]) == ("toy", {"complete": 8, "diverged": 2})
    assert (told["notes"], told["trial_tags"]) == (
        [{"address": "toy/1", "text": "odd"}],
        [{"address": "toy/1", "text": "kept"}],
    )
    assert told["created"] == shapes.moment(summary.created)
    assert told["created"] <= told["updated"]
    assert told["updated"].endswith("Z")


def test_trials_say_that_they_diverged(url: str) -> None:
    archive = open_archive(url)
    for trial in archive.trials("toy"):
        told = same(shapes.trial(trial, archive.curves("toy", [trial.number])))
        assert told["diverged"] == (trial.params["x"] == 0.95) == (told["value"] is None)
        assert [run["diverged"] for run in told["runs"]] == [told["diverged"]] * 2
        assert told["runs"][0]["curves"]["loss"] == {
            "epochs": [0, 1],
            "values": [trial.params["x"] + 1, trial.params["x"] + 0.5],
        }
        assert told["runs"][1]["started"] <= told["runs"][1]["ended"]
        assert told["runs"][0]["environment"]["python"]
    (one,) = shapes.trial(trial, only=trial.runs[1])["runs"]
    assert one["seed"] == 1
    assert "curves" not in one


def test_a_trial_by_itself(url: str) -> None:
    actions.note(url, "toy/3/1", "seed 1")
    archive = open_archive(url)
    summary, trials = archive.study("toy"), archive.trials("toy")
    curves = archive.curves("toy", [3])
    told = same(shapes.whole_trial(summary, trials[3], curves, db=url))
    assert told["metrics"]["loss"] == shapes.spread(spread(list(trials[3].values().values())))
    assert told["notes"] == [{"address": "toy/3/1", "text": "seed 1"}]
    assert "curves" not in told["runs"][0]
    assert told["commands"]["rerun"] == reproduce.command(summary, trials[3], db=url)
    assert told["commands"]["python"] == reproduce.snippet(summary, trials[3])
    run = trials[3].runs[1]
    one = same(shapes.whole_trial(summary, trials[3], curves, db=url, only=run, curves=True))
    assert one["metrics"] == told["metrics"]
    assert one["runs"] == [shapes.run(run, curves)]
    assert one["commands"]["rerun"] == reproduce.command(summary, trials[3], run, db=url)
    waiting = Trial(number=3, params=trials[3].params, runs=(Run(key=RunKey(3, 0)),))
    told = same(shapes.whole_trial(summary, waiting, [], db=url))
    assert (told["commands"]["rerun"], told["metrics"]["loss"]["n"]) == (None, 0)


def test_a_study_by_itself(url: str) -> None:
    archive = open_archive(url)
    summary, best = archive.study("toy"), archive.trials("toy")[0]
    told = same(shapes.whole_study(summary, best))
    assert told["interval"] == shapes.spread(spread(list(best.values().values())))
    assert told["spec"]["search_space"]["x"]["high"] == 1
    assert same(shapes.whole_study(summary, None))["interval"] is None


def test_what_json_does_not_know_is_null() -> None:
    run = Run(
        key=RunKey(0, 1, 2), state=State.DIVERGED, stage=Stage.EXTRA, started=0.25,
        environment=Environment(python="3", torch="2", device="cpu", machine="m"),
    )  # fmt: skip
    curve = Curve(run=run.key, metric="loss", epochs=(0, 1), values=(1.0, math.inf))
    trial = Trial(number=0, params={"lr": math.nan, "act": None}, state=State.DIVERGED, runs=(run,))
    told = same(shapes.trial(trial, [curve, Curve(run=RunKey(0, 1), metric="loss", epochs=[0], values=[1.0])]))
    assert (told["params"], told["state"], told["diverged"]) == ({"lr": None, "act": None}, "diverged", True)
    (one,) = told["runs"]
    assert one["curves"] == {"loss": {"epochs": [0, 1], "values": [1.0, None]}}
    assert (one["started"], one["ended"]) == ("1970-01-01T00:00:00.250000Z", None)
    assert (one["stage"], one["seed"], one["repeat"]) == ("extra", 1, 2)


def test_verdicts(url: str) -> None:
    archive = open_archive(url)
    summary, trials, way = archive.study("toy"), archive.trials("toy"), Direction.MINIMIZE
    rows = [trial_row("toy", trial) for trial in trials]
    pairs = verdicts([row for row in rows if row.values], way)
    told = same(shapes.trials_compared(rows, pairs, param_differences(trials), confirmed=False))
    assert [row["diverged"] for row in told["trials"]] == [trial.state is State.DIVERGED for trial in trials]
    assert told["verdicts"][0]["a"] == "toy/0"
    found = searches([(summary, trials)])
    told = same(shapes.studies_compared([study_row(summary, trials)], found, chances(found, way), []))
    assert told["studies"][0]["best"]["params"]["x"] == 0.1
    space = space_of(summary.spec)
    profiles = [profile_of(name, p, trials, way) for name, p in space.searched.items()]
    shares = importances(space, trials, way, resamples=4)
    gain = more_trials(trials, way, independent=True)
    told = same(shapes.importance("toy", shares, profiles, edges_of(space, trials, way), gain))
    assert [profile["name"] for profile in told["profiles"]] == ["x", "y"]


def test_a_race_and_a_look(url: str) -> None:
    archive = open_archive(url)
    summary = archive.study("toy")
    stored = hp.read_study(summary.file)
    outcome, race = confirm(stored, archive, Place(db=url, on="inline"), top=3, max_seeds=4)
    assert outcome is not None
    told = same(shapes.outcome(outcome.study, outcome.state, outcome.reason, outcome.progress))
    assert (told["study"], told["state"]) == ("toy", "complete")
    told = same(shapes.confirmation("toy", race))
    assert (told["over"], told["chosen"], len(told["trials"])) == (True, race.chosen, 3)
    look = actions.reveal(url, "toy", reason="the table")
    checks, _ = checklist(stored, summary, archive, look.trial)
    trial = archive.trials("toy")[look.trial]
    told = same(shapes.shipping("toy", "loss", trial, checks, looks(archive.decisions("toy")), look))
    assert (told["looks"], told["revealed"]["when"]) == (1, shapes.moment(look.when))
    assert told["revealed"]["metric"] == "loss"
    assert set(told["revealed"]["metrics"]) == {"test_loss"}
    for decision in archive.decisions("toy"):
        assert same(shapes.decision(decision))["reason"] == decision.reason
    seen = [shapes.decision(decision) for decision in archive.decisions("toy") if decision.kind == "reveal"]
    assert [decision["details"].keys() & {"test", "who"} for decision in seen] == [{"who"}]
