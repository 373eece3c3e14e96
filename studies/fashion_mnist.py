"""Images in MNIST's IDX format, plain or ``.gz``: Fashion-MNIST or MNIST, 28 x 28 pixels, 10 classes.

The study file names the folder (``images: ...``, relative to the study file) that holds these four files:

    train-images-idx3-ubyte   train-labels-idx1-ubyte   60,000 to search on
    t10k-images-idx3-ubyte    t10k-labels-idx1-ubyte    10,000 that a search never touches

Fashion-MNIST (MIT licence): on Debian ``apt install dataset-fashion-mnist`` puts it into
/usr/share/datasets/fashion-mnist; elsewhere get the files from https://github.com/zalandoresearch/fashion-mnist.
MNIST: https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz and so on.
"""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

import hpsearch as hp


def read_idx(folder: Path, name: str, dimensions: int) -> Tensor:
    """The numbers of an IDX file as a uint8 tensor of so many dimensions; takes ``name`` or ``name.gz``.

    The format (http://yann.lecun.com/exdb/mnist): two zero bytes, the type (8 is unsigned bytes), the number of
    dimensions, each dimension as four bytes (big-endian), then the numbers, last dimension fastest.
    """
    file = next((f for f in (folder / name, folder / f"{name}.gz") if f.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz; {__file__} says where to get them")
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: is no whole gzip file: {error}") from error
    head = 4 + 4 * dimensions
    if len(raw) < head or raw[:2] != b"\0\0":
        raise ValueError(f"{file}: is no IDX file: it begins with {raw[:4].hex(' ') or 'nothing'}")
    if raw[2] != 8:
        raise ValueError(f"{file}: holds numbers of type 0x{raw[2]:02x}; only 0x08, unsigned bytes, is read")
    if raw[3] != dimensions:
        raise ValueError(f"{file}: has {raw[3]} dimensions, not {dimensions}")
    shape = [int.from_bytes(raw[k : k + 4], "big") for k in range(4, head, 4)]
    if len(raw) - head != math.prod(shape):
        raise ValueError(f"{file}: says {shape}, which is {math.prod(shape)} bytes, but {len(raw) - head} follow")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)[head:].reshape(shape)


def read_part(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) and labels (N,) of ``train`` or ``t10k``, both uint8."""
    images = read_idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise ValueError(f"{folder}: {part} has {len(images)} images, but {len(labels)} labels")
    return images, labels


def normalise(batch: Tensor) -> Tensor:
    """(B, 28, 28) bytes -> (B, 1, 28, 28) floats, about -1 to 2. Stored as bytes, 70,000 images take 55 MB."""
    return (batch.float() / 255 - 0.2860).div(0.3530)[:, None]  # mean and deviation of Fashion-MNIST's pixels


def load(folder: Path) -> hp.Data:
    """Everything in the folder; t10k is the test part."""
    images, labels = read_part(folder, "train")
    test_images, test_labels = read_part(folder, "t10k")
    return hp.Data(images, labels, test_images, test_labels, transform=normalise)


class FashionMLP(hp.TrainingTask):
    """784-256-128-10 with dropout."""

    optimizer = "momentum"
    schedule = hp.Cosine()
    init = "kaiming"
    epochs = 10
    batch_size = 256

    def model(self, params: hp.Params) -> nn.Module:
        dropout = params["dropout"]
        return nn.Sequential(
            nn.Flatten(),
            *[nn.Linear(784, 256), nn.ReLU(), nn.Dropout(dropout)],
            *[nn.Linear(256, 128), nn.ReLU(), nn.Dropout(dropout)],
            nn.Linear(128, 10),
        )

    def data(self) -> hp.Data:
        return load(self.study_dir / self.params["images"])


class FashionCNN(hp.TrainingTask):
    """Two convolutions of 16 and 32 filters, each with 2 x 2 pooling, then 128 units with dropout."""

    optimizer = "momentum"
    schedule = hp.Cosine()
    init = "kaiming"
    epochs = 10
    batch_size = 256

    def model(self, params: hp.Params) -> nn.Module:
        return nn.Sequential(
            *[nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Dropout(params["dropout"])],
            nn.Linear(128, 10),
        )

    def data(self) -> hp.Data:
        return load(self.study_dir / self.params["images"])
