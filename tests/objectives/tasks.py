"""Small tasks: what the fusing of runs in workers is tested with."""

import os
import signal
import time

import torch
from torch import nn

import hpsearch as hp


class Line(hp.TrainingTask):
    """Which side of a line 100 points are on."""

    optimizer = "sgd"
    lr = 0.1
    epochs = 3
    batch_size = 20

    def model(self, params):
        return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def data(self):
        inputs = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        return hp.Data(inputs, (inputs[:, 0] > 0).long())


class Long(Line):
    """Minutes of it, in epochs of some milliseconds; it prints once an epoch of validation."""

    epochs = 10_000

    def metrics(self, output, target):
        time.sleep(0.005)
        return {}


class Slow(Line):
    """A second of validation, for however many train together."""

    epochs = 2

    def metrics(self, output, target):
        time.sleep(1.0)
        return {}


class Sick(Line):
    """``sick`` in the hyperparameters says what a run's model does to the process that it is made in."""

    def model(self, params):
        print(f"a model, {params['sick']}")
        if params["sick"] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if params["sick"] == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if params["sick"] == "leaves":
            os._exit(3)
        if params["sick"] == "hangs":
            time.sleep(1000)
        return super().model(params)


class _Wild(nn.Linear):
    """Its process dies in the first batch."""

    def forward(self, inputs):
        os.kill(os.getpid(), signal.SIGSEGV)
        return super().forward(inputs)


class Wild(Line):
    """The runs that are ``wild`` crash while they train, the others do not."""

    def model(self, params):
        return nn.Sequential(_Wild(4, 2)) if params["wild"] else super().model(params)
