"""Buffers that a forward changes: in place, by assignment, with a schedule of their own; and tables."""

import torch
from corpus_data import Small, vectors
from torch import nn


class Vectors(Small):
    def data(self):
        return vectors()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        x = self.first(x)
        if self.training:
            self.calls += 1
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return self.last(torch.relu(x - self.mean)) * (1 + 1 / (1 + self.calls))


class InPlace(Vectors):
    """A counter and a running mean, both in place; the output depends on both."""

    def model(self, params):
        return Net()


class Assigning(Net):
    def forward(self, x):
        x = self.first(x)
        if self.training:
            self.calls = self.calls + 1
            self.mean = (0.9 * self.mean + 0.1 * x.mean(0)).detach()
        return self.last(torch.relu(x - self.mean)) * (1 + 1 / (1 + self.calls))


class Assigned(Vectors):
    """The same, with new tensors in place of the buffers."""

    def model(self, params):
        return Assigning()


class InValidation(Net):
    def forward(self, x):
        x = self.first(x)
        with torch.no_grad():
            self.calls.add_(1)
            self.mean[: self.calls.shape.numel()] += 0.01
        return self.last(torch.relu(x - self.mean)) / self.calls.sqrt()


class ChangedInValidation(Vectors):
    """The buffers change in validation as well, so that it matters how often it is called."""

    def model(self, params):
        return InValidation()


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 4)
        self.register_buffer("order", torch.randperm(8), persistent=False)
        self.register_buffer("pairs", torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]]))

    def forward(self, x):
        return self.net(x[:, self.order]) + x[:, self.pairs].prod(2)


class IndexTable(Vectors):
    """Tables of whole numbers: one random, so another one for each seed, and not kept in the state_dict."""

    def model(self, params):
        return Table()


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.n = nn.Linear(8, 4), 0

    def forward(self, x):
        self.n += 1
        return self.net(x) * min(1.0, self.n / 10)


class PythonCounter(Vectors):
    """A Python int that counts forwards, and warms up by it."""

    def model(self, params):
        return Counting()


class Momentum(nn.Module):
    def __init__(self, decay):
        super().__init__()
        self.net, self.slow = nn.Linear(8, 4), nn.Linear(8, 4)
        self.decay = decay
        for parameter in self.slow.parameters():
            parameter.requires_grad_(False)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                for slow, fast in zip(self.slow.parameters(), self.net.parameters(), strict=True):
                    slow.mul_(self.decay).add_(fast * (1 - self.decay))
        return self.net(x) + self.slow(x)


class MovingAverage(Vectors):
    """A teacher of frozen parameters that follow the trained ones, with a searched decay."""

    def model(self, params):
        return Momentum(params["decay"])


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.seen = nn.Linear(8, 4), []

    def forward(self, x):
        y = self.net(x)
        self.seen = [y.detach()]
        return y


class LastOutput(Vectors):
    """The forward keeps its last activation in an attribute, for a look at it later."""

    def model(self, params):
        return Kept()


class Filled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 4)
        self.register_buffer("mean", None)

    def forward(self, x):
        if self.mean is None:
            self.mean = x.detach().mean(0)
        return self.inner(x - self.mean)


class FilledInForward(Vectors):
    """A buffer that is None until the first batch."""

    def model(self, params):
        return Filled()


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 4)
        self.register_buffer("scale", torch.tensor(2))

    def forward(self, x):
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * x.detach().abs().mean()
        return self.inner(x / self.scale)


class WholeNumber(Vectors):
    """A buffer that begins as a whole number and becomes a mean."""

    def model(self, params):
        return Whole()


class Largest(nn.Module):
    """Counts, in Python, how many rows it has had at most: all of the validation part are more than a batch."""

    def __init__(self):
        super().__init__()
        self.inner, self.most = nn.Linear(8, 4), 16

    def forward(self, x):
        self.most = max(self.most, len(x) + 1)
        return self.inner(x) * (1.0 if self.most < 18 else 0.5)


class LargestBatch(Vectors):
    """It changes when a whole batch has been seen."""

    def model(self, params):
        return Largest()
