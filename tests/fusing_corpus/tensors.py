"""Unusual tensor operations: in place, spectra, casts, parameters made by hand, reparametrisations."""

import torch
from corpus_data import Small, series, vectors
from torch import nn
from torch.nn.utils import parametrizations


class Vectors(Small):
    def data(self):
        return vectors()


class Hand(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(8, 16) * scale)
        self.w2 = nn.Parameter(torch.randn(16, 4) * scale)
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return (x @ self.w1).relu() @ self.w2 / self.temperature.exp()


class ByHand(Vectors):
    """nn.Parameters made by hand, one a scalar; the scale of their start is searched and leaves no attribute."""

    def model(self, params):
        return Hand(params["scale"])


class InPlaceNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.first(x)
        x += 1
        x = x.relu_().clone()
        x.mul_(0.5)[:, 0] = 0
        out = torch.zeros(len(x), 4, dtype=x.dtype)
        out = out + self.last(x)
        out[:, 1:] -= out[:, :1].detach()
        return out


class InPlace(Vectors):
    """``x += 1``, ``relu_``, assignment to a slice."""

    def model(self, params):
        return InPlaceNet()


class FillNet(InPlaceNet):
    def forward(self, x):
        x = self.first(x)
        out = torch.zeros(len(x), 16, dtype=x.dtype)
        out[:, ::2] = x[:, ::2].relu()
        return self.last(out)


class FillsZeros(Vectors):
    """Fills a tensor of zeros that belongs to no lane with numbers that do."""

    def model(self, params):
        return FillNet()


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(6, 3, 2) * 0.5 + 1)
        self.head = nn.Linear(30, 4)

    def forward(self, x):
        spectrum = torch.fft.rfft(x, dim=1) * torch.view_as_complex(self.filter)
        return self.head(torch.fft.irfft(spectrum, n=10, dim=1).flatten(1))


class Fourier(Small):
    """A filter in Fourier space: complex numbers inside."""

    def model(self, params):
        return Spectrum()

    def data(self):
        return series()


class CastNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.first(x).float().tanh().to(self.last.weight.dtype)
        return self.last(x)


class Casts(Vectors):
    """A part in single precision."""

    def model(self, params):
        return CastNet()


class WeightNorm(Vectors):
    """parametrizations.weight_norm: the weight is computed from two parameters."""

    def model(self, params):
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 4))


class SpectralNorm(Vectors):
    """parametrizations.spectral_norm: buffers and a power iteration in every forward of training."""

    def model(self, params):
        return nn.Sequential(parametrizations.spectral_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 4))


class Orthogonal(Vectors):
    """parametrizations.orthogonal: a matrix exponential."""

    def model(self, params):
        inner = parametrizations.orthogonal(nn.Linear(8, 8), orthogonal_map="matrix_exp")
        return nn.Sequential(inner, nn.Tanh(), nn.Linear(8, 4))


class EinsumNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.core = nn.Parameter(torch.randn(4, 8, 8) * 0.2)
        self.bilinear = nn.Bilinear(8, 8, 4)

    def forward(self, x):
        return torch.einsum("bi,oij,bj->bo", x, self.core, x) + self.bilinear(x, x)


class Einsum(Vectors):
    """einsum and nn.Bilinear."""

    def model(self, params):
        return EinsumNet()
