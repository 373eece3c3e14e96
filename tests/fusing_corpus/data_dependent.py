"""Python that looks at numbers of tensors, and Python that looks only at their shapes."""

import torch
from corpus_data import Small, vectors
from torch import nn


class Vectors(Small):
    def data(self):
        return vectors()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)


class ByItem(Net):
    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(x / (1 + x.mean().item()))


class Item(Vectors):
    """``.item()`` in the forward."""

    def model(self, params):
        return ByItem()


class ByBranch(Net):
    def forward(self, x):
        x = self.first(x)
        x = torch.relu(x) if x.mean() > 0 else torch.tanh(x)
        return self.last(x)


class Branch(Vectors):
    """``if x.mean() > 0``."""

    def model(self, params):
        return ByBranch()


class ByShape(Net):
    def forward(self, x):
        x = self.first(x)
        x = torch.relu(x) if x.shape[0] == 16 else torch.tanh(x)
        if len(x) % 2 == 0 and x.size(-1) > 4:
            x = x * 0.9
        return self.last(x)


class Shape(Vectors):
    """A branch by the shape of the batch: the last one, of 4, and validation go another way."""

    def model(self, params):
        return ByShape()


class ByMask(Net):
    def forward(self, x):
        x = self.first(x)
        active = x[x > 0]
        return self.last(x) + active.std()


class Mask(Vectors):
    """Boolean indexing: the shape depends on data."""

    def model(self, params):
        return ByMask()


class ByWhere(Net):
    def forward(self, x):
        x = self.first(x)
        values, places = x.topk(8, dim=1)
        kept = torch.zeros_like(x).scatter(1, places, values)
        return self.last(torch.where(kept > 0, kept, 0.1 * kept))


class TopK(Vectors):
    """The same idea in tensors: topk, scatter and where."""

    def model(self, params):
        return ByWhere()


class ByList(Net):
    def forward(self, x):
        x = self.first(x)
        return self.last(x * torch.tensor(x.detach().std(0).tolist(), dtype=x.dtype))


class ToList(Vectors):
    """Through Python and back: ``tolist``."""

    def model(self, params):
        return ByList()


class ByNumpy(Net):
    def forward(self, x):
        x = self.first(x)
        return self.last(x * torch.from_numpy(x.detach().cpu().numpy().std(0)))


class Numpy(Vectors):
    """Through numpy and back."""

    def model(self, params):
        return ByNumpy()


class Checked(Net):
    def forward(self, x):
        x = self.first(x)
        assert torch.isfinite(x).all(), "not finite"
        return self.last(torch.relu(x))


class Assertion(Vectors):
    """An assertion about numbers."""

    def model(self, params):
        return Checked()
