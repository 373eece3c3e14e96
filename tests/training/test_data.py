"""The split: whole, disjoint, stratified, and without the test part."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from hpsearch.errors import ObjectiveError
from hpsearch.objective import Data, TrainingTask
from hpsearch.training.data import prepare, sealed_test
from hpsearch.training.guard import seed_everything
from hpsearch.training.recipe import ModelParams
from hpsearch.trial import State
from tests.training.fusing import MLP, alone, assignments, together


class Base(TrainingTask):
    targets = torch.arange(1000) % 10

    def model(self, params): ...

    def data(self):
        return Data(torch.arange(len(self.targets))[:, None], self.targets)


def rows(split):
    return set(split.inputs[:, 0].tolist())


def test_the_parts_are_60_20_20_disjoint_and_whole():
    task = Base()
    (parts,) = prepare(task, 0, "cpu")
    three = [rows(parts.train), rows(parts.validation), rows(sealed_test(task, 0, "cpu")[0])]
    assert [len(part) for part in three] == [600, 200, 200]
    assert set.union(*three) == set(range(1000))


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_keep_their_proportions(seed):
    class Skewed(Base):
        targets = torch.tensor([0] * 700 + [1] * 253 + [2] * 47)

    task = Skewed()
    (parts,) = prepare(task, seed, "cpu")
    for split, share in [(parts.train, 0.6), (parts.validation, 0.2), (sealed_test(task, seed, "cpu")[0], 0.2)]:
        counts = torch.bincount(split.targets, minlength=3)
        for count, total in zip(counts.tolist(), [700, 253, 47], strict=True):
            assert abs(count - share * total) <= 2


def test_another_seed_gives_another_split_and_the_same_the_same():
    assert rows(prepare(Base(), 0, "cpu")[0].train) == rows(prepare(Base(), 0, "cpu")[0].train)
    common = rows(prepare(Base(), 0, "cpu")[0].train) & rows(prepare(Base(), 1, "cpu")[0].train)
    assert 300 < len(common) < 420  # 360 expected of independent splits


def test_an_official_test_part_leaves_train_and_validation_in_their_proportion():
    class Official(Base):
        def data(self):
            data = super().data()
            return Data(data.inputs, data.targets, torch.tensor([[-1], [-2]]), torch.tensor([0, 1]))

    task = Official()
    (parts,) = prepare(task, 0, "cpu")
    assert (len(rows(parts.train)), len(rows(parts.validation))) == (750, 250)
    assert rows(sealed_test(task, 0, "cpu")[0]) == {-1, -2}


def test_folds_cover_train_and_validation_once_and_never_the_test_part():
    class Folded(Base):
        folds = 5

    task = Folded()
    pairs = prepare(task, 0, "cpu")
    held_out = [rows(pair.validation) for pair in pairs]
    assert [len(part) for part in held_out] == [160] * 5
    assert len(set.union(*held_out)) == 800
    for pair, part in zip(pairs, held_out, strict=True):
        assert rows(pair.train) == set.union(*held_out) - part
        assert torch.bincount(pair.validation.targets).tolist() == pytest.approx([16] * 10, abs=2)
    assert not set.union(*held_out) & rows(sealed_test(task, 0, "cpu")[0])


def test_dtypes():
    class Bytes(Base):
        precision = "float64"

        def data(self):
            return Data(torch.zeros(50, 2, dtype=torch.uint8), torch.arange(50, dtype=torch.uint8) % 2)

    class Floats(Bytes):
        def data(self):
            return Data(torch.zeros(50, 2), torch.zeros(50, 1))

    (parts,) = prepare(Bytes(), 0, "cpu")
    assert (parts.train.inputs.dtype, parts.train.targets.dtype) == (torch.uint8, torch.int64)
    (parts,) = prepare(Floats(), 0, "cpu")
    assert (parts.train.inputs.dtype, parts.train.targets.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"data": lambda self: None}, "must return hpsearch.Data"),
        ({"data": lambda self: Data(np.zeros((9, 1)), torch.zeros(9))}, "inputs must be one tensor, not ndarray"),
        ({"data": lambda self: Data(torch.zeros(9, 1), [0] * 9)}, "targets must be one tensor, not list"),
        ({"data": lambda self: Data(torch.zeros(3, 1), torch.zeros(4))}, "3 inputs, but 4 targets"),
        ({"data": lambda self: Data(torch.zeros(3, 1), torch.zeros(3), torch.zeros(1, 1))}, "go together"),
        ({"data": lambda self: Data(torch.zeros(1, 1), torch.zeros(1))}, "too few"),
        ({"split": (0.6, 0.2, 0.3)}, "sum to 1"),
        ({"split": (1.0, 0.0, 0.0)}, "above 0"),
        ({"folds": 1}, "folds: must be from 2"),
    ],
)
def test_data_that_makes_no_sense_is_named(attributes, words):
    with pytest.raises(ObjectiveError, match=words):
        prepare(type("Wrong", (Base,), attributes)(), 0, "cpu")


class Named(Base):
    loads = 0

    def data(self):
        type(self).loads += 1
        return Data(torch.full((100, 1), self.params["offset"]), torch.arange(100) % 10)


def test_data_is_made_anew_when_a_param_it_reads_changes_and_only_then():
    task = Named()
    first = ModelParams({"offset": 1, "dropout": 0.1, "lr": 0.1})
    assert prepare(task, 0, "cpu", first)[0].train.inputs[0].item() == 1
    assert first.read == {"offset": 1}
    again = ModelParams({"offset": 1, "dropout": 0.2, "lr": 0.2})
    prepare(task, 0, "cpu", again)
    assert Named.loads == 1
    assert again.read == {"offset": 1}
    assert prepare(task, 0, "cpu", ModelParams({"offset": 2}))[0].train.inputs[0].item() == 2
    assert sealed_test(task, 0, "cpu", ModelParams({"offset": 3}))[0].inputs[0].item() == 3
    with pytest.raises(KeyError, match="no hyperparameter 'offset'"):
        prepare(task, 0, "cpu", ModelParams({"dropout": 0.1}))


class Drawn(Base):
    """Data that nobody has seeded."""

    def data(self):
        numbers = [random.random(), np.random.rand(), torch.rand(()).item()]
        return Data(torch.tensor(numbers).expand(100, 3), torch.arange(100) % 10)


def test_data_that_draws_is_the_same_in_every_worker_and_for_the_sealed_test():
    def worker(before):
        seed_everything(before)
        task = Drawn()
        drawn = prepare(task, 4, "cpu")[0].train.inputs[0].tolist()
        assert sealed_test(task, 4, "cpu")[0].inputs[0].tolist() == drawn
        return drawn, [random.random(), np.random.rand(), torch.rand(()).item()]

    (one, after), (other, later) = worker(1), worker(2)
    assert one == other
    assert prepare(Drawn(), 5, "cpu")[0].train.inputs[0].tolist() != one
    seed_everything(1)
    assert after == [random.random(), np.random.rand(), torch.rand(()).item()] != later  # as if nothing had been drawn


class InLoss(MLP):
    def model(self, params):
        return nn.Linear(5, params["wide"])

    def loss(self, output, target):
        return MLP.loss(self, output, target) * self.params["scale"]


class InModel(InLoss):
    def model(self, params):
        return nn.Linear(5, self.params.get("wide", 3))


class InAugment(InLoss):
    loss = MLP.loss

    def augment(self, batch, key):
        return batch * self.params["scale"]


class InTransform(InLoss):
    loss = MLP.loss

    def data(self):
        data = MLP.data(self)
        return Data(data.inputs, data.targets, transform=lambda batch: batch * self.params["scale"])


@pytest.mark.parametrize("task", [InLoss, InModel, InAugment, InTransform])
def test_params_are_for_data_alone_since_the_data_are_kept_for_other_runs(tmp_path, task):
    runs = assignments([{"wide": 3, "lr": lr} for lr in (0.1, 0.2)])
    lanes, solo = together(task, tmp_path / "lanes", runs), alone(task, tmp_path / "solo", runs)
    for told in (lanes, solo):
        for run in runs:
            end = told.last(run.run)
            assert (end.state, end.reason) == (State.FAILED, "study")
            assert f"{task.__name__}.params: is there for data alone" in end.error
            assert "hint: model has the hyperparameters as its argument" in end.error
    reasons = {grouped.reason for grouped in lanes.grouped}
    assert all(reason == "" or f"{task.__name__}.params: is there for data alone" in reason for reason in reasons)


class Scaled(MLP):
    """Its data leaves in the task what metrics need: of the run's own data, whose are the last that were made."""

    def data(self):
        self.unit = self.params["unit"]
        data = MLP.data(self)
        return Data(data.inputs / self.unit, data.targets)

    def metrics(self, output, target):
        return {"unit": torch.tensor(float(self.unit))}


def test_what_data_leaves_in_the_task_is_that_of_the_runs_own_data(tmp_path):
    runs = assignments([{"unit": unit, "epochs": 1} for unit in (1, 2, 1, 2)])
    for told in (alone(Scaled, tmp_path / "alone", runs), together(Scaled, tmp_path / "lanes", runs)):
        assert [told.epochs(run.run)[0].metrics["val_unit"] for run in runs] == [1, 2, 1, 2]
