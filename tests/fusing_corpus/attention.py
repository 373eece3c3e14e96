"""Transformers: by hand, torch's own layer, and attention whose dropout is inside torch's kernel."""

import math

import torch
from corpus_data import TOKENS, Small, texts
from torch import nn
from torch.nn import functional as F


class Texts(Small):
    def data(self):
        return texts()


class Attention(nn.Module):
    def __init__(self, width, heads, p):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.drop = nn.Dropout(p)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = self.drop((q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1))
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, d))


class Encoder(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, 8)
        self.places = nn.Parameter(torch.zeros(6, 8))
        self.attention = Attention(8, 2, p)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(p), nn.Linear(16, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


class ByHand(Texts):
    """Pre-norm encoder with an nn.Parameter for the places, and dropout of the attention weights."""

    optimizer = "adam"

    def model(self, params):
        return Encoder(params["dropout"])


class Layer(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=p, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens):
        return self.head(self.layer(self.tokens(tokens)).mean(1))


class TorchLayer(Texts):
    """nn.TransformerEncoderLayer without dropout: it takes a fast path of its own in validation."""

    optimizer = "adamw"

    def model(self, params):
        return Layer(0.0)


class TorchLayerWithDropout(Texts):
    """The same with dropout, of which that of the attention is drawn by torch itself."""

    def model(self, params):
        return Layer(params["dropout"])


class Fused(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p, self.tokens, self.head = p, nn.Embedding(TOKENS, 8), nn.Linear(8, 4)

    def forward(self, tokens):
        x = self.tokens(tokens)[:, None]
        x = F.scaled_dot_product_attention(x, x, x, dropout_p=self.p if self.training else 0.0, is_causal=True)
        return self.head(x[:, 0].mean(1))


class ScaledDotProduct(Texts):
    """F.scaled_dot_product_attention without dropout, with a causal mask."""

    def model(self, params):
        return Fused(0.0)


class ScaledDotProductWithDropout(Texts):
    """Its dropout is drawn inside the kernel."""

    def model(self, params):
        return Fused(params["dropout"])
