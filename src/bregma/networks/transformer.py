"""Transformer layers for feature maps and landmark queries, pre-norm (Xiong et al., ICML 2020).

Shape suffixes: B batch, T tokens, S tokens attended to, C channels, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_EXPANSION = 4
"""Hidden width of a feed-forward block, in widths (Vaswani et al., NeurIPS 2017)."""


class Attention(nn.Module):
    """Multi-head attention of tokens to a memory, with an optional bias on the logits."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        # A bias on keys shifts all logits of a query alike, and softmax does not see it.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor, memory_BSC: Tensor, bias_HTS: Tensor | None = None) -> Tensor:
        """Return ``(B, T, C)``: for every token the memory's values, weighted."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x_BTC), self.key(memory_BSC), self.value(memory_BSC))
        )
        bias = None if bias_HTS is None else bias_HTS[None].to(q.dtype)
        return self.out(functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Two linear layers over each token, with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, _EXPANSION * width), nn.GELU(), nn.Linear(_EXPANSION * width, width))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_feed, self.feed = nn.LayerNorm(width), FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return the tokens, mixed."""
        normed = self.norm_attention(x_BTC)
        x_BTC = x_BTC + self.dropout(self.attention(normed, normed))
        return x_BTC + self.dropout(self.feed(self.norm_feed(x_BTC)))


class QueryLayer(nn.Module):
    """Queries read the features, then each other under a bias, then a feed-forward; each added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_cross, self.cross = nn.LayerNorm(width), Attention(width, heads)
        self.norm_mutual, self.mutual = nn.LayerNorm(width), Attention(width, heads)
        self.norm_feed, self.feed = nn.LayerNorm(width), FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries_BTC: Tensor, memory_BSC: Tensor, bias_HTT: Tensor | None = None) -> Tensor:
        """Return the queries, changed; ``memory_BSC`` is normed already."""
        x = queries_BTC + self.dropout(self.cross(self.norm_cross(queries_BTC), memory_BSC))
        normed = self.norm_mutual(x)
        x = x + self.dropout(self.mutual(normed, normed, bias_HTT))
        return x + self.dropout(self.feed(self.norm_feed(x)))


def sine_positions(rows: int, columns: int, width: int, *, device: torch.device) -> Tensor:
    """Return the position of every cell of a map as ``(rows * columns, width)`` sines and cosines.

    Half of the channels tell the row, half the column, each as a fraction of the map's extent, so that another input
    size changes little (Carion et al., DETR, ECCV 2020, with its temperature of 10,000).
    """
    y, x = ((torch.arange(n, device=device) + 0.5) / n * (2 * math.pi) for n in (rows, columns))
    rates = 10_000.0 ** -(torch.arange(width // 4, device=device) / (width // 4))
    row, column = (torch.cat([(p[:, None] * rates).sin(), (p[:, None] * rates).cos()], dim=1) for p in (y, x))
    return torch.cat(
        [row[:, None].expand(rows, columns, width // 2), column[None].expand(rows, columns, width // 2)], dim=-1
    ).flatten(0, 1)
