"""Random numbers in the forward that are not dropout's, and factories that use numpy's or Python's."""

import random

import numpy as np
import torch
from corpus_data import Small, vectors
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)


class Vectors(Small):
    def data(self):
        return vectors()


class ByRandn(Net):
    def forward(self, x):
        x = self.first(x)
        if self.training:
            x = x + 0.1 * torch.randn(x.shape, dtype=x.dtype)
        return self.last(x)


class Noise(Vectors):
    """torch.randn: the mistake vmap cannot see, since no lane's tensor goes in."""

    def model(self, params):
        return ByRandn()


class ByRandnLike(Net):
    def forward(self, x):
        x = self.first(x)
        return self.last(x + 0.1 * torch.randn_like(x) if self.training else x)


class NoiseLike(Vectors):
    """torch.randn_like."""

    def model(self, params):
        return ByRandnLike()


class ByNormal(Net):
    def forward(self, x):
        x = self.first(x)
        return self.last(x + torch.empty_like(x).normal_(0, 0.1) if self.training else x)


class NoiseInPlace(Vectors):
    """``normal_`` into an empty tensor."""

    def model(self, params):
        return ByNormal()


class ByGumbel(Net):
    def forward(self, x):
        return self.last(F.gumbel_softmax(self.first(x), tau=1.0) if self.training else self.first(x).softmax(1))


class Gumbel(Vectors):
    """F.gumbel_softmax."""

    def model(self, params):
        return ByGumbel()


class ByPython(Net):
    def forward(self, x):
        x = self.first(x)
        if not self.training or random.random() < 0.7:
            x = torch.relu(x)
        return self.last(x)


class PythonRandom(Vectors):
    """Stochastic depth by Python's random: fused, all lanes would share each decision."""

    def model(self, params):
        return ByPython()


class ByNumpy(Net):
    def forward(self, x):
        x = self.first(x)
        if self.training:
            x = x * float(np.random.uniform(0.9, 1.1))
        return self.last(x)


class NumpyRandom(Vectors):
    """A factor by numpy's random."""

    def model(self, params):
        return ByNumpy()


class SeldomPython(Net):
    def forward(self, x):
        x = self.first(x)
        if self.training and random.random() < 0.05:
            x = torch.relu(x)
        return self.last(x)


class SeldomRandom(Vectors):
    """As PythonRandom, but seldom: a look at the first step alone would see no difference."""

    def model(self, params):
        return SeldomPython()


class Factories(Vectors):
    """Weights by numpy's and Python's random, which hpsearch seeds for each run."""

    def model(self, params):
        net = Net()
        with torch.no_grad():
            net.first.weight.copy_(torch.from_numpy(np.random.normal(0, params["scale"], (16, 8))))
            net.last.bias.fill_(random.uniform(-1, 1))
        return nn.Sequential(net.first, nn.ReLU(), net.last)


class Generator(Net):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        noise = torch.randn(16, dtype=x.dtype, generator=self.generator)
        return self.last(self.first(x) + 0.1 * noise)


class OwnGenerator(Vectors):
    """The model has a torch.Generator of its own."""

    def model(self, params):
        return Generator()
