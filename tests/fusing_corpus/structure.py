"""Module trees as they grow: containers in containers, frozen backbones, parameters that nobody uses, lazy layers."""

import torch
from corpus_data import Small, vectors
from torch import nn


class Vectors(Small):
    def data(self):
        return vectors()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Identity())
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])
        self.heads = nn.ModuleDict({"a": nn.Linear(8, 4), "b": nn.Linear(8, 4)})
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(8)) for _ in range(2)])
        self.biases = nn.ParameterDict({"a": torch.zeros(4), "b": torch.zeros(4)})

    def forward(self, x):
        x = self.stem(x)
        for layer, gain in zip(self.layers, self.gains, strict=True):
            x = torch.relu(layer(x)) * gain
        return sum(head(x) + self.biases[name] for name, head in self.heads.items())


class Containers(Vectors):
    """Sequential in Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

    def model(self, params):
        return Net()


class Twins(nn.Module):
    """One layer under two names, one inside a list, and a BatchNorm that is used twice."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = self.a
        self.norm = nn.BatchNorm1d(8)
        self.body = nn.Sequential(self.a, nn.ReLU(), self.norm, self.a, self.norm)
        self.last = nn.Linear(8, 4)
        self.other = nn.Linear(8, 4)
        self.other.bias = self.last.bias

    def forward(self, x):
        y = self.body(torch.tanh(self.b(x)))
        return self.last(y) + self.other(x)


class Shared(Vectors):
    """Modules that have several names, and a bias of two layers."""

    def model(self, params):
        return Twins()


class Versioned(nn.Linear):
    """Has more than tensors in its ``state_dict``."""

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        assert state == {"version": 2}


class ExtraState(Vectors):
    def model(self, params):
        return nn.Sequential(Versioned(8, 8), nn.ReLU(), nn.Linear(8, 4))


class Compiled(Vectors):
    def model(self, params):
        return torch.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), backend="eager")


class Frozen(Vectors):
    """A backbone that does not train (requires_grad False), with a BatchNorm whose statistics do move."""

    def model(self, params):
        backbone = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())
        for parameter in backbone.parameters():
            parameter.requires_grad = False
        return nn.Sequential(backbone, nn.Linear(16, 4))


class StillBackbone(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[0].eval()
        return self


class FrozenStatistics(Vectors):
    """``train`` is overridden to keep the backbone's BatchNorm and dropout in eval mode."""

    def model(self, params):
        backbone = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(params["dropout"]), nn.ReLU())
        return StillBackbone(backbone, nn.Dropout(params["dropout"]), nn.Linear(16, 4))


class SpareNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(8, 4), nn.Linear(5, 5)
        self.register_parameter("none", None)

    def forward(self, x):
        return self.used(x)


class Unused(Vectors):
    """A layer that the forward never calls: no gradient, but weight decay moves it."""

    def model(self, params):
        return SpareNet()


class Lazy(Vectors):
    """Layers whose shapes come with the first batch."""

    def model(self, params):
        return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyBatchNorm1d(), nn.LazyLinear(4))


class Scripted(Vectors):
    """Compiled by torch.jit.script."""

    def model(self, params):
        return torch.jit.script(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)))


class Listed(nn.Module):
    """A plain list holds a parameter, of which the output has a part."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)
        self.scales = [self.norm.weight]

    def forward(self, x):
        moved = sum((scale - 1).abs().mean() for scale in self.scales)
        return self.last(self.norm(self.first(x)).relu()) * (1 + moved)


class ListedParameter(Vectors):
    """It begins equal in all lanes, and moves."""

    def model(self, params):
        return Listed()


class Detached(nn.Sequential):
    def state_dict(self, *args, **kwargs):
        return {name: tensor.detach().cpu().clone() for name, tensor in super().state_dict(*args, **kwargs).items()}


class DetachedState(Vectors):
    """Its state_dict gives copies."""

    def model(self, params):
        return Detached(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


class Plain(nn.Sequential):
    def state_dict(self):
        return super().state_dict()


class PlainState(Vectors):
    """Its state_dict takes no arguments."""

    def model(self, params):
        return Plain(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
