"""Small data sets for the corpus: 60 examples in 4 classes, of which 36 train (batches of 16, 16 and 4)."""

import torch

import hpsearch as hp

N, CLASSES, TOKENS = 60, 4, 20


class Small(hp.TrainingTask):
    """Three epochs in double precision."""

    epochs = 3
    batch_size = 16
    precision = "float64"


def _noise(*shape):
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(5))


def labels():
    return torch.arange(N) % CLASSES


def vectors():
    """(60, 8): each class has another mean."""
    return hp.Data(_noise(8) + torch.eye(CLASSES, 8)[labels()] * 2, labels())


def images():
    """(60, 1, 8, 8): each class is bright in another quarter."""
    inputs = _noise(1, 8, 8)
    for k, label in enumerate(labels().tolist()):
        row, column = divmod(label, 2)
        inputs[k, 0, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 1
    return hp.Data(inputs, labels())


def texts():
    """(60, 6) tokens below 20, int64: each class likes five of them."""
    draws = torch.randint(0, TOKENS, (N, 6), generator=torch.Generator().manual_seed(5))
    liked = labels()[:, None] * 5 + draws % 5
    return hp.Data(torch.where(draws % 3 > 0, liked, draws), labels())


def series():
    """(60, 10, 3): each class has another frequency."""
    time = torch.linspace(0, 6.28, 10)
    return hp.Data(_noise(10, 3) * 0.3 + torch.sin(time * (1 + labels()[:, None]))[..., None], labels())


def numbers():
    """(60, 8) and a float target (60, 1)."""
    inputs = _noise(8)
    return hp.Data(inputs, inputs[:, :2].sum(1, keepdim=True).sin())
