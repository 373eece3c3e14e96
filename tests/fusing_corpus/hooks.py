"""Hooks of modules and of parameters."""

import torch
from corpus_data import Small, vectors
from torch import nn


class Vectors(Small):
    def data(self):
        return vectors()

    def net(self):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def half(module, inputs, output):
    return output * 0.5


def centred(module, inputs):
    return (inputs[0] - inputs[0].mean(0),)


class ForwardHook(Vectors):
    """A forward hook and a pre-hook, plain functions."""

    def model(self, params):
        net = self.net()
        net[0].register_forward_hook(half)
        net[2].register_forward_pre_hook(centred)
        return net


class HookWithParam(Vectors):
    """The hook's closure holds a param: other params are other groups."""

    def model(self, params):
        net, scale = self.net(), params["scale"]
        net[0].register_forward_hook(lambda module, inputs, output: output * scale)
        return net


class CountingHook(Vectors):
    """The hook counts its calls in its closure, and warms up by the count."""

    def model(self, params):
        net, calls = self.net(), []

        def warm_up(module, inputs, output):
            calls.append(1)
            return output * min(1.0, len(calls) / 10)

        net[0].register_forward_hook(warm_up)
        return net


class LateHook(Vectors):
    """The same, but it shows only after some epochs: a look at the first step sees nothing of it."""

    def model(self, params):
        net, calls = self.net(), []

        def cool_down(module, inputs, output):
            calls.append(1)
            return output * (0.5 if len(calls) > 8 else 1.0)

        net[0].register_forward_hook(cool_down)
        return net


class GradientHook(Vectors):
    """A hook on a parameter changes its gradient; the stacked leaves are other tensors and have none."""

    def model(self, params):
        net = self.net()
        net[0].weight.register_hook(lambda gradient: gradient * 0.1)
        return net


class Reverse(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        y = self.net(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient * 0.5)
        return y


class ActivationHook(Vectors):
    """A hook on an activation changes the gradient that passes."""

    def model(self, params):
        return Reverse(self.net())


class BackwardHook(Vectors):
    """A full backward hook on a module."""

    def model(self, params):
        net = self.net()
        net[2].register_full_backward_hook(lambda module, inner, outer: (inner[0] * 0.5,))
        return net


class MaxNorm(nn.Linear):
    def forward(self, x):
        with torch.no_grad():
            self.weight.clamp_(-0.3, 0.3)
        return super().forward(x)


class WeightClamped(Vectors):
    """The forward changes its own weight in place."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), MaxNorm(16, 4))


class Data(nn.Linear):
    def forward(self, x):
        self.weight.data = self.weight.data.clamp(-0.3, 0.3)
        return super().forward(x)


class WeightReplaced(Vectors):
    """The forward gives its weight other data."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), Data(16, 4))


class LateClamp(Vectors):
    """The usual way to clip: the first batch's gradients are smaller, so a look at it sees nothing."""

    def model(self, params):
        net = self.net()
        for parameter in net.parameters():
            parameter.register_hook(lambda gradient: gradient.clamp(-0.2, 0.2) if gradient.norm() < 0.3 else gradient)
        return net


class AccumulateHook(Vectors):
    """A hook on a gradient that has been accumulated, which no look at a gradient can see."""

    def model(self, params):
        net = self.net()
        for parameter in net.parameters():
            parameter.register_post_accumulate_grad_hook(clip)
        return net


def clip(parameter):
    parameter.grad.clamp_(-0.05, 0.05)


class Faint(Reverse):
    """The hook takes nothing away from a small gradient."""

    def forward(self, x):
        y = self.net(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient.clamp(-1, 1))
        return y


class FaintHook(Vectors):
    """A hook on an activation that does nothing in the first step."""

    def model(self, params):
        return Faint(self.net())


class WhileTraining(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        y = self.net(x)
        return y * 1.1 if y.requires_grad else y


class TellsByGradient(Vectors):
    """Whether its output has a gradient tells a forward that it trains."""

    def model(self, params):
        return WhileTraining(self.net())
