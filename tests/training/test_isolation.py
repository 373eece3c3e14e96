"""A lane's company is of no account: neither who is beside it, nor where it is, nor what becomes of the others."""

import math

import pytest
import torch
from torch import nn

from hpsearch.executor import Assignment
from hpsearch.objective import Data, Plateau, Step
from hpsearch.trial import EpochReport, RunKey, State
from tests.training.fusing import (
    CNN,
    CNN16,
    CNN32,
    MLP,
    MLP16,
    MLP32,
    Small,
    Transformer16,
    Transformer32,
    Words16,
    Words32,
    alone,
    assert_same,
    assert_same_state,
    assignments,
    is_fused,
    key,
    noise,
    together,
)

LANE = RunKey(100, 105)


def among(task, folder, before, after, optimizer="momentum", until=3):
    """The curve and checkpoint of one run, with so many lanes before and after it."""
    settings = [{"optimizer": optimizer, "dropout": 0.1 * (k % 5), "lr": 0.02 * k} for k in range(before + 1 + after)]
    settings[before] = {"optimizer": optimizer, "dropout": 0.3, "weight_decay": 0.02, "lr": 0.03}
    told = together(task, folder, assignments(settings, until=until, first=100 - before))
    assert is_fused(told, before + 1 + after)
    return told.curve(LANE), told.checkpoint(LANE)


def assert_bit_equal(one, other):
    assert one[0] == other[0]
    for part in ("model", "best", "buffers"):
        assert one[1][part].keys() == other[1][part].keys()
        for name, tensor in one[1][part].items():
            assert torch.equal(tensor, other[1][part][name]), (part, name)


@pytest.mark.parametrize(
    ("task", "optimizer"),
    [
        *[(MLP32, "momentum"), (MLP32, "adam"), (CNN32, "adam"), (Transformer32, "momentum"), (Words32, "rmsprop")],
        *[(MLP16, "momentum"), (CNN16, "adam"), (Transformer16, "momentum"), (Words16, "rmsprop")],
    ],
)
def test_on_a_cpu_the_bits_do_not_depend_on_slot_or_company(tmp_path, task, optimizer):
    base = among(task, tmp_path / "alone", 0, 0, optimizer)
    for before, after in [(1, 0), (0, 6), (6, 0)]:
        assert_bit_equal(among(task, tmp_path / f"{before} {after}", before, after, optimizer), base)


@pytest.mark.parametrize("task", [MLP32, MLP16])
def test_nor_do_they_among_sixty_four(tmp_path, task):
    base = among(task, tmp_path / "alone", 0, 0)
    for before, after in [(0, 63), (63, 0)]:
        assert_bit_equal(among(task, tmp_path / f"{before} {after}", before, after), base)


@pytest.mark.parametrize("task", [MLP32, CNN32])
def test_nor_on_when_others_end_and_begin(tmp_path, task):
    """In the last of three slots, moved to the first when the others end, with others that begin beside it."""
    lengths = [1, 2, 6, 3, 2, 1]
    runs = assignments([{"epochs": n, "dropout": 0.1 * k, "lr": 0.05} for k, n in enumerate(lengths)])
    told = together(task, tmp_path / "among", runs, lanes=3)
    assert is_fused(told)
    for run in (runs[2], runs[5]):
        assert told.curve(run.run) == together(task, tmp_path / "alone", [run]).curve(run.run)


@pytest.mark.parametrize(
    ("optimizer", "bad"), [("sgd", 0), ("momentum", 4), ("nesterov", 2), ("adagrad", 4), ("rmsprop", 0), ("adamw", 2)]
)
def test_a_lane_that_explodes_changes_no_other_by_a_bit(tmp_path, optimizer, bad):
    def trained(name, lr):
        settings = [{"optimizer": optimizer, "lr": 0.01, "dropout": 0.1 * k, "clip": 1.0} for k in range(5)]
        settings[bad]["lr"] = lr
        return together(CNN, tmp_path / name, assignments(settings))

    benign, exploding = trained("benign", 0.01), trained("exploding", 1e308)
    for k in range(5):
        if k != bad:
            assert exploding.curve(key(k)) == benign.curve(key(k))
            assert [r.layers for r in exploding.epochs(key(k))] == [r.layers for r in benign.epochs(key(k))]
            assert exploding.last(key(k)).value == benign.last(key(k)).value
    assert exploding.last(key(bad)).state is State.DIVERGED
    assert benign.last(key(bad)).state is State.COMPLETE


class Poisoned(Small):
    """A run may begin with a weight, a running statistic or a scale that is infinite, or none."""

    def model(self, params):
        model = nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 3))
        parts = {"weight": model[0].weight, "statistic": model[1].running_var, "bias": model[4].bias}
        part = parts[params["where"]].detach()
        part[..., 0] = {"inf": math.inf, "nan": math.nan}.get(params["number"], 0.5)
        return model

    def data(self):
        return MLP.data(self)


@pytest.mark.parametrize(
    ("where", "number"), [("weight", "inf"), ("weight", "nan"), ("statistic", "inf"), ("bias", "nan")]
)
def test_a_lane_with_an_infinite_weight_changes_no_other_by_a_bit(tmp_path, where, number):
    def trained(name, number):
        settings = [{"number": "", "where": where, "lr": 0.1} for _ in range(4)]
        settings[1]["number"] = number
        return together(Poisoned, tmp_path / name, assignments(settings))

    clean, poisoned = trained("clean", ""), trained("poisoned", number)
    assert is_fused(poisoned, 4)
    for k in (0, 2, 3):
        assert poisoned.curve(key(k)) == clean.curve(key(k))
    assert clean.last(key(1)).state is State.COMPLETE
    settings = [{"number": number if k == 1 else "", "where": where, "lr": 0.1} for k in range(4)]
    solo = alone(Poisoned, tmp_path / "solo", assignments(settings))
    # An infinite variance only silences its channel in validation.
    finite = (where, number) == ("statistic", "inf")
    assert poisoned.last(key(1)).state is (State.COMPLETE if finite else State.DIVERGED)
    assert_same(poisoned, solo, [key(k) for k in range(4)])


# Two lanes that differ in one thing differ in what they learn, and each is what it is alone


class Layers(nn.Module):
    """A layer of every kind that has a number of its own, and one of the user's."""

    def __init__(
        self, p=0.2, bn_momentum=0.1, bn_eps=1e-5, ln=1e-5, gn=1e-5, rms=1e-6, slope=0.1, alpha=1.0, scale=1.0
    ):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8, eps=bn_eps, momentum=bn_momentum), nn.LeakyReLU(slope), nn.Dropout(p),
            nn.Linear(8, 8), nn.LayerNorm(8, eps=ln), nn.ELU(alpha), nn.Linear(8, 8), nn.GroupNorm(2, 8, eps=gn),
            nn.Tanh(), nn.RMSNorm(8, eps=rms), nn.Linear(8, 3),
        )  # fmt: skip
        self.scale = scale

    def forward(self, x):
        return self.body(x) * self.scale


class Lifted(MLP):
    epochs = 4

    def model(self, params):
        return Layers(**params)


#: what differs -> (what both have, one lane's, the other's)
DIFFERENCES = {
    "lr": ({}, 0.01, 0.02),
    "momentum": ({}, 0.5, 0.6),
    "betas": ({"optimizer": "adam"}, (0.8, 0.99), (0.9, 0.99)),
    "second beta": ({"optimizer": "adamw"}, (0.9, 0.99), (0.9, 0.999)),
    "weight_decay": ({}, 0.01, 0.02),
    "weight_decay of adamw": ({"optimizer": "adamw", "lr": 0.01}, 0.0, 0.1),
    "l1": ({}, 0.0, 1e-3),
    "clip": ({}, 0.1, 0.2),
    "label_smoothing": ({}, 0.1, 0.2),
    "schedule": ({}, Step(every=1, gamma=0.5), "cosine"),
    "schedule on a plateau": ({}, "constant", Plateau(patience=0, factor=0.5, threshold=0.9)),
    "p": ({}, 0.1, 0.2),
    "p from nothing": ({}, 0.0, 0.3),
    "bn_momentum": ({}, 0.1, 0.2),
    "bn_eps": ({}, 1e-5, 1e-2),
    "ln": ({}, 1e-5, 1e-2),
    "gn": ({}, 1e-5, 1e-2),
    "rms": ({}, 1e-5, 1e-2),
    "slope": ({}, 0.1, 0.2),
    "alpha": ({}, 1.0, 0.5),
    "scale": ({}, 1.0, 0.9),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_lanes_that_differ_in_one_number_differ_in_what_they_learn(tmp_path, name):
    shared, one, other = DIFFERENCES[name]
    which = {"second beta": "betas"}.get(name, name.split()[0])
    settings = [{"lr": 0.05, **shared, which: value} for value in (one, other)]
    runs = [Assignment(run=RunKey(k, 5), params=p, attempt=1, until_epoch=3) for k, p in enumerate(settings)]
    lanes, solo = together(Lifted, tmp_path / "lanes", runs), alone(Lifted, tmp_path / "solo", runs)
    assert is_fused(lanes, 2)
    assert_same(lanes, solo, [run.run for run in runs])
    first, second = (lanes.checkpoint(run.run) for run in runs)
    for run in runs:
        assert_same_state(lanes.checkpoint(run.run), solo.checkpoint(run.run))
    # Batch norm's momentum moves what validation sees, not the weights.
    place = "body.1.running_mean" if name == "bn_momentum" else "body.0.weight"
    assert (first["model"][place] - second["model"][place]).abs().max() > 1e-6
    assert lanes.curve(runs[0].run)[-1]["val_loss"] != lanes.curve(runs[1].run)[-1]["val_loss"]


class Shaped(MLP):
    def model(self, params):
        act = {"relu": nn.ReLU, "tanh": nn.Tanh}[params.get("act", "relu")]()
        width = params.get("width", 6)
        model = nn.Sequential(nn.Linear(5, width), act, nn.Linear(width, 3))
        model.note = params.get("note", 1)
        return model


@pytest.mark.parametrize(("name", "one", "other"), [("act", "relu", "tanh"), ("width", 6, 7), ("note", 1, 2)])
def test_lanes_that_differ_in_anything_else_have_groups_of_their_own(tmp_path, name, one, other):
    runs = assignments([{name: value} for value in (one, other, one, other)])
    told = together(Shaped, tmp_path / "lanes", runs)
    assert [group.runs for group in told.grouped] == [(key(0), key(2)), (key(1), key(3))]
    assert is_fused(told, 2)
    assert_same(told, alone(Shaped, tmp_path / "solo", runs), [run.run for run in runs])


def test_a_dead_lane_is_no_longer_computed(tmp_path):
    """After a lane's end the group computes one lane fewer."""
    widths = []

    class Watching(nn.Linear):
        def forward(self, x):
            if torch._C._functorch.is_batchedtensor(self.weight):
                widths.append(len(torch._C._functorch.get_unwrapped(self.weight)))
            return super().forward(x)

    Watched.make = Watching
    runs = assignments([{"epochs": 1 + k} for k in range(4)])
    told = together(Watched, tmp_path, runs)
    assert is_fused(told, 4)
    # Five batches and a validation an epoch, of the lanes and their companion; before that, the group is tried.
    assert widths[-24:] == [5] * 6 + [4] * 6 + [3] * 6 + [2] * 6
    reported = [len([r for r in sent if isinstance(r, EpochReport)]) for sent in told.sent[1:]]
    assert reported == [4, 3, 2, 1]


class Watched(Small):
    make = nn.Linear

    def model(self, params):
        return nn.Sequential(self.make(5, 3))

    def data(self):
        return Data(noise(5), noise(3))
