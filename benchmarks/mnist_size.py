"""Models of MNIST's size, which ``fusing.py --device cuda`` times and ``fusing_1024.yaml`` searches.

The param ``images`` is the folder of Fashion-MNIST's files (on Debian: apt install dataset-fashion-mnist); where it is
not there, random bytes of their shape and number stand in: the speed is the same, the losses mean nothing.
"""

import gzip
from pathlib import Path

import torch
from torch import Tensor, nn

import hpsearch as hp

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def images(folder: Path) -> tuple[Tensor, Tensor]:
    """70,000 images (N, 28, 28) and their classes (N,), as bytes."""
    if not folder.is_dir():
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (70_000, 28, 28), dtype=torch.uint8, generator=generator)
        return pixels, torch.randint(10, (70_000,), dtype=torch.uint8, generator=generator)
    both = [(_bytes(folder / f"{part}-images-idx3-ubyte.gz", 16), _bytes(folder / f"{part}-labels-idx1-ubyte.gz", 8))
            for part in ("train", "t10k")]  # fmt: skip
    return torch.cat([pixels for pixels, _ in both]).view(-1, 28, 28), torch.cat([labels for _, labels in both])


def _bytes(file: Path, head: int) -> Tensor:
    return torch.frombuffer(bytearray(gzip.decompress(file.read_bytes())), dtype=torch.uint8)[head:]


def normalise(batch: Tensor) -> Tensor:
    """(B, 28, 28) bytes -> (B, 1, 28, 28) floats."""
    return (batch.float() / 255 - 0.2860).div(0.3530)[:, None]


def mlp(dropout: float) -> nn.Module:
    """784-512-512-10."""
    return nn.Sequential(
        nn.Flatten(),
        *[nn.Linear(784, 512), nn.ReLU(), nn.Dropout(dropout)],
        *[nn.Linear(512, 512), nn.ReLU(), nn.Dropout(dropout)],
        nn.Linear(512, 10),
    )


def cnn(dropout: float) -> nn.Module:
    """Convolutions 1-32-64 of 3 x 3, one 2 x 2 pooling, 9216-128-10."""
    return nn.Sequential(
        *[nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        *[nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, 10)],
    )


class MLP(hp.TrainingTask):
    """784-512-512-10 with dropout; SGD with momentum, batches of 128.

    All 70,000 images are cut anew, into 60,000 to train and 10,000 to validate: a benchmark has no use for a test part.
    """

    optimizer = "momentum"
    epochs = 5
    batch_size = 128
    split = (0.6, 0.1, 0.3)  # of what is no test part: six to one

    def model(self, params: hp.Params) -> nn.Module:
        return mlp(params["dropout"])

    def data(self) -> hp.Data:
        inputs, targets = images(Path(self.params["images"]))
        return hp.Data(inputs, targets, inputs[:1], targets[:1], transform=normalise)


class CNN(MLP):
    """The convolutional one, with dropout before the last layer."""

    def model(self, params: hp.Params) -> nn.Module:
        return cnn(params["dropout"])


class MixedMLP(MLP):
    """MLP whose forward computes in bfloat16."""

    precision = "bfloat16"


class MixedCNN(CNN):
    """CNN whose forward computes in bfloat16."""

    precision = "bfloat16"
