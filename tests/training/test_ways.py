"""Everything else that a task may bring: each in lanes as alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpsearch.executor import Assignment
from hpsearch.objective import Data
from hpsearch.trial import RunKey
from tests.training.fusing import (
    CNN,
    MLP,
    Small,
    alone,
    assert_same,
    assert_same_state,
    assignments,
    classes,
    is_fused,
    noise,
    together,
)


class Folded(CNN):
    folds = 3


class Augmented(MLP):
    def augment(self, batch, key):
        scaled = batch * (0.5 + key.uniform(len(batch), 1))
        return scaled + 0.3 * key.uniform(*batch.shape).to(batch.dtype)


class AugmentedByHand(MLP):
    """A number is read out of a tensor, which vmap cannot."""

    def augment(self, batch, key):
        shift = key.uniform(len(batch), 1)
        return batch + shift.to(batch.dtype) * (1.0 if shift.sum().item() > 0 else 2.0)


class Pictures(Small):
    precision = "float64"

    def model(self, params):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3))

    def data(self):
        pictures = (noise(6, 6, 3) * 50 + 100 + 20 * classes()[:, None, None, None]).clamp(0, 255).to(torch.uint8)
        return Data(pictures, classes(), transform=lambda batch: batch.permute(0, 3, 1, 2).double() / 255 - 0.5)


class TransformedByHand(MLP):
    """A number is read out of a batch before a model sees it."""

    def data(self):
        data = MLP.data(self)
        return Data(data.inputs, data.targets, transform=lambda batch: batch / 10 if batch.max() > 4 else batch)


class PlainBytes(MLP):
    def data(self):
        return Data((noise(5) + 2).clamp(0, 255).to(torch.uint8), classes())


class Regression(MLP):
    def model(self, params):
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))

    def data(self):
        return Data(noise(5), noise(2) + noise(5)[:, :1])


class Frozen(Small):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.spare = nn.Linear(5, 5), nn.Linear(2, 2)
            self.table = nn.Linear(5, 5, bias=False)
            self.fixed = nn.Parameter(torch.randn(5), requires_grad=False)
            self.last = nn.Linear(5, 3)
            self.again = nn.Linear(5, 5, bias=False)
            self.again.weight = self.table.weight
            self.first.bias.requires_grad_(False)

        def forward(self, x):
            return self.last(self.again(self.table(self.first(x).tanh()).tanh()) + self.fixed)

    def model(self, params):
        return self.Net()

    def data(self):
        return MLP.data(self)


class ReplacesBuffer(Small):
    """A buffer is put in place of another in the forward, not changed in place."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 3)
            self.register_buffer("mean", torch.zeros(5))

        def forward(self, x):
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            return self.inner(x - self.mean)

    def model(self, params):
        return self.Net()

    def data(self):
        return MLP.data(self)


class ManyMetrics(MLP):
    """Numbers that vmap cannot take: read out of tensors, and by Python."""

    def metrics(self, output, target):
        right = (output.argmax(-1) == target).sum().item()
        return {"right": right / len(target), "largest": float(output.max()), "whole": 3}


class TensorMetrics(MLP):
    def metrics(self, output, target):
        top = output.softmax(-1).max(-1).values
        return {"confidence": top.mean(), "wrong": (output.argmax(-1) != target).float().mean()}


class LossByHand(MLP):
    """A loss that looks at its numbers."""

    def loss(self, output, target):
        loss = functional.cross_entropy(output, target)
        return loss * 2 if loss.item() > 1 else loss


class TwoOutputs(MLP):
    """A model that returns a dict."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 1)

        def forward(self, x):
            h = self.body(x).tanh()
            return {"classes": self.a(h), "size": [self.b(h)[:, 0]]}

    def model(self, params):
        return self.Net()

    def loss(self, output, target):
        return functional.cross_entropy(output["classes"], target) + output["size"][0].square().mean()

    def metrics(self, output, target):
        return {"size": output["size"][0].mean()}


class TwoOutputsLossByHand(TwoOutputs):
    def loss(self, output, target):
        return TwoOutputs.loss(self, output, target) * (1.0 if output["size"][0].sum().item() > 0 else 0.5)


class FewExamples(MLP):
    """More validation rows than a validation batch has, and a batch larger than the data."""

    batch_size = 4096
    split = (0.1, 0.8, 0.1)

    def data(self):
        return Data(noise(5).repeat(12, 1), classes().repeat(12))


class Lazy(MLP):
    def model(self, params):
        return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 3))


class Initialised(CNN):
    init = "kaiming"


class Integers(MLP):
    batch_size = 78

    def model(self, params):
        return nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(12, 3))

    def data(self):
        return Data(torch.arange(130)[:, None].repeat(1, 3) % 20, classes())


class PerPixel(Small):
    """Targets of more than one dimension, some of them not counted, with smoothed labels."""

    label_smoothing = 0.1

    def model(self, params):
        return nn.Conv1d(2, 3, 3, padding=1)

    def data(self):
        targets = (torch.arange(130)[:, None] + torch.arange(6)) % 3
        targets[:, 2] = -100
        return Data(noise(2, 6), targets)

    def metrics(self, output, target):
        return {}


class InPlace(MLP):
    """What is given is changed in place: a batch by its transform and by the forward, targets by the loss."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 3)

        def forward(self, x):
            x -= 0.5
            x /= 2
            return self.inner(x)

    def model(self, params):
        return self.Net()

    def data(self):
        data = MLP.data(self)
        return Data(data.inputs, data.targets, transform=lambda batch: batch.add_(0.25))

    def loss(self, output, target):
        return functional.cross_entropy(output, target.add_(1).remainder_(3))


class OutOfPlace(InPlace):
    """The same, with nothing changed but what is its own."""

    class Net(InPlace.Net):
        def forward(self, x):
            return self.inner((x - 0.5) / 2)

    def data(self):
        data = MLP.data(self)
        return Data(data.inputs, data.targets, transform=lambda batch: batch + 0.25)

    def loss(self, output, target):
        return functional.cross_entropy(output, (target + 1) % 3)

    def metrics(self, output, target):
        return InPlace.metrics(self, output, (target + 1) % 3)  # the loss comes first


class InPlaceByHand(InPlace):
    """The same, with a loss and a metric that take the lanes one by one."""

    def loss(self, output, target):
        return LossByHand.loss(self, output, target.add_(1).remainder_(3))


class InPlaceByBuffer(MLP):
    """A batch is changed in place by numbers that are a lane's own."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 3)
            self.register_buffer("mean", torch.rand(5))

        def forward(self, x):
            return self.inner(x.sub_(self.mean))

    def model(self, params):
        return self.Net()


class FillsZeros(MLP):
    """A tensor like the batch is filled with numbers that are a lane's own."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 3)

        def forward(self, x):
            filled = x.new_zeros(len(x), 4)
            filled[:, :3] = self.inner(x)
            return filled

    def model(self, params):
        return self.Net()


TASKS = [
    TransformedByHand, InPlace, InPlaceByHand, InPlaceByBuffer, FillsZeros, Folded, Augmented, AugmentedByHand,
    Pictures, PlainBytes, Regression, Frozen, ReplacesBuffer, ManyMetrics, TensorMetrics, LossByHand, TwoOutputs,
    TwoOutputsLossByHand, FewExamples, Lazy, Initialised, Integers, PerPixel,
]  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_lanes_are_the_runs_alone(tmp_path, task):
    runs = assignments([{"lr": 0.05 * (k + 1), "weight_decay": 0.01} for k in range(3)], until=3)
    lanes, solo = together(task, tmp_path / "lanes", runs), alone(task, tmp_path / "solo", runs)
    assert is_fused(lanes, 3), lanes.grouped
    assert_same(lanes, solo, [run.run for run in runs])
    for run in runs:
        assert_same_state(lanes.checkpoint(run.run), solo.checkpoint(run.run))
    curves = [lanes.curve(run.run) for run in runs]
    assert curves[0] != curves[1]


def test_what_a_task_changes_in_place_is_a_copy_in_every_epoch_and_run(tmp_path):
    """In one worker, which keeps the data: the same run three times, and in lanes."""
    runs = [Assignment(run=RunKey(k, 5), params={"lr": 0.05}, attempt=1) for k in range(3)]
    expected = alone(OutOfPlace, tmp_path / "expected", runs[:1]).curve(runs[0].run)
    one, lanes = alone(InPlace, tmp_path / "solo", runs), together(InPlace, tmp_path / "lanes", runs)
    assert is_fused(lanes, 3), lanes.grouped
    for run in runs:
        assert one.curve(run.run) == expected
        for ours, theirs in zip(lanes.curve(run.run), expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9)


def test_tied_frozen_and_unused_weights_stay_what_they_are(tmp_path):
    runs = assignments([{"lr": 0.1}] * 2, until=2)
    lanes = together(Frozen, tmp_path, runs)
    for run in runs:
        torch.manual_seed(run.run.seed)
        made, state = Frozen.Net().double().state_dict(), lanes.checkpoint(run.run)["model"]
        assert torch.equal(state["table.weight"], state["again.weight"])
        for name in ("fixed", "first.bias", "spare.weight"):
            assert torch.equal(state[name], made[name])
        assert not torch.equal(state["table.weight"], made["table.weight"])


def test_augmentation_depends_on_the_runs_seed_and_epoch(tmp_path):
    runs = assignments([{"lr": 0.0, "dropout": 0.0}] * 2)
    lanes = together(Augmented, tmp_path, runs)
    losses = [metrics["train_loss"] for run in runs for metrics in lanes.curve(run.run)]
    assert len(set(losses)) == len(losses)


def test_every_fold_is_another_training(tmp_path):
    runs = assignments([{"lr": 0.05}] * 2, until=2)
    lanes = together(Folded, tmp_path, runs)
    states = [lanes.checkpoint(run.run)["model"]["0.weight"] for run in runs]
    assert not torch.equal(*states)
