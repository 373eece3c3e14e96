"""Each study file is right, and each of the small ones runs: shortened; the README's test runs one whole."""

import shutil
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.objective import find

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(STUDIES.glob("*.yaml"))
STRATEGIES = ["grid", "random", "coarse_to_fine", "bayesian"]

#: fewer trials, by study
SHORT = {
    "digits_grid": {"search_space.lr.points": 2, "search_space.momentum.points": 2,
                    "search_space.dropout.points": 2},
    "digits_random": {"n_trials": 8},
    "digits_coarse_to_fine": {"n_trials": 8, "strategy.coarse_to_fine.trials_per_round": 4},
    "digits_bayesian": {"n_trials": 8, "strategy.bayesian.startup": 4, "strategy.bayesian.batch": 2},
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_file_has_no_mistake(file):
    study = hp.read_study(file)
    assert study.name == file.stem.replace("_", "-")
    assert study.description
    assert find(study.objective).parent == STUDIES
    assert len(study.baselines) == 1


def test_the_four_strategies_search_the_same_with_as_many_trials():
    studies = [hp.read_study(STUDIES / f"digits_{strategy}.yaml") for strategy in STRATEGIES]
    assert [study.strategy.name for study in studies] == STRATEGIES
    assert {study.n_trials or study.strategy.size(study.search_space) for study in studies} == {64}
    assert {study.seeds for study in studies} == {(0, 1, 2)}
    bounds = {
        (name, p.low, p.high, p.log, p.reverse_log)
        for study in studies
        for name, p in study.search_space.parameters.items()
        if name in study.search_space.searched
    }
    assert len(bounds) == 4


def test_no_study_imports_another():
    """Each is readable top to bottom, and can be copied alone."""
    stems = [file.stem for file in STUDIES.glob("*.py")]
    for file in STUDIES.glob("*.py"):
        words = [line.split()[1] for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not set(words) & set(stems)


def run(folder, name, task, **overrides):
    """The trials of a shortened study, run in this process."""
    for file in STUDIES.glob("digits*"):
        if file.is_file():
            shutil.copy(file, folder)
    (folder / "quick.py").write_text(f"from digits import {task}\n\n\nclass Quick({task}):\n    epochs = 2\n")
    changes = {"objective": "quick.py:Quick", "seeds": 1, "baseline": False, **SHORT[name], **overrides}
    study = hp.read_study(folder / f"{name}.yaml", changes)
    db = f"sqlite:///{folder}/record.db"
    hp.run(study, db=db, on="inline")
    return hp.load(study.name, db=db).trials


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_digits_study_completes_and_repeats_to_the_digit(strategy, tmp_path):
    (tmp_path / "again").mkdir()
    first, second = (run(folder, f"digits_{strategy}", "DigitsMLP") for folder in (tmp_path, tmp_path / "again"))
    assert len(first) == 8
    assert all(trial.state in ("complete", "diverged") for trial in first)
    assert len({tuple(trial.params.items()) for trial in first}) == 8
    assert [(t.params, t.state, t.value) for t in first] == [(t.params, t.state, t.value) for t in second]


def test_the_cnn_takes_the_same_hyperparameters(tmp_path):
    good = {"n_trials": 1, "search_space.lr": 0.1, "search_space.dropout": 0.2, "search_space.weight_decay": 1e-4}
    (trial,) = run(tmp_path, "digits_random", "DigitsCNN", **good)
    assert trial.state == "complete"
    # ln 10 = 2.3 is what guessing costs.
    assert trial.value < 1.0


def test_the_plain_function(tmp_path):
    for file in STUDIES.glob("plain_function.*"):
        shutil.copy(file, tmp_path)
    study = hp.read_study(tmp_path / "plain_function.yaml", {"n_trials": 2, "baseline": {"lr": 0.01}})
    db = f"sqlite:///{tmp_path}/record.db"
    hp.run(study, db=db, on="inline")
    results = hp.load(study.name, db=db)
    assert [trial.state for trial in results.trials] == ["complete"] * 3
    curves = results.curves_dataframe([0])
    assert set(curves["metric"]) >= {"val_loss", "val_accuracy"}
    # ln 2 = 0.69 is what guessing costs.
    assert results.trials[0].value < 0.3
