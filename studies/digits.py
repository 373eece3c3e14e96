"""Handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels in 10 classes, no download.

The four ``digits_*.yaml`` beside this file search the learning rate, momentum, dropout and weight decay of DigitsMLP;
DigitsCNN takes the same hyperparameters: ``hpsearch run studies/digits_random.yaml --set objective=digits.py:DigitsCNN
--name digits-cnn``.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import hpsearch as hp


def digits() -> hp.Data:
    """All images, (1797, 64) in [0, 1], and their classes, (1797,)."""
    images, labels = load_digits(return_X_y=True)
    return hp.Data(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))


class DigitsMLP(hp.TrainingTask):
    """64-128-10 with dropout, trained by SGD with momentum. hpsearch owns the loop and keeps the best epoch."""

    optimizer = "momentum"
    init = "kaiming"
    epochs = 40
    batch_size = 64

    def model(self, params: hp.Params) -> nn.Module:
        # lr, momentum and weight_decay go to the optimizer; every other hyperparameter comes here.
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(128, 10))

    def data(self) -> hp.Data:
        return digits()


class DigitsCNN(hp.TrainingTask):
    """Two convolutions of 16 and 32 filters, one 2 x 2 pooling, dropout before the last layer."""

    optimizer = "momentum"
    init = "kaiming"
    epochs = 40
    batch_size = 64

    def model(self, params: hp.Params) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(params["dropout"]),
            nn.Linear(32 * 4 * 4, 10),
        )

    def data(self) -> hp.Data:
        return digits()
