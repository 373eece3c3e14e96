"""Normalisation layers whose numbers are searched, or depend on how often they were called."""

from corpus_data import Small, images, vectors
from torch import nn


class BatchNormNumbers(Small):
    """Momentum and eps of BatchNorm differ between lanes; torch takes both as Python floats."""

    def model(self, params):
        norm = nn.BatchNorm1d(16, eps=params["eps"], momentum=params["bn_momentum"])
        return nn.Sequential(nn.Linear(8, 16), norm, nn.ReLU(), nn.Linear(16, 4))

    def data(self):
        return vectors()


class CumulativeBatchNorm(Small):
    """momentum=None: the average over all batches so far, for which torch reads a counter out of a tensor."""

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=None), nn.ReLU(), nn.Linear(16, 4))

    def data(self):
        return vectors()


class WithoutStatistics(Small):
    """BatchNorm that normalises by the batch in validation too."""

    def model(self, params):
        norm = nn.BatchNorm1d(16, track_running_stats=False, eps=params["eps"])
        return nn.Sequential(nn.Linear(8, 16), norm, nn.ReLU(), nn.Linear(16, 4))

    def data(self):
        return vectors()


class LayerAndGroupNorm(Small):
    """Norms without state, all with a searched eps."""

    def model(self, params):
        eps = params["eps"]
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.GroupNorm(2, 4, eps=eps),
            nn.ReLU(),
            nn.Flatten(),
            nn.LayerNorm(144, eps=eps),
            nn.Linear(144, 8),
            nn.RMSNorm(8, eps=eps),
            nn.Linear(8, 4),
        )

    def data(self):
        return images()
