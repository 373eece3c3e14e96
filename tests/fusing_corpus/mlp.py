"""Multilayer perceptrons: dropout as a module and as a function, a searched width, a layer used twice."""

from corpus_data import Small, vectors
from torch import nn
from torch.nn import functional as F


class Vectors(Small):
    def data(self):
        return vectors()


class ModuleDropout(Vectors):
    """p differs between lanes, and is 0 in one of them."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(16, 4))


class Net(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(F.dropout(F.relu(self.first(x)), self.p, self.training))


class FunctionalDropout(Vectors):
    """p is an attribute of the user's own module."""

    def model(self, params):
        return Net(params["dropout"])


class NetOnlyIfAny(Net):
    def forward(self, x):
        x = F.relu(self.first(x))
        if self.p > 0:
            x = F.dropout(x, self.p, self.training)
        return self.last(x)


class DropoutOnlyIfAny(Vectors):
    """Python asks whether p is above 0: lanes of other p make other forwards."""

    def model(self, params):
        return NetOnlyIfAny(params["dropout"])


class NetForgotten(Net):
    def forward(self, x):
        return self.last(F.dropout(F.relu(self.first(x)), self.p))


class DropoutInValidation(Vectors):
    """``training=`` was forgotten, a common mistake: it drops out in validation too, by torch's own random numbers."""

    def model(self, params):
        return NetForgotten(params["dropout"])


class AlphaDropout(Vectors):
    """A self-normalising network: its dropout computes with p in Python."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.SELU(), nn.AlphaDropout(params["dropout"]), nn.Linear(16, 4))


class Width(Vectors):
    """The width is searched: other shapes are other groups."""

    def model(self, params):
        width = params["width"]
        return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 4))


class TwiceNet(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.drop = nn.Dropout(p)

    def forward(self, x):
        x = self.first(x)
        for _ in range(2):
            x = self.drop(F.relu(self.middle(x)))
        return self.last(x)


class Twice(Vectors):
    """One layer and one dropout, each used twice: one gradient, but two masks."""

    def model(self, params):
        return TwiceNet(params["dropout"])
