"""Tasks with a loss, metrics or an augmentation of their own, and models that return more than a tensor."""

import os
from types import SimpleNamespace

import numpy as np
import torch
from corpus_data import Small, images, numbers, vectors
from torch import nn
from torch.nn import functional as F


def net(p=0.0):
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, 4))


class Vectors(Small):
    def model(self, params):
        return net()

    def data(self):
        return vectors()


class WeightedLoss(Vectors):
    """A loss with class weights made in ``__init__``."""

    def __init__(self):
        self.weight = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)

    def loss(self, output, target):
        return F.cross_entropy(output, target, weight=self.weight)


class LossModule(Vectors):
    """A loss module made in ``__init__``."""

    def __init__(self):
        self.criterion = nn.MultiMarginLoss()

    def loss(self, output, target):
        return self.criterion(output, target)


class FocalLoss(Vectors):
    """A loss by hand, with gather."""

    def loss(self, output, target):
        p = output.softmax(1).gather(1, target[:, None])
        return (-((1 - p) ** 2) * p.log()).mean()


class HardExamples(Vectors):
    """A loss that picks examples by their numbers: the model is fused, the loss goes one lane after the other.

    What BatchNorm sees before the first try fails must not count.
    """

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    def loss(self, output, target):
        each = F.cross_entropy(output, target, reduction="none")
        return each[each > each.median()].sum() / len(each)


class NumpyMetrics(Vectors):
    """Metrics through numpy and ``.item()``, as with scikit-learn."""

    def metrics(self, output, target):
        guess, truth = output.argmax(1).cpu().numpy(), target.cpu().numpy()
        recall = np.mean([np.mean(guess[truth == c] == c) for c in range(4) if (truth == c).any()])
        return {"recall": float(recall), "top": output.softmax(1).max(1).values.mean().item()}


class Augmented(Vectors):
    """Inputs turned and scaled by keyed random numbers, and dropout beside it."""

    def model(self, params):
        return net(params["dropout"])

    def augment(self, batch, key):
        noise = key.uniform(*batch.shape) - 0.5
        return batch * (0.9 + 0.2 * key.uniform(len(batch), 1)).to(batch.dtype) + 0.1 * noise


class Flipped(Small):
    """Images flipped where a keyed random number says so, by boolean assignment: one lane after the other."""

    def model(self, params):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    def data(self):
        return images()

    def augment(self, batch, key):
        flip = key.uniform(len(batch)) < 0.5
        batch = batch.clone()
        batch[flip] = batch[flip].flip(-1)
        return batch


class RandomAugment(Vectors):
    """An augmentation that draws from torch instead of its key."""

    def augment(self, batch, key):
        return batch + 0.1 * torch.randn_like(batch)


class Regression(Small):
    """Float targets: the mean squared error, no accuracy."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(params["dropout"]), nn.Linear(16, 1))

    def data(self):
        return numbers()


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.classes, self.copy = nn.Linear(16, 4), nn.Linear(16, 8)

    def forward(self, x):
        y = self.stem(x)
        return self.classes(y), (self.copy(y) - x).square().mean(1)


class TwoHeads(Vectors):
    """The model returns a tuple; loss and metrics take it apart."""

    def model(self, params):
        return Heads()

    def loss(self, output, target):
        return F.cross_entropy(output[0], target) + 0.1 * output[1].mean()

    def metrics(self, output, target):
        return {"accuracy": (output[0].argmax(1) == target).double().mean(), "copy": output[1].mean()}


class Named(Heads):
    def forward(self, x):
        logits, error = super().forward(x)
        return {"logits": logits, "error": error, "name": "heads"}


class DictOutput(TwoHeads):
    """The model returns a dict, with a str in it."""

    def model(self, params):
        return Named()

    def loss(self, output, target):
        return F.cross_entropy(output["logits"], target) + 0.1 * output["error"].mean()

    def metrics(self, output, target):
        return {"accuracy": (output["logits"].argmax(1) == target).double().mean()}


class Probabilities(Vectors):
    """nn.Softmax at the end, and a loss that takes the logarithm."""

    def model(self, params):
        return nn.Sequential(net(), nn.Softmax(dim=1))

    def loss(self, output, target):
        return F.nll_loss(torch.log(output + 1e-8), target)


class Searched(Vectors):
    """Smoothing, clipping and l1 are searched: numbers of the loop that differ between lanes."""

    def model(self, params):
        return net(params["dropout"])


class Scaled(nn.Module):
    """Reads a number that its class has."""

    scale = 1.0

    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return self.inner(x) * type(self).scale


class ClassAttribute(Vectors):
    def model(self, params):
        Scaled.scale = params["scale"]
        return Scaled()


class SharedDict(Vectors):
    """Keeps a param of the run in a dict of the class's, and reads it in the loss."""

    config = {}  # noqa: RUF012

    def model(self, params):
        self.config["scale"] = params["scale"]
        return net()

    def loss(self, output, target):
        return F.cross_entropy(output * self.config["scale"], target)


GAMMA = 0.0


class GlobalNumber(Vectors):
    def model(self, params):
        global GAMMA
        GAMMA = params["scale"]
        return net()

    def loss(self, output, target):
        p = output.softmax(1).gather(1, target[:, None])
        return (-((1 - p) ** GAMMA) * p.log()).mean()


class EnvironmentVariable(Vectors):
    """Where nobody looks: only a step alone shows it."""

    def model(self, params):
        os.environ["CORPUS_SCALE"] = str(params["scale"])
        return net()

    def loss(self, output, target):
        return F.cross_entropy(output * float(os.environ["CORPUS_SCALE"]), target)


class Cached(Vectors):
    """What the first run leaves in the task is the same for all."""

    table = None

    def model(self, params):
        if self.table is None:
            self.table = torch.arange(1.0, 5.0, dtype=torch.float64)
        return net()

    def loss(self, output, target):
        return F.cross_entropy(output, target, weight=self.table)


class NoneBeside(Vectors):
    """Returns None beside its output in validation, and reads numbers in its metrics."""

    def model(self, params):
        return Beside()

    def loss(self, output, target):
        return F.cross_entropy(output[0], target)

    def metrics(self, output, target):
        return {"accuracy": (output[0].argmax(1) == target).double().mean().item()}


class Beside(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return self.inner(x), (self.inner[0](x) if self.training else None)


class Annealed(Vectors):
    """A term of the loss that grows with the steps, by a number in Python; each model begins anew."""

    step = 0

    def model(self, params):
        self.step = 0
        return net()

    def loss(self, output, target):
        self.step += 1
        return F.cross_entropy(output, target) + min(1.0, self.step / 100) * output.square().mean()


SEEN = []


class GlobalList(Vectors):
    """The number of metrics there have been, in a list of the file, changes the loss of later epochs."""

    def model(self, params):
        SEEN.clear()
        return net()

    def loss(self, output, target):
        return F.cross_entropy(output * (1.0 if len(SEEN) < 2 else 0.5), target)

    def metrics(self, output, target):
        SEEN.append(1)
        return {}


class Namespace(Vectors):
    """A param in the task's namespace of options."""

    def __init__(self):
        self.options = SimpleNamespace(scale=1.0)

    def model(self, params):
        self.options.scale = params["scale"]
        return net()

    def loss(self, output, target):
        return F.cross_entropy(output * self.options.scale, target)


class DefaultArgument(Vectors):
    """A param in a function's default argument."""

    def model(self, params):
        scaled.__defaults__[0]["scale"] = params["scale"]
        return net()

    def loss(self, output, target):
        return F.cross_entropy(scaled(output), target)


def scaled(output, options={"scale": 1.0}):  # noqa: B006 - as users write it
    return output * options["scale"]


class KeepsModel(Vectors):
    """The task keeps its model, for a penalty in the loss."""

    def model(self, params):
        self.net = net()
        return self.net

    def loss(self, output, target):
        return F.cross_entropy(output, target) + 1e-2 * self.net[0].weight.abs().sum()


class Scratch(Vectors):
    """Ones by the size of the batch, kept in the task: in lanes they would be the lanes'."""

    def __init__(self):
        self.ones = {}

    def model(self, params):
        self.ones.clear()
        return net()

    def loss(self, output, target):
        if len(output) not in self.ones:
            self.ones[len(output)] = torch.ones_like(output) * 1.5
        return F.cross_entropy(output * self.ones[len(output)], target)


class ConditionalMetric(Vectors):
    """A metric that there is only where the model guessed the class."""

    def model(self, params):
        return net()

    def metrics(self, output, target):
        guessed = output.argmax(1) == 3
        right = (target == 3)[guessed].double()
        return {"few": 1.0, **({"precision": right.mean().item()} if guessed.sum() > 4 else {})}
