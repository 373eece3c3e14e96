"""What a plan says of pruning; what it says of trials and time is tested through ``hpsearch plan``."""

from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.objective import ObjectiveAddress
from hpsearch.plan import Measured, MeasuredGroup, batch_of, filling, parted_by, plan
from hpsearch.pruners.hyperband import Hyperband
from hpsearch.pruners.median import Median
from hpsearch.pruners.successive_halving import SuccessiveHalving
from hpsearch.space import Categorical, Float, Int, SearchSpace
from hpsearch.strategies.bayesian import Bayesian
from hpsearch.strategies.random import Random
from hpsearch.study import Study
from hpsearch.trial import Grouped, RunKey

LR = Float(1e-5, 1, log=True)


def study(epochs=27, **changes) -> Study:
    space = {"lr": LR} if epochs is None else {"lr": LR, "epochs": Categorical((epochs,))}
    base = Study(
        name="digits",
        objective=ObjectiveAddress(source="train.py", name="train", folder=Path("/somewhere")),
        search_space=SearchSpace(space),
        strategy=Random(),
        metric="val_loss",
        n_trials=81,
    )
    return replace(base, **{"pruner": SuccessiveHalving(), **changes})


def test_without_a_pruner_there_is_nothing_to_say():
    assert plan(study(pruner=None)).pruning is None


def test_successive_halving_costs_what_the_textbook_says():
    pruning = plan(study()).pruning
    assert pruning.come == [[81, 27, 9, 3]]
    assert (pruning.cohort, pruning.cohorts, pruning.epochs, pruning.full_epochs) == (81, 1, 243, 2187)
    assert pruning.share == 1 / 9
    longer = plan(study(81)).pruning
    assert (longer.come, longer.epochs, longer.full_epochs) == ([[81, 27, 9, 3, 1]], 297, 6561)


def test_seeds_and_baselines_count_and_baselines_are_not_pruned():
    pruning = plan(study(seeds=(0, 1, 2), baselines=({"lr": 0.1, "epochs": 27},) * 2)).pruning
    assert pruning.epochs == 3 * (243 + 2 * 27)
    assert pruning.full_epochs == 3 * (2187 + 2 * 27)


def test_cohorts_are_counted_with_the_last_and_smaller_one():
    pruning = plan(study(n_trials=30, pruner=SuccessiveHalving(cohort=27))).pruning
    # 27 + 9 * 2 + 3 * 6 + 1 * 18, and of three trials 3 + 1 * 26
    assert (pruning.cohort, pruning.cohorts, pruning.epochs, pruning.full_epochs) == (27, 2, 81 + 29, 30 * 27)
    larger = plan(study(n_trials=30, pruner=SuccessiveHalving(cohort=81))).pruning
    assert (larger.cohort, larger.cohorts) == (30, 1)
    batches = plan(study(n_trials=None, budget_s=60.0, strategy=Bayesian(batch=9))).pruning
    assert (batches.cohort, batches.cohorts) == (9, None)
    assert (batches.epochs, batches.full_epochs) == (9 + 3 * 2 + 24, 9 * 27)


def test_hyperband_has_a_line_a_bracket():
    pruning = plan(study(81, n_trials=143, pruner=Hyperband())).pruning
    assert [bracket.trials for bracket in pruning.brackets] == [81, 34, 15, 8, 5]
    assert pruning.come == [[81, 27, 9, 3, 1], [34, 11, 3, 1], [15, 5, 1], [8, 2], [5]]
    assert pruning.epochs == 297 + (34 * 3 + 11 * 6 + 3 * 18 + 54) + (15 * 9 + 5 * 18 + 54) + (8 * 27 + 2 * 54) + 5 * 81


def test_the_median_rule_need_not_stop_anyone():
    pruning = plan(study(20, pruner=Median())).pruning
    assert pruning.come == [[81, 81, 81, 81]]
    assert pruning.epochs == pruning.full_epochs


def test_where_nobody_knows_the_epochs_the_rungs_are_still_known():
    pruning = plan(study(None)).pruning
    assert pruning.come == [[81, 27, 9, 3, 1]]
    assert (pruning.epochs, pruning.full_epochs, pruning.share) == (None, None, 1.0)


@pytest.mark.parametrize(
    ("body", "asynchronous", "words"),
    [
        ("def train(run): ...\n", False, ["saves nothing there starts over"]),
        ("class train(hp.TrainingTask): ...\n", False, []),
        ("class train(hp.TrainingTask): ...\n", True, ["depends on which were faster"]),
    ],
)
def test_what_the_user_should_know(tmp_path, body, asynchronous, words):
    (tmp_path / "train.py").write_text(body)
    there = ObjectiveAddress("train.py", "train", tmp_path)
    planned = plan(study(objective=there, pruner=SuccessiveHalving(asynchronous=asynchronous)))
    assert planned.notes == []  # which would be asked about before a run
    assert len(planned.pruning.notes) == len(words)
    assert all(word in note for word, note in zip(words, planned.pruning.notes, strict=True))


def test_the_time_is_that_of_the_epochs_that_are_left():
    measured = Measured(first_s=1.0, epoch_s=0.5, epochs=27, run_s=None)
    assert plan(study()).seconds(measured, 1) == pytest.approx(1 + 243 * 0.5)
    assert plan(study(pruner=None)).seconds(measured, 1) == pytest.approx(1 + 2187 * 0.5)


def test_the_time_of_groups_is_that_of_their_lanes_and_of_one_group_at_least():
    measured = Measured(first_s=1.0, epoch_s=0.01, epochs=27, run_s=None, lanes=64, runs=64)
    everything = study(pruner=None, n_trials=640)
    assert plan(everything).seconds(measured, 2) == pytest.approx(1 + 27 * 0.01 * 320)
    assert plan(everything).seconds(measured, 100) == pytest.approx(1 + 27 * 0.01 * 64)
    assert plan(study(pruner=None, n_trials=3)).seconds(measured, 1) == pytest.approx(1 + 27 * 0.01 * 64)


def test_the_time_is_that_of_the_slowest_worker_at_least():
    measured = Measured(
        first_s=1.0, epoch_s=0.01, epochs=27, run_s=None, lanes=6, runs=60, workers=2, slowest_s=0.5
    )  # fmt: skip
    assert plan(study(pruner=None, n_trials=60)).seconds(measured, 2) == pytest.approx(1 + 27 * 0.5)
    assert plan(study(pruner=None, n_trials=600)).seconds(measured, 2) == pytest.approx(1 + 27 * 0.01 * 300)


def group(runs, lanes, engine="vmap", reason=""):
    keys = tuple(RunKey(k, 0) for k in range(runs))
    return MeasuredGroup(said=Grouped(runs=keys, engine=engine, device="cpu", lanes=lanes, reason=reason), epoch_s=0.1)


def measured(*groups):
    return Measured(first_s=1.0, epoch_s=0.01, epochs=27, run_s=None, groups=groups)


@pytest.mark.parametrize(
    ("batch", "seeds", "groups", "workers", "expected"),
    [
        (8, 3, [group(24, 24)], 1, (24, 64, 22)),
        (8, 3, [group(12, 12)], 2, (24, 128, 43)),
        (21, 3, [group(63, 63)], 1, (63, 64, 22)),
        (22, 3, [group(64, 64)], 1, None),  # filled
        (8, 3, [group(24, 16)], 1, None),  # of the lanes that are as fast as more
        (8, 3, [group(24, 16)], 2, (24, 32, 11)),
        (8, 3, [group(12, 8), group(12, 12)], 1, (24, 64, 22)),
        (8, 3, [group(24, 1, "solo", "LSTM")], 1, None),
        (8, 3, [], 1, None),
        (200, 1, [group(64, 64)], 4, (81, 256, 256)),  # a batch is no larger than the study
    ],
)
def test_how_far_a_batch_fills_the_lanes(batch, seeds, groups, workers, expected):
    found = filling(study(strategy=Bayesian(batch=batch), seeds=tuple(range(seeds))), measured(*groups), 64, workers)
    assert (found and (found.runs, found.lanes, found.filled_by)) == expected


def test_a_strategy_without_batches_fills_the_lanes_itself():
    assert batch_of(study()) is None
    assert filling(study(n_trials=3), measured(group(3, 3)), 64, 1) is None


SPACE = SearchSpace(
    {
        "lr": LR,
        "batch_size": Categorical((32, 64)),
        "optimizer": Categorical(("sgd", "adam")),
        "width": Int(1, 64),
        "act": Categorical(("relu", "gelu")),
    }
)
SETTING = {"lr": 0.1, "batch_size": 32, "optimizer": "sgd", "width": 8, "act": "relu"}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([[{}, {"lr": 0.2}]], [{}]),  # one group has nothing to be told from
        ([[{}, {"width": 9}], [{"batch_size": 64}]], [{"batch_size": 32}, {"batch_size": 64}]),
        (
            [[{}], [{"batch_size": 64}], [{"optimizer": "adam"}]],
            [
                {"optimizer": "sgd", "batch_size": 32},
                {"optimizer": "sgd", "batch_size": 64},
                {"optimizer": "adam", "batch_size": 32},
            ],
        ),
        ([[{}, {"act": "gelu"}], [{"width": 9}, {"width": 9, "lr": 0.3}]], [{"width": 8}, {"width": 9}]),
        # a loop's hyperparameter explains it; that the widths differ too is chance
        ([[{}], [{"batch_size": 64, "width": 9}]], [{"batch_size": 32}, {"batch_size": 64}]),
        ([[{"lr": 0.2}], [{"lr": 0.3}]], [{}, {}]),  # of single runs every lr differs
        ([[{}, {"width": 9}], [{"width": 10}]], [{}, {}]),
        # streamed data
        ([[{"seed": 4}, {"seed": 4, "width": 9}], [{"seed": 7}]], [{"seed": 4}, {"seed": 7}]),
        (
            [[{"seed": 4, "width": 9}], [{"seed": 7, "width": 9}], [{"seed": 4, "act": "gelu"}]],
            [
                {"width": 9, "act": "relu", "seed": 4},
                {"width": 9, "act": "relu", "seed": 7},
                {"width": 8, "act": "gelu", "seed": 4},
            ],
        ),
    ],
)
def test_what_groups_are_told_apart_by(groups, expected):
    assert parted_by(SPACE, [[SETTING | changes for changes in group] for group in groups]) == expected


def test_groups_of_two_workers_may_have_the_same_in_common():
    batches = [[SETTING], [SETTING | {"batch_size": 64}], [SETTING]]
    assert parted_by(SPACE, batches, [0, 0, 1]) == [{"batch_size": 32}, {"batch_size": 64}, {"batch_size": 32}]
    assert parted_by(SPACE, batches, [0, 1, 1]) == [{"batch_size": 32}, {"batch_size": 64}, {"batch_size": 32}]
    assert parted_by(SPACE, batches, [0, 1, 0]) == [{}, {}, {}]
