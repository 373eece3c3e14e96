"""What a model is beside its weights: equal for two of one making, different for every other difference."""

import collections
import enum
import functools
import itertools
import logging
import random
import re
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpsearch.training.structure import attributes_of, structure_of


class Net(nn.Module):
    """Holds anything."""

    def __init__(self, held=None, **more):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1))
        self.held = held
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.inner(x)


class Shade(enum.Enum):
    LIGHT = 1
    DARK = 2


@dataclass
class Config:
    width: int
    slope: float


class Slotted:
    __slots__ = ("__dict__", "x")

    def __init__(self, x):
        self.x = x


class Named(dict):
    """A dict with an attribute."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale


class Listed(list):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale


def add(x, y=1):
    return x + y


def closure(n):
    return lambda x: x + n


def default(n):
    return lambda x, y=n: x + y


def keyword(n):
    def act(x, *, y=n):
        return x + y

    return act


def nested(n):
    def outer(x):
        def inner(y):
            return y * n

        return inner(x)

    return outer


def made_class(n):
    class Made(nn.Module):
        factor = n

        def forward(self, x):
            return x * self.factor

    return Made()


def made_property(n):
    class Made:
        @property
        def factor(self):
            return n

    return Made()


def hooked(n):
    net = Net()
    net.inner.register_forward_hook(lambda module, inputs, output: output + n)
    return net


def looped(n):
    things = [n]
    things.append(things)
    return things


def attributed(n):
    def act(x):
        return x * act.scale

    act.scale = n
    return act


class SlottedNet(Net):
    __slots__ = ("kind", "scale")


def foreign(slope=0.1, seed=0, kind=nn.LeakyReLU):
    """A module in a plain list: torch does not know of its parameters."""
    torch.manual_seed(seed)
    return [nn.Linear(2, 2), kind(slope)]


def generator(seed):
    return random.Random(seed)


#: (what is held, the same made again, something else)
HELD = {
    "int": (lambda n: n, 1, 2),
    "bool and int": (lambda n: n, True, 1),
    "str": (lambda n: n, "relu", "gelu"),
    "none": (lambda n: n, None, 0),
    "bytes": (lambda n: n, b"a", b"b"),
    "complex": (lambda n: n, 1j, 2j),
    "float in a list": (lambda n: [n], 0.1, 0.2),
    "numpy float": (np.float64, 0.1, 0.2),
    "numpy int": (np.int64, 1, 2),
    "list": (lambda n: [n, 2], 1, 3),
    "list and tuple": (lambda n: n((1, 2)), list, tuple),
    "dict": (lambda n: {"a": n}, 1, 2),
    "dict's key": (lambda n: {n: 1}, "a", "b"),
    "ordered dict": (lambda n: collections.OrderedDict(a=n), 1, 2),
    "default dict": (lambda n: collections.defaultdict(lambda: n), 1, 2),
    "deque": (lambda n: collections.deque([n]), 1, 2),
    "set": (lambda n: {"x", "y", n}, "z", "w"),
    "frozen set": (lambda n: frozenset([n, 2]), 1, 3),
    "nested": (lambda n: {"a": [{"b": (n,)}]}, 1, 2),
    "itself": (looped, 1, 2),
    "slice": (lambda n: slice(n), 1, 2),
    "range": (range, 3, 4),
    "dtype": (lambda n: n, torch.float32, torch.float64),
    "size": (lambda n: torch.Size([n]), 1, 2),
    "device": (torch.device, "cpu", "meta"),
    "module": (lambda n: n, torch, np),
    "enum": (lambda n: n, Shade.LIGHT, Shade.DARK),
    "class": (lambda n: n, nn.ReLU, nn.GELU),
    "dataclass": (lambda n: Config(n, 0.5), 1, 2),
    "float in a dataclass": (lambda n: Config(1, n), 0.5, 0.6),
    "slots": (Slotted, 1, 2),
    "a dict's attribute": (Named, 1, 2),
    "a list's attribute": (Listed, 1, 2),
    "tensor": (lambda n: torch.tensor([1.0, n]), 1, 2),
    "tensor's dtype": (lambda n: torch.zeros(2, dtype=n), torch.float32, torch.float64),
    "array": (lambda n: np.array([1, n]), 1, 2),
    "array's shape": (np.zeros, (2, 3), (3, 2)),
    "function": (lambda n: n, torch.relu, torch.tanh),
    "own function": (lambda n: n, add, closure),
    "builtin method": (lambda n: getattr("a-b", n), "split", "strip"),
    "method of an object": (lambda n: [n].count, 1, 2),
    "closure": (closure, 1, 2),
    "closure over a float": (closure, 0.1, 0.2),
    "default": (default, 1, 2),
    "keyword": (keyword, 1, 2),
    "nested function": (nested, 1, 2),
    "partial": (lambda n: functools.partial(add, y=n), 1, 2),
    "partial of a closure": (lambda n: functools.partial(closure(n), 3), 1, 2),
    "method": (lambda n: Config(n, 0.5).__eq__, 1, 2),
    "a closure as a method": (lambda n: types.MethodType(closure(n), 3), 1, 2),
    "a function's attribute": (attributed, 1, 2),
    "logger": (logging.getLogger, "a", "b"),
    "path": (Path, "a", "b"),
    "pattern": (re.compile, "a", "b"),
    "pattern's flags": (lambda n: re.compile("a", n), 0, re.IGNORECASE),
    "code": (lambda n: eval(f"lambda x: x + {n}"), 1, 2),
    "operation": (lambda n: eval(f"lambda x: x {n} 2"), "+", "*"),
    "a class made in a function": (made_class, 1, 2),
    "a property made in a function": (made_property, 1, 2),
    "modules in a list": (lambda n: foreign(seed=n), 1, 2),
    "a slope in a list": (lambda n: foreign(slope=n), 0.1, 0.2),
    "kinds in a list": (lambda n: foreign(kind=n), nn.LeakyReLU, nn.ELU),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_is_compared_whole(name):
    make, one, other = HELD[name]
    first, again, different = (structure_of(Net(make(n))) for n in (one, one, other))
    assert first.opaque == again.opaque == ""
    assert first.key == again.key
    assert first.key != different.key
    assert hash(first.key) == hash(again.key)


@pytest.mark.parametrize(
    "make",
    [lambda: (n for n in [1]), lambda: itertools.count(), lambda: torch.Generator(), lambda: random.Random(3),
     lambda: np.random.default_rng(3), lambda: object(), lambda: iter([1]), lambda: random.Random(3).random],
    ids=["generator", "counter", "torch generator", "random", "numpy generator", "object", "iterator", "bound random"],
)  # fmt: skip
@pytest.mark.parametrize("hold", [lambda thing: thing, lambda thing: [{"a": thing}], lambda thing: lambda: thing])
def test_what_cannot_be_compared_is_said(make, hold):
    structure = structure_of(Net(hold(make())))
    assert "cannot be compared between runs" in structure.opaque
    assert structure.opaque.startswith("held")


def test_hooks_belong_to_a_model_whatever_came_before_them():
    first = structure_of(hooked(1))
    Net().register_forward_hook(closure(7)).remove()  # moves torch's counter of hooks
    assert structure_of(hooked(1)).key == first.key
    assert structure_of(hooked(2)).key != first.key
    assert structure_of(Net()).key != first.key


def test_slots_of_modules_are_compared_and_no_lane_can_have_its_own():
    first, again, other = (structure_of(SlottedNet(kind="a", scale=scale)) for scale in (0.1, 0.1, 0.2))
    assert first.key == again.key
    assert first.key != other.key
    assert first.floats.keys() == structure_of(Net()).floats.keys()
    assert first.key != structure_of(SlottedNet(kind="b", scale=0.1)).key
    model = SlottedNet(kind="a", scale=0.1)
    before = attributes_of(model)
    model.kind = "b"
    assert attributes_of(model) != before


def test_floats_of_modules_are_apart_and_by_place():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1), nn.Sequential(nn.BatchNorm1d(3, eps=1e-3), nn.LeakyReLU()))
    structure = structure_of(model)
    assert structure.floats == {("1", "p"): 0.1, ("2.0", "eps"): 1e-3, ("2.0", "momentum"): 0.1,
                                ("2.1", "negative_slope"): 0.01}  # fmt: skip
    other = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.7), nn.Sequential(nn.BatchNorm1d(3), nn.LeakyReLU(0.2)))
    assert structure_of(other).key == structure.key
    assert structure_of(other).floats != structure.floats


def test_floats_have_the_place_of_the_module_also_where_a_list_has_it_too():
    def net(p):
        layers = [nn.Linear(2, 2), nn.Dropout(p)]
        return Net(layers, a_list_before=layers[1:], zz=nn.ModuleList(layers))

    first, other = structure_of(net(0.1)), structure_of(net(0.2))
    assert first.key == other.key
    modules = dict(net(0.1).named_modules())
    assert {place for place in first.floats if place[1] == "p"} == {("inner.1", "p"), ("zz.1", "p")}
    assert all(path in modules for path, _ in first.floats)


@pytest.mark.parametrize(
    "other",
    [
        nn.Sequential(nn.Linear(2, 4)),
        nn.Sequential(nn.Linear(2, 3, bias=False)),
        nn.Sequential(nn.Linear(2, 3).double()),
        nn.Sequential(nn.Linear(2, 3).requires_grad_(False)),
        nn.Sequential(nn.Linear(2, 3), nn.Identity()),
        nn.Sequential(collections.OrderedDict(a=nn.Linear(2, 3))),
        nn.ModuleList([nn.Linear(2, 3)]),
        nn.Sequential(nn.Linear(2, 3)).eval(),
    ],
)
def test_shapes_kinds_and_names_part_models(other):
    base = structure_of(nn.Sequential(nn.Linear(2, 3)))
    assert base.key == structure_of(nn.Sequential(nn.Linear(2, 3))).key
    assert base.key != structure_of(other).key


def test_tied_weights_are_not_two_weights():
    def net(tied):
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        if tied:
            model[1].weight = model[0].weight
        return model

    assert structure_of(net(True)).key == structure_of(net(True)).key
    assert structure_of(net(True)).key != structure_of(net(False)).key
    shared = nn.Linear(3, 3)
    assert structure_of(nn.Sequential(shared, shared)).key != structure_of(net(False)).key


def test_a_buffers_numbers_are_the_lanes_own_and_its_keeping_is_not():
    def net(seed, persistent=True):
        model, generator = Net(), torch.Generator().manual_seed(seed)
        model.register_buffer("table", torch.randn(3, generator=generator), persistent=persistent)
        return model

    assert structure_of(net(0)).key == structure_of(net(1)).key
    assert structure_of(net(0)).key != structure_of(net(0, persistent=False)).key


def test_a_known_object_may_be_referred_to_whatever_it_holds():
    class Task:
        def __init__(self):
            self.stream = (n for n in [1])

    task = Task()
    assert structure_of(Net(task), [task]).opaque == ""
    assert structure_of(Net(task), [task]).key == structure_of(Net(task), [task]).key
    assert structure_of(Net(task)).opaque


def test_attributes_show_what_a_forward_has_changed():
    model = Net([1], count=0, seen={}, last=None)
    before = attributes_of(model)
    assert attributes_of(model) == before
    for change in (
        lambda: model.held.append(2),
        lambda: setattr(model, "count", 1),
        lambda: model.seen.update(a=1),
        lambda: setattr(model, "last", torch.ones(2)),
        lambda: setattr(model.inner[1], "p", 0.3),
    ):
        before = attributes_of(model)
        change()
        assert attributes_of(model) != before
