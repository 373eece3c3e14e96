"""Autograd functions of the user's own, checkpointing, and derivatives inside the forward."""

import torch
from corpus_data import Small, vectors
from torch import nn
from torch.utils.checkpoint import checkpoint


class Vectors(Small):
    def data(self):
        return vectors()


class OldSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class NewSquare(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


class OldFunction(Vectors):
    """An autograd.Function with ctx in its forward, as most are: vmap does not take it."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), Apply(OldSquare), nn.Linear(16, 4))


class NewFunction(Vectors):
    """One with setup_context and generate_vmap_rule."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), Apply(NewSquare), nn.Linear(16, 4))


class StraightThrough(nn.Module):
    def forward(self, x):
        return x + (x.round() - x).detach()


class Quantised(Vectors):
    """A straight-through estimator, by detach."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), StraightThrough(), nn.Linear(16, 4))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        return self.last(checkpoint(self.inner, x, use_reentrant=False))


class Checkpointing(Vectors):
    """torch.utils.checkpoint: the inner part is computed again in the backward."""

    def model(self, params):
        return Checkpointed()


class Partly(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        with torch.no_grad():
            scale = self.first(x).std(0)
        return self.last(torch.relu(self.first(x)) / (scale + 1))


class NoGrad(Vectors):
    """A torch.no_grad block in the forward."""

    def model(self, params):
        return Partly()


class InputGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.last = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.net(x).tanh().sum(), x, create_graph=True)
        return self.last(x + slope)


class GradientInForward(Vectors):
    """The forward differentiates by its input: torch.autograd.grad within the forward."""

    def model(self, params):
        return InputGradient()


class Curved(nn.Module):
    """The network beside its derivatives by its inputs, made by torch.func."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, x):
        def one(row):
            return self.net(row).square().sum()

        slope = torch.func.vmap(torch.func.grad(one))(x)
        moved = torch.func.jvp(self.net, (x,), (torch.ones_like(x),))[1]
        return self.net(x) + 0.1 * slope[:, :4] + 0.1 * moved


class Derivatives(Vectors):
    def model(self, params):
        return Curved()
