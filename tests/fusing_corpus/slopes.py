"""Activations with a searched number, as modules and as functions."""

import torch
from corpus_data import Small, vectors
from torch import nn
from torch.nn import functional as F


class Vectors(Small):
    def data(self):
        return vectors()


class Slopes(Vectors):
    """LeakyReLU's slope and ELU's alpha differ between lanes."""

    def model(self, params):
        return nn.Sequential(
            nn.Linear(8, 16), nn.LeakyReLU(params["slope"]), nn.Linear(16, 16), nn.ELU(params["alpha"], inplace=True),
            nn.Linear(16, 4),
        )  # fmt: skip


class Net(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.slope = slope
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(F.leaky_relu(self.first(x), self.slope))


class FunctionalSlope(Vectors):
    """The slope is an attribute of the user's own module, given by place."""

    def model(self, params):
        return Net(params["slope"])


class Softplus(Vectors):
    """beta of Softplus, which torch takes as a number only: other betas are other groups."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.Softplus(beta=params["slope"]), nn.Linear(16, 4))


class Learned(Vectors):
    """PReLU: its slope is a parameter."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.PReLU(16, init=params["slope"]), nn.Linear(16, 4))


class Randomised(Vectors):
    """RReLU draws its slopes by torch's own random numbers."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.RReLU(), nn.Linear(16, 4))


class Scale(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, x):
        return self.scale * self.net(x)


class FloatAttribute(Vectors):
    """A float of the user's own, multiplied with a tensor."""

    def model(self, params):
        return Scale(params["scale"])


class Power(Scale):
    def forward(self, x):
        return self.net(x) * float(self.scale) ** 0.5


class FloatInPython(Vectors):
    """A float of the user's own that Python computes with."""

    def model(self, params):
        return Power(params["scale"])


class Filled(Scale):
    def forward(self, x):
        return self.net(x) + torch.full((1, 4), self.scale, dtype=x.dtype).cumsum(1)


class FloatMadeATensor(Vectors):
    """A float of the user's own that fills a tensor."""

    def model(self, params):
        return Filled(params["scale"])
