"""Python attributes that differ between trials and change the forward."""

import logging
import re
from pathlib import Path
from types import MethodType

import torch
from corpus_data import Small, vectors
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, **own):
        super().__init__()
        self.__dict__.update(own)
        self.first, self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)


class Vectors(Small):
    def data(self):
        return vectors()


class ByName(Net):
    def forward(self, x):
        return self.last(getattr(F, self.activation)(self.first(x)))


class ActivationName(Vectors):
    """The activation is a str."""

    def model(self, params):
        return ByName(activation=params["activation"])


class BySkip(Net):
    def forward(self, x):
        y = torch.relu(self.first(x))
        return self.last(y + x if self.use_skip else y)


class Skip(Vectors):
    """``use_skip`` is a bool."""

    def model(self, params):
        return BySkip(use_skip=params["use_skip"])


class ByConfig(Net):
    def forward(self, x):
        return self.last(F.hardtanh(self.first(x), *self.config["range"]) * self.config["scale"])


class Config(Vectors):
    """A dict with floats and tuples in it: lanes cannot differ in these, so they part groups."""

    def model(self, params):
        return ByConfig(config={"range": (-1.0, 1.0), "scale": params["scale"]})


class ByTensor(Net):
    def forward(self, x):
        return self.last(torch.relu(self.first(x * self.mask)))


class TensorAttribute(Vectors):
    """A tensor that is neither parameter nor buffer, another one for other params."""

    def model(self, params):
        mask = torch.ones(8, dtype=torch.float64)
        mask[params["width"] :] = 0
        return ByTensor(mask=mask)


class ByLambda(Net):
    def forward(self, x):
        return self.last(self.gate(self.first(x)))


class Closure(Vectors):
    """A lambda that has a param in its closure."""

    def model(self, params):
        scale = params["scale"]
        return ByLambda(gate=lambda x: torch.sigmoid(scale * x))


class Patched(Vectors):
    """A forward put in place of the class's, with a param in its closure."""

    def model(self, params):
        net, scale = ByName(activation="relu"), params["scale"]

        def forward(self, x):
            return scale * ByName.forward(self, x)

        net.forward = MethodType(forward, net)
        return net


class FunctionAttribute(Vectors):
    """A function that keeps a param as its attribute."""

    def model(self, params):
        def gate(x):
            return torch.sigmoid(gate.scale * x)

        gate.scale = params["scale"]
        return ByLambda(gate=gate)


class BySlot(Net):
    __slots__ = ("scale",)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)) * self.scale)


class Slot(Vectors):
    """A module with ``__slots__``."""

    def model(self, params):
        net = BySlot()
        net.scale = params["scale"]
        return net


class Clerk(Vectors):
    """A model that keeps a logger, a path and a pattern."""

    def model(self, params):
        return ByName(activation="relu", log=logging.getLogger("x"), path=Path("x"), pattern=re.compile("x"))


class Depth(Net):
    def forward(self, x):
        x = self.first(x)
        for _ in range(self.repeats):
            x = torch.tanh(self.middle(x))
        return self.last(x)


class Repeats(Vectors):
    """An int says how often a layer is used: the same shapes, another forward."""

    def model(self, params):
        return Depth(repeats=params["width"])


class ParamsKept(Net):
    def forward(self, x):
        return self.last(torch.relu(self.first(x)) * self.params["scale"])


class WholeParams(Vectors):
    """The model keeps all its params in a dict, as with save_hyperparameters."""

    def model(self, params):
        return ParamsKept(params=dict(params))
