"""What a study refuses, what it warns of, and what of it may change once it is stored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.errors import StudyError
from hpsearch.objective import ObjectiveAddress
from hpsearch.pruners.hyperband import Hyperband
from hpsearch.pruners.median import Median
from hpsearch.pruners.successive_halving import SuccessiveHalving
from hpsearch.space import Categorical, Float, Int, SearchSpace
from hpsearch.strategies.bayesian import Bayesian
from hpsearch.strategies.coarse_to_fine import CoarseToFine
from hpsearch.strategies.grid import Grid
from hpsearch.strategies.random import Random
from hpsearch.study import (
    LOOSE,
    Study,
    cohort_of,
    differences,
    epochs_of,
    fingerprint,
    spec_of,
    textbook_baseline,
    warnings_of,
)
from hpsearch.trial import Direction

LR = Float(1e-5, 1, log=True)
BASE = Study(
    name="digits",
    objective=ObjectiveAddress(source="train.py", name="train", folder=Path("/somewhere")),
    search_space=SearchSpace({"lr": LR, "depth": Int(1, 5), "act": Categorical(("relu", "tanh"))}),
    strategy=Random(),
    metric="val_loss",
    n_trials=8,
)

OTHER = {
    "name": "digits2",
    "objective": ObjectiveAddress(source="train.py", name="other", folder=Path("/somewhere")),
    "search_space": SearchSpace({**BASE.search_space.parameters, "lr": Float(1e-4, 1, log=True)}),
    "strategy": Random(method="independent"),
    "metric": "loss",
    "direction": Direction.MAXIMIZE,
    "pruner": SuccessiveHalving(eta=4),
    "seeds": (0, 1),
    "confirm_seeds": 3,
    "seed": 1,
    "n_trials": 16,
    "budget_s": 60.0,
    "timeout_s": 5.0,
    "baselines": ({"lr": 0.01, "depth": 2, "act": "relu"},),
    "max_failures": 3,
    "isolate": True,
    "threads": 2,
    "description": "words",
    "tags": ("a",),
}


@pytest.mark.parametrize("field", OTHER)
def test_the_fingerprint_follows_what_decides_the_trials(field):
    spec, other = spec_of(BASE), spec_of(replace(BASE, **{field: OTHER[field]}))
    lines = differences(spec, other)
    if field in LOOSE:
        assert fingerprint(spec) == fingerprint(other)
        assert lines == []
    else:
        assert fingerprint(spec) != fingerprint(other)
        assert len(lines) == 1
        assert lines[0].startswith(field)


def test_a_study_without_a_pruner_has_the_fingerprint_it_had_before_there_were_any():
    assert "pruner" not in spec_of(BASE)
    # As version 0.1.0 computed it of this study, before Study had the field.
    assert fingerprint(spec_of(BASE)) == "acba7ee45b7d2df2a5f2773ab2b3eae8fd9b458cfd5a9146b52606f7425f1a2d"


def test_another_option_of_the_pruner_is_another_study():
    one, two = (spec_of(replace(BASE, pruner=SuccessiveHalving(eta=eta))) for eta in (3, 4))
    assert fingerprint(one) != fingerprint(two)
    assert differences(one, two) == ["pruner.eta: 3 -> 4"]


def test_differences_are_a_line_a_field():
    other = replace(BASE, search_space=OTHER["search_space"], seeds=(0, 1), timeout_s=5.0)
    assert differences(spec_of(BASE), spec_of(other)) == [
        "search_space.lr.low: 1e-05 -> 0.0001",
        "seeds: [0] -> [0, 1]",
        "timeout_s: (none) -> 5.0",
    ]


def test_a_spec_survives_json_whatever_becomes_of_its_order():
    spec = spec_of(BASE)
    again = json.loads(json.dumps(spec, sort_keys=True))
    assert again == spec
    assert fingerprint(again) == fingerprint(spec)


def test_the_order_of_the_hyperparameters_decides_which_point_is_which_trial():
    space = BASE.search_space.parameters
    turned = spec_of(replace(BASE, search_space=SearchSpace(dict(reversed(space.items())))))
    assert fingerprint(turned) != fingerprint(spec_of(BASE))
    assert differences(spec_of(BASE), turned) == ['order: ["lr", "depth", "act"] -> ["act", "depth", "lr"]']
    more = spec_of(replace(BASE, search_space=SearchSpace({**space, "width": Int(1, 2)})))
    assert [line.split(":")[0] for line in differences(spec_of(BASE), more)] == ["search_space.width"]


def test_choices_of_another_type_are_another_study():
    a, b = (spec_of(replace(BASE, search_space=SearchSpace({"lr": LR, "n": Categorical((1, c))}))) for c in (2, 2.0))
    assert fingerprint(a) != fingerprint(b)
    assert len(differences(a, b)) == 1


def test_where_it_lies_does_not_matter():
    moved = replace(BASE, objective=replace(BASE.objective, folder=Path("/elsewhere")), file=Path("/elsewhere/s.yaml"))
    assert fingerprint(spec_of(moved)) == fingerprint(spec_of(BASE))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "../etc"}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"search_space": SearchSpace({})}, "search_space"),
        ({"search_space": SearchSpace({"lr": Categorical((1,))})}, "search_space"),
        ({"search_space": SearchSpace({"a b": LR})}, "search_space.'a b'"),
        ({"metric": ""}, "metric"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"seeds": (-1,)}, "seeds"),
        ({"seed": 2**31}, "seed"),
        ({"n_trials": 0}, "n_trials"),
        ({"n_trials": None}, "n_trials"),
        ({"confirm_seeds": 0}, "confirm_seeds"),
        ({"threads": 0}, "threads"),
        ({"max_failures": -1}, "max_failures"),
        ({"budget_s": 0.0}, "budget_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"baselines": ({"lr": 0.1},)}, "baseline[0]"),
        ({"baselines": ({"lr": "0.1", "depth": 1, "act": "relu"},)}, "baseline[0].lr"),
        ({"baselines": ({"lr": 0.1, "depth": 1.5, "act": "relu"},)}, "baseline[0].depth"),
        ({"baselines": ({"lr": 0.1, "depth": 1, "act": ["relu"]},)}, "baseline[0].act"),
        ({"baselines": ({"lr": float("nan"), "depth": 1, "act": "relu"},)}, "baseline[0].lr"),
        ({"strategy": Bayesian(batch=0)}, "strategy.batch"),
        ({"pruner": SuccessiveHalving(eta=1)}, "pruner.eta"),
        ({"pruner": Median(), "n_trials": None, "budget_s": 9.0}, "pruner.cohort"),
        ({"pruner": Median(), "n_trials": None}, "n_trials"),
        ({"pruner": Median(cohort=5), "strategy": Bayesian(batch=8)}, "pruner.cohort"),
        ({"pruner": Median(cohort=16), "strategy": Bayesian(batch=8)}, "pruner.cohort"),
        ({"search_space": SearchSpace({"lr": LR, "epochs": Float(1, 9)})}, "search_space.epochs"),
        ({"search_space": SearchSpace({"lr": LR, "epochs": Int(0, 9)})}, "search_space.epochs"),
        ({"search_space": SearchSpace({"lr": LR, "epochs": Int(1, 9, hard_low=0)})}, "search_space.epochs"),
        ({"search_space": SearchSpace({"lr": LR, "epochs": Categorical((3, True))})}, "search_space.epochs"),
        ({"search_space": SearchSpace({"lr": LR, "epochs": Categorical((3, "9"))})}, "search_space.epochs"),
    ],
)
def test_a_mistake_names_its_field(change, field):
    with pytest.raises(StudyError) as caught:
        replace(BASE, **change)
    assert [problem.field.replace("bayesian.", "") for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    ("changes", "cohort"),
    [
        ({}, 8),  # all trials
        ({"strategy": Bayesian(batch=4), "n_trials": 64}, 4),
        ({"strategy": CoarseToFine(trials_per_round=9), "n_trials": None, "budget_s": 60.0}, 9),
        ({"strategy": Grid(points=3), "n_trials": None}, 3 * 3 * 2),
        ({"strategy": Grid(points=3), "n_trials": 10}, 10),
        ({"pruner": Median(cohort=3)}, 3),
        ({"pruner": Median(cohort=4), "strategy": Bayesian(batch=8)}, 4),
        ({"pruner": Median(cohort=27), "n_trials": None, "budget_s": 60.0}, 27),
        ({"pruner": None}, None),
    ],
)
def test_the_cohort_is_the_batch_or_all_trials_or_what_the_pruner_says(changes, cohort):
    assert cohort_of(replace(BASE, **{"pruner": Hyperband(), **changes})) == cohort


@pytest.mark.parametrize(
    ("parameter", "epochs"),
    [
        (Categorical((7,)), 7),
        (Categorical((7, 9, 8)), 9),
        (Int(3, 9), 9),
        (Int(3, 9, hard_high=12), 12),
        (None, 5),  # what the task's class says
    ],
)
def test_the_epochs_of_a_run(tmp_path, parameter, epochs):
    (tmp_path / "task.py").write_text("class Task(hp.TrainingTask):\n    epochs = 5\n")
    own = {} if parameter is None else {"epochs": parameter}
    study = replace(
        BASE, objective=ObjectiveAddress("task.py", "Task", tmp_path), search_space=SearchSpace({"lr": LR, **own})
    )
    assert epochs_of(study) == epochs
    assert replace(study, pruner=Hyperband()).pruner == Hyperband()


def test_a_pruner_that_must_know_the_epochs_says_so(tmp_path):
    (tmp_path / "train.py").write_text("def train(run): ...\n")
    study = replace(BASE, objective=ObjectiveAddress("train.py", "train", tmp_path))
    for pruner in (Hyperband(), Median()):
        with pytest.raises(StudyError) as caught:
            replace(study, pruner=pruner)
        assert [problem.field for problem in caught.value.problems] == ["pruner.max_epochs"]
        replace(study, pruner=replace(pruner, max_epochs=20))
        space = SearchSpace({"lr": LR, "epochs": Categorical((20,))})
        replace(study, pruner=pruner, search_space=space)
        # A stored study whose code is gone can still be looked at.
        replace(BASE, pruner=pruner)
    replace(study, pruner=SuccessiveHalving())


def test_a_baseline_may_lie_outside_the_space():
    replace(BASE, baselines=({"lr": 10, "depth": 99, "act": "gelu"},))


def test_a_grid_says_what_it_means():
    space = SearchSpace({name: Float(0, 1, points=5) for name in ("a", "b", "c", "d")})
    grid = replace(BASE, search_space=space, strategy=Grid(), n_trials=None, seeds=(0, 1, 2))
    (line,) = warnings_of(grid)
    assert "4 hyperparameters" in line
    assert "625 cells x 3 seeds = 1,875 runs" in line
    few, short = warnings_of(replace(grid, n_trials=100))
    assert few == line
    assert "100" in short
    assert "625 cells" in short
    small = SearchSpace({name: Float(0, 1, points=5) for name in ("a", "b", "c")})
    assert warnings_of(replace(grid, search_space=small)) == []
    assert warnings_of(replace(grid, strategy=Random(), n_trials=9)) == []


@pytest.mark.parametrize(
    ("metric", "direction", "warned"),
    [
        ("val_accuracy", "minimize", True),
        ("val_accuracy", "maximize", False),
        ("val_loss", "maximize", True),
        ("val_loss", "minimize", False),
        ("test.RMSE", "maximize", True),
        ("lossy_ratio", "maximize", False),
        ("reward", "minimize", False),
    ],
)
def test_a_metric_the_wrong_way_round_is_asked_about(metric, direction, warned):
    lines = warnings_of(replace(BASE, metric=metric, direction=Direction(direction)))
    assert len(lines) == warned
    assert all(
        f"metric: {{{metric}: {'maximize' if direction == 'minimize' else 'minimize'}}}" in line for line in lines
    )


def test_the_textbook_baseline():
    full = SearchSpace(
        {
            "lr": LR,
            "momentum": Float(0.5, 0.999, reverse_log=True),
            "weight_decay": Float(1e-6, 0.1, log=True),
            "dropout": Float(0.1, 0.5),
            "depth": Int(1, 5),
            "act": Categorical(("relu", "tanh")),
            "width": Categorical((64,)),
        }
    )
    assert textbook_baseline(full) == {
        "lr": 1e-2,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "dropout": 0.0,
        "depth": 3,
        "act": "relu",
        "width": 64,
    }
    assert textbook_baseline(SearchSpace({"lr": LR})) == {"lr": 3e-4}
    some = SearchSpace({"lr": LR, "optimizer": Categorical(("rmsprop", "sgd"))})
    assert textbook_baseline(some) == {"lr": 1e-3, "optimizer": "rmsprop"}
    assert textbook_baseline(some, {"optimizer": "sgd"}) == {"lr": 1e-2, "optimizer": "sgd"}
    assert textbook_baseline(SearchSpace({"lr": LR, "batch_size": Categorical((32, 128))}))["batch_size"] == 128
    assert textbook_baseline(SearchSpace({"lr": LR, "batch_size": Int(16, 64)}))["batch_size"] == 40


@pytest.mark.parametrize(
    ("body", "lr"),
    [
        ("class Task(hp.TrainingTask):\n    optimizer = 'adagrad'\n", 1e-2),
        ("class Task(TrainingTask):\n    optimizer: str = 'rmsprop'\n", 1e-3),
        ("class Task(hp.TrainingTask):\n    epochs = 3\n", 1e-2),  # its default is momentum
        ("class Task(Other):\n    epochs = 3\n", 3e-4),
        ("def Task(run):\n    return 0.0\n", 3e-4),
    ],
)
def test_the_textbook_baseline_follows_the_optimizer_that_a_task_names(tmp_path, body, lr):
    (tmp_path / "task.py").write_text(body)
    objective = ObjectiveAddress("task.py", "Task", tmp_path)
    assert textbook_baseline(SearchSpace({"lr": LR}), objective=objective) == {"lr": lr}
