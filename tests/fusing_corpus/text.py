"""Embeddings of int64 tokens: plain, in bags, tied, sparse, and one that rescales its own rows."""

from corpus_data import TOKENS, Small, texts
from torch import nn
from torch.nn import functional as F


class Texts(Small):
    def data(self):
        return texts()


class Mean(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.tokens, self.head = nn.Embedding(TOKENS, 8, **options), nn.Linear(8, 4)

    def forward(self, tokens):
        return self.head(self.tokens(tokens).mean(1))


class Embedding(Texts):
    """A plain embedding of tokens."""

    def model(self, params):
        return Mean()


class Padding(Texts):
    """Token 0 is padding: its row has no gradient, in every lane."""

    def model(self, params):
        return Mean(padding_idx=0)


class SparseEmbedding(Texts):
    """Sparse gradients, which the stacked update does not know."""

    def model(self, params):
        return Mean(sparse=True)


class MaxNorm(Texts):
    """max_norm: the forward rescales rows of the weight itself, in place."""

    def model(self, params):
        return Mean(max_norm=1.0)


class Bag(Texts):
    """EmbeddingBag."""

    def model(self, params):
        return nn.Sequential(nn.EmbeddingBag(TOKENS, 8, mode="mean"), nn.Linear(8, 4))


class TiedNet(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 8)
        self.decoder = nn.Linear(8, TOKENS, bias=False)
        self.decoder.weight = self.embedding.weight
        self.drop = nn.Dropout(p)

    def forward(self, tokens):
        scores = self.decoder(self.drop(self.embedding(tokens).mean(1)))
        return F.avg_pool1d(scores[:, None], 5)[:, 0]


class Tied(Texts):
    """decoder.weight is embedding.weight: one parameter with two names and one gradient."""

    def model(self, params):
        return TiedNet(params["dropout"])
