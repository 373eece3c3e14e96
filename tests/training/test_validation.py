"""What lanes are worth on the validation part: the numbers of the same models alone."""

import pytest
import torch

from hpsearch.errors import ObjectiveError
from hpsearch.training.solo import evaluate
from hpsearch.training.validation import Validation
from tests.training.fusing import CNN, MLP, alone, assert_same, assignments, is_fused, keys, together
from tests.training.test_step import training_of
from tests.training.test_ways import InPlace, InPlaceByBuffer, LossByHand, ManyMetrics, TensorMetrics


@pytest.mark.parametrize("task", [MLP, CNN, TensorMetrics, ManyMetrics, LossByHand, InPlace, InPlaceByBuffer])
@pytest.mark.parametrize("chunk", [None, 2])
def test_lanes_are_worth_what_their_models_are_alone(task, chunk, monkeypatch):
    monkeypatch.setattr(
        Validation, "_chunk", lambda self, k, size: chunk
    )  # on a GPU lanes are validated a few at a time
    training = training_of(task())
    training.run_epoch()
    split = training.parts.validation
    tables = training.evaluate(split, [0, 2])
    assert list(tables) == [0, 2]
    for k, table in tables.items():
        model = training.stack.form
        model.load_state_dict(training.stack.state(k))
        alone = evaluate(training.task, model, split, training.prepared_for_validation)
        assert table == pytest.approx(alone, rel=1e-9)
    assert not torch.equal(training.stack.flat[0], training.stack.flat[2])


class Rows(MLP):
    """Its metric says how many examples it was given: a mean over batches of a thing that is no mean."""

    def metrics(self, output, target):
        return {"rows": output.new_tensor(len(output))}


class TenAtATime(Rows):
    validation_batch = 10


class AllAtOnce(Rows):
    validation_batch = None


@pytest.mark.parametrize(("task", "rows"), [(TenAtATime, (10 * 10 + 10 * 10 + 6 * 6) / 26), (AllAtOnce, 26)])
def test_a_task_says_how_many_examples_its_metrics_see(task, rows, tmp_path):
    runs = assignments([{"lr": 0.01, "epochs": 2}, {"lr": 0.02, "epochs": 2}])
    told, plain = together(task, tmp_path / "lanes", runs), alone(task, tmp_path / "alone", runs)
    assert is_fused(told, 2)
    assert_same(told, plain, keys(runs))
    assert [told.epochs(run.run)[1].metrics["val_rows"] for run in runs] == pytest.approx([rows, rows])


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "all"])
def test_a_size_of_a_validation_batch_that_is_none_is_named(size):
    task = type("Odd", (MLP,), {"validation_batch": size})()
    training = training_of(MLP())
    with pytest.raises(ObjectiveError, match="validation_batch: must be a whole number above 0 or None"):
        evaluate(task, training.stack.form, training.parts.validation, training.prepared_for_validation)


def test_outputs_that_would_be_held_against_all_targets_are_an_error():
    with pytest.raises(ObjectiveError, match=r"outputs are \(4, 1\), targets \(4,\)"):
        MLP().loss(torch.zeros(4, 1), torch.zeros(4))
    assert MLP().loss(torch.zeros(4), torch.ones(4)) == 1
