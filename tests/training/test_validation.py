"""What lanes are worth on the validation part: the numbers of the same models alone."""

import pytest
import torch

from hpsearch.training.solo import evaluate
from hpsearch.training.validation import Validation
from tests.training.fusing import CNN, MLP
from tests.training.test_step import training_of
from tests.training.test_ways import InPlace, InPlaceByBuffer, LossByHand, ManyMetrics, TensorMetrics


@pytest.mark.parametrize("task", [MLP, CNN, TensorMetrics, ManyMetrics, LossByHand, InPlace, InPlaceByBuffer])
@pytest.mark.parametrize("chunk", [None, 2])
def test_lanes_are_worth_what_their_models_are_alone(task, chunk, monkeypatch):
    monkeypatch.setattr(Validation, "_chunk", lambda self, k: chunk)  # on a GPU lanes are validated a few at a time
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
