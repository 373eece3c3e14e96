"""What runs share beside their models is not shared silently."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hpsearch.training.shared import Shared
from tests.training.fusing import MLP, Later, alone, assert_same, assignments, is_fused, keys, together


class Lazy(MLP):
    """Keeps in the task what the first model needs; later ones find it."""

    table = None

    def model(self, params):
        if self.table is None:
            type(self).table = torch.ones(3, dtype=torch.float64)
        return MLP.model(self, params)

    def loss(self, output, target):
        return nn.functional.cross_entropy(output, target, weight=self.table)


def test_what_the_first_model_leaves_for_all_parts_nobody(tmp_path):
    runs = assignments([{"lr": 0.05}] * 3)
    told = together(Lazy, tmp_path / "lanes", runs)
    assert is_fused(told, 3)
    assert_same(told, alone(Lazy, tmp_path / "solo", runs), keys(runs))


class Leaky(MLP):
    """Keeps a param of the last model where all read it."""

    scale = 1.0

    def model(self, params):
        type(self).scale = params["scale"]
        return MLP.model(self, params)

    def loss(self, output, target):
        return nn.functional.cross_entropy(self.scale * output, target)


def test_a_later_run_that_changes_what_all_share_ends_the_group(tmp_path):
    """Its lanes go on alone, each with its own number, from where they stand; so does what waits."""
    runs = assignments([{"scale": scale, "epochs": 5} for scale in (1.0, 1.0, 1.0, 3.0, 1.0)])
    told = together(Leaky, tmp_path / "lanes", runs[:3], more=Later([], runs[3:]), lanes=2)
    assert_same(told, alone(Leaky, tmp_path / "solo", runs), keys(runs))
    assert told.grouped[0].engine == "vmap"
    assert told.grouped[-1].engine == "solo"
    assert "changes what all runs share (Leaky.scale)" in told.grouped[-1].reason
    assert {told.last(run).engine for run in keys(runs)} == {"solo, cpu"}
    again = together(Leaky, tmp_path / "again", assignments([{"scale": 1.0}] * 2, first=9))
    assert is_fused(again, 2)


class Config:
    __slots__ = ("scale",)


class Slotted(MLP):
    def __init__(self):
        self.config = Config()


def test_an_object_of_the_tasks_file_is_what_its_slots_hold():
    task = Slotted()
    before = Shared(task)
    assert before.changed(Shared(task)) == []
    task.config.scale = 2.0
    assert before.changed(Shared(task)) == ["Slotted.config"]


class Ambient(MLP):
    """Its loss reads a param from where nobody looks."""

    def model(self, params):
        os.environ["HPSEARCH_TEST_KIND"] = params["kind"]
        return MLP.model(self, params)

    def loss(self, output, target):
        smoothing = 0.3 if os.environ["HPSEARCH_TEST_KIND"] == "smooth" else 0.0
        return nn.functional.cross_entropy(output, target, label_smoothing=smoothing)


def test_two_values_of_every_param_are_tried(tmp_path, monkeypatch):
    """The first and the last lane agree in it."""
    monkeypatch.setenv("HPSEARCH_TEST_KIND", "")
    runs = assignments([{"kind": kind} for kind in ("plain", "plain", "smooth", "plain")])
    told = together(Ambient, tmp_path / "lanes", runs)
    assert_same(told, alone(Ambient, tmp_path / "solo", runs), keys(runs))
    assert {told.last(run).engine for run in keys(runs)} == {"solo, cpu"}


class Busy(MLP):
    def __init__(self):
        self.steps, self.seen, self.cache, self.mean = 0, [], {}, torch.zeros(2)
        self.options, self.order = SimpleNamespace(scale=1.0), np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("steps", lambda task: setattr(task, "steps", 1)),
        ("seen", lambda task: task.seen.append(1)),
        ("mean", lambda task: task.mean.add_(1)),
        ("options", lambda task: setattr(task.options, "scale", 2.0)),
        ("order", lambda task: task.order.random()),
    ],
)
def test_what_training_changes_is_told_and_put_back(name, use):
    task = Busy()
    before = Shared(task)
    use(task)
    assert before.used(Shared(task)) == [f"Busy.{name}"]
    before.put_back()
    assert before.changed(Shared(task)) == []


def test_a_cache_may_be_filled_but_not_with_what_is_the_lanes():
    task = Busy()
    before = Shared(task)
    task.cache[3] = torch.ones(3)
    task.further = {"a": 1}
    assert before.used(Shared(task)) == []
    torch.func.vmap(lambda x: task.cache.update({4: x * 2}) or x)(torch.ones(2, 4))
    assert before.used(Shared(task)) == ["Busy.cache"]
    before.put_back()
    assert (task.cache, hasattr(task, "further")) == ({}, False)


class Tasks(Busy):
    """A number of the class that the task's own hides."""

    calls = 0


def test_a_number_of_the_task_is_not_hidden_by_that_of_its_class():
    task = Tasks()
    task.calls = 0
    before = Shared(task)
    task.calls += 1
    assert before.used(Shared(task)) == ["Tasks.calls"]
