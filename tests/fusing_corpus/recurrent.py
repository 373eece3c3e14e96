"""Recurrent networks: torch's own, and by hand."""

import torch
from corpus_data import Small, series
from torch import nn


class Series(Small):
    def data(self):
        return series()


class Last(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(3, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        output, _ = self.rnn(x)
        return self.head(output[:, -1])


class LSTM(Series):
    """torch's LSTM, one kernel for the whole series."""

    def model(self, params):
        return Last(nn.LSTM)


class GRU(Series):
    """torch's GRU."""

    def model(self, params):
        return Last(nn.GRU)


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 8), nn.Linear(8, 4)

    def forward(self, x):
        state = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state)


class GRUCell(Series):
    """torch's cell in a loop over the series."""

    def model(self, params):
        return Cell()


class Elman(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside, self.state, self.head = nn.Linear(3, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x):
        state = torch.zeros(len(x), 8, dtype=x.dtype)
        for t in range(x.shape[1]):
            state = torch.tanh(self.inside(x[:, t]) + self.state(state))
        return self.head(state)


class ByHand(Series):
    """Elman's network in a Python loop."""

    def model(self, params):
        return Elman()
