"""Whether lanes can be trained together: found out before they begin, and nothing is changed by finding out."""

import pytest
import torch
from torch import nn

from hpsearch.training.build import build
from hpsearch.training.data import prepare
from hpsearch.training.fused import FusedTraining
from hpsearch.training.lane import Lane
from hpsearch.training.precision import dtype_of
from hpsearch.training.probe import probe
from hpsearch.training.recipe import ModelParams, resolve
from hpsearch.training.schedule import Rate
from hpsearch.training.structure import CannotFuse, structure_of
from hpsearch.trial import State
from tests.training.fusing import (
    CNN,
    CNN16,
    MLP,
    MLP16,
    Small,
    alone,
    assert_same,
    assignments,
    is_fused,
    key,
    together,
)
from tests.training.test_ways import Augmented, AugmentedByHand, LossByHand, ManyMetrics, TransformedByHand, TwoOutputs


def lanes_of(task, count=3):
    """A training with so many lanes, and the models they were made of."""
    task, parts = task(), prepare(task(), 0, "cpu")[0]
    recipe, models = resolve(task, {}), []
    for k in range(count):
        models.append(build(task, ModelParams({}), parts, k).to(dtype_of(task)))
    training = FusedTraining(task, parts, recipe, models[0], count)
    for k, model in enumerate(models):
        training.add(
            Lane(recipe, k, Rate(recipe.schedule, recipe.lr, recipe.epochs)), model, structure_of(model).floats
        )
    return training, models


def everything(training, models):
    rows = [training.stack.flat, *training.stack.rest.values(), *training.buffers.values()]
    return [
        t.clone() for t in [*(r[: len(models)] for r in rows), *(x for m in models for x in m.state_dict().values())]
    ]


@pytest.mark.parametrize("task", [MLP, CNN, CNN16])
@pytest.mark.parametrize("count", [1, 3])
def test_a_trial_step_changes_nothing(task, count):
    training, models = lanes_of(task, count)
    before, steps = everything(training, models), [lane.steps for lane in training.lanes]
    probe(training, dict(enumerate(models)))
    for a, b in zip(everything(training, models), before, strict=True):
        assert torch.equal(a, b)
    assert [lane.steps for lane in training.lanes] == steps
    assert training.way.dropouts == 1


@pytest.mark.parametrize(
    ("task", "augment", "loss", "metrics"),
    [
        (MLP, True, True, True),
        (Augmented, True, True, True),
        (AugmentedByHand, False, True, True),
        (TransformedByHand, False, True, True),
        (LossByHand, True, False, False),
        (TwoOutputs, True, True, True),
        (ManyMetrics, True, True, False),
    ],
)
def test_what_vmap_cannot_take_is_done_lane_by_lane(task, augment, loss, metrics):
    training, models = lanes_of(task)
    probe(training, {0: models[0], 2: models[2]})
    assert (training.way.augment, training.way.loss, training.way.metrics) == (augment, loss, metrics)


@pytest.mark.parametrize(("task", "by"), [(MLP, 0.1), (MLP16, 2.0)])
def test_a_model_with_other_weights_than_its_lane_is_noticed(task, by):
    training, models = lanes_of(task)
    with torch.no_grad():
        models[2][0].weight[0, 0] += by
    with pytest.raises(CannotFuse, match=r"a lane's (loss|gradient) is not that of the model alone"):
        probe(training, {0: models[0], 2: models[2]})


class Doubled(torch.autograd.Function):
    """2 x, with a rule for vmap that a user got wrong: what is right for the first lane is taken for all."""

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, in_dims, x):
        return FirstOnly.apply(x), 0


class FirstOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        wrong = 2 * g
        wrong[1:] = g[1:]
        return wrong


class WrongRule(Small):
    class Net(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return Doubled.apply(y) if torch._C._functorch.is_batchedtensor(y) else 2 * y

    def model(self, params):
        return self.Net(5, 3)

    def data(self):
        return MLP.data(self)


@pytest.mark.parametrize("first", [1, 2, 3])
def test_gradients_that_are_right_in_the_first_lane_only_are_noticed_whoever_begins(tmp_path, first):
    runs = assignments([{"lr": 0.1}] * 3)
    later = [runs[first:]]
    told = together(WrongRule, tmp_path / "a", runs[:first], more=lambda: later.pop() if later else [])
    assert_same(told, alone(WrongRule, tmp_path / "b", runs), [run.run for run in runs])
    assert {group.engine for group in told.grouped} == {"solo"}
    assert "a lane's gradient is not that of the model alone" in told.grouped[0].reason


class Tempered(CNN):
    """Running statistics, and a float that lanes cannot differ in: they are tried together, then parted."""

    class Net(nn.Module):
        def __init__(self, temperature):
            super().__init__()
            self.temperature, self.body = temperature, CNN.model(None, {"dropout": 0.1})

        def forward(self, x):
            return self.body(x) / (self.temperature if self.temperature > 1 else 1.0)

    def model(self, params):
        return self.Net(params["temperature"])


def test_running_statistics_are_not_moved_by_having_been_tried(tmp_path):
    runs = assignments([{"temperature": t, "lr": 0.05} for t in (0.5, 2.0, 0.5, 3.0)])
    told = together(Tempered, tmp_path / "lanes", runs)
    assert is_fused(told)
    assert [group.lanes for group in told.grouped] == [2, 1, 1]
    assert_same(told, alone(Tempered, tmp_path / "solo", runs), [run.run for run in runs])


def test_nor_by_measuring_how_many_lanes_pay(tmp_path):
    runs = assignments([{"dropout": 0.05 * k, "epochs": 2} for k in range(12)])
    told = together(CNN, tmp_path / "lanes", runs, fixed_lanes=False)
    assert_same(told, alone(CNN, tmp_path / "solo", runs), [run.run for run in runs])


class OneByOne(Small):
    """The last batch of the 78 is a single example, which BatchNorm does not take."""

    batch_size = 11

    def model(self, params):
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    def data(self):
        return MLP.data(self)


def test_what_goes_wrong_after_the_first_batch_is_said_as_alone(tmp_path):
    runs = assignments([{"lr": 0.1}] * 2)
    told, solo = together(OneByOne, tmp_path / "lanes", runs), alone(OneByOne, tmp_path / "solo", runs)
    for run in (key(0), key(1)):
        assert told.last(run).state is State.FAILED
        assert told.last(run).error == solo.last(run).error
        assert "more than 1 value per channel" in told.last(run).error
