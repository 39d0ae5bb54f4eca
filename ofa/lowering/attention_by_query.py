"""Attention of single queries to short histories: a decoder step's self-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionByQuery(nn.Module):
    """`ScaledDotProduct` on CPU for one query a row, without a matrix product.

    For so little, `scaled_dot_product_attention` calls MKL on buffers whose alignment follows from
    the thread that a row falls to, and with it, on some shapes, the last bit of the result. Sums
    of element-wise products are the same in every batch.

    In any precision, everything is computed in float32.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """As `ScaledDotProduct`, for queries [B, H, 1, Dh]."""
        scaled_queries = queries.float() * self.scale
        scores = (scaled_queries * keys).sum(dim=-1).unsqueeze(-2) + bias  # [B, H, 1, S]
        weights = torch.softmax(scores, dim=-1).transpose(-1, -2)
        return (weights * values).sum(dim=-2, keepdim=True).to(queries.dtype)
