"""A real Tuner with ASHA, our strategy and our record, in a process of its own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.errors import StudyError, UsageError
from hpsearch.trial import State

PROGRAM = """
import json, sys, time
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
import hpsearch as hp
from hpsearch.bridges.ray_tune import StudyCallback, StudySearcher

MAX_T = 4


def train(config):
    for epoch in range(MAX_T):
        loss = (config["lr"] - 0.03) ** 2 + 1 / (1 + epoch)
        if config["lr"] > 0.5:
            loss = float("nan")
        if 2e-3 < config["lr"] < 3e-3 and epoch == 1:
            raise RuntimeError("no luck")
        tune.report({"val_loss": loss, "other": epoch})


if __name__ == "__main__":
    study = hp.define(
        name="tuned", objective="tuned.py:train", metric={"val_loss": "minimize"},
        search_space={"lr": {"log": [1e-4, 1]}}, strategy={"coarse_to_fine": {"trials_per_round": 8}},
        n_trials=16,
    )
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, logging_level="ERROR")
    searcher = StudySearcher(study, db="sqlite:///tuned.db", epochs=MAX_T)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=ASHAScheduler(max_t=MAX_T, grace_period=1, reduction_factor=2),
            metric="val_loss", mode="min", num_samples=-1, reuse_actors=True,
        ),
        run_config=tune.RunConfig(callbacks=[StudyCallback(searcher)], storage_path=sys.argv[1], verbose=0),
    )
    found = tuner.fit()
    rows = [
        (r.config["lr"], (r.metrics or {}).get("training_iteration"), (r.metrics or {}).get("val_loss"))
        for r in found
    ]
    print("\\n" + json.dumps(rows))
"""
STUDY = """
name: s
objective: tuned.py:train
metric: {val_loss: minimize}
search_space: {lr: {log: [1e-4, 1]}}
strategy: random
n_trials: 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a Tuner has run the study to its end."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "tuned.py").write_text(PROGRAM)
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "tuned.py", str(folder / "storage")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    (folder / "out").write_text(done.stdout)
    (folder / "err").write_text(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_trial_of_the_tuner_is_in_the_record(folder: Path) -> None:
    results = hp.load("tuned", f"sqlite:///{folder}/tuned.db")
    rows = json.loads((folder / "out").read_text().splitlines()[-1])
    assert results.study.state == "complete"
    assert len(rows) == len(results.trials) == 17
    states = {State.COMPLETE, State.PRUNED, State.DIVERGED, State.FAILED}
    assert {trial.state for trial in results.trials} == states
    for lr, iterations, loss in rows:
        (trial,) = [trial for trial in results.trials if trial.params["lr"] == lr]
        (run,) = trial.runs
        if trial.state is State.FAILED:
            assert "RuntimeError: no luck" in run.error
            continue
        assert run.last_epoch == iterations - 1
        if trial.state is State.DIVERGED:
            assert math.isnan(loss)
            continue
        assert (run.value, trial.value) == (loss, loss)
        assert trial.state is (State.COMPLETE if iterations == 4 else State.PRUNED)
    curves = results.curves_dataframe()
    assert set(curves["metric"]) == {"val_loss", "other"}
    whole = curves[(curves["trial"] == results.best.number) & (curves["metric"] == "other")]
    assert list(whole["value"]) == [0.0, 1.0, 2.0, 3.0]


def test_the_command_shows_them(folder: Path) -> None:
    command = [sys.executable, "-m", "hpsearch", "show", "tuned", "--db", "sqlite:///tuned.db"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "complete" in done.stdout
    assert "pruned" in done.stdout


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    from hpsearch.bridges.ray_tune import StudySearcher

    (tmp_path / "tuned.py").write_text(PROGRAM)
    (tmp_path / "study.yaml").write_text(STUDY)
    db = f"sqlite:///{tmp_path}/r.db"
    with pytest.raises(StudyError, match="pruner: is not for Tune's trials"):
        StudySearcher(hp.read_study(tmp_path / "study.yaml", {"pruner": "{median: {max_epochs: 40}}"}), db=db)
    with pytest.raises(StudyError, match=r"search_space\.seed"):
        StudySearcher(hp.read_study(tmp_path / "study.yaml", {"seeds": 2, "search_space.seed": 3}), db=db)
    searcher = StudySearcher(hp.read_study(tmp_path / "study.yaml", {"seeds": 2}), db=db)
    with pytest.raises(UsageError, match="needs its callback"):
        searcher.suggest("a")
    with pytest.raises(UsageError, match="TuneConfig says max loss, the study s min val_loss"):
        searcher.set_search_properties("loss", "max", {})
    with pytest.raises(UsageError, match="param_space has lr"):
        searcher.set_search_properties("val_loss", "min", {"lr": 1})
    assert searcher.set_search_properties(None, None, {})
    searcher.session.close()


def test_the_runs_of_a_trial_have_its_seeds_and_a_later_tuner_goes_on(tmp_path: Path) -> None:
    from hpsearch.bridges.ray_tune import StudyCallback, StudySearcher

    (tmp_path / "tuned.py").write_text(PROGRAM)
    (tmp_path / "study.yaml").write_text(STUDY)
    study, db = hp.read_study(tmp_path / "study.yaml", {"seeds": 2}), f"sqlite:///{tmp_path}/r.db"
    searcher = StudySearcher(study, db=db)
    StudyCallback(searcher).setup()
    first = [searcher.suggest(name) for name in "ab"]
    assert [config["seed"] for config in first] == [0, 1]
    assert first[0]["lr"] == first[1]["lr"]
    searcher.session.result("a", {"training_iteration": 1, "val_loss": 2.5, "done": True}, whole=True)
    searcher.session.end("a", error="", seconds=1.0, worker="here:1")
    searcher.session.close()
    again = StudySearcher(study, db=db)
    StudyCallback(again).setup()
    assert again.suggest("c") == first[1]
    again.session.close()
    runs = {run.key.seed: run for run in hp.load("s", db).trials[0].runs}
    assert (runs[0].state, runs[0].value, runs[1].attempt) == (State.COMPLETE, 2.5, 2)
