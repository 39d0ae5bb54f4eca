"""Attention of a picture's beams to the source."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class AttentionOfBeams(nn.Module):
    """`ScaledDotProduct` on CPU, never with fewer than four queries a row.

    Fewer are multiplied by kernels of MKL whose last bit depends on how a buffer is aligned, which
    follows from the thread that a row falls to. With four and more no processor that was tried
    shows a difference between a row alone and in a batch. More queries hardly take longer, because
    reading the keys does.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.least_queries = 4

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """As `ScaledDotProduct`."""
        num_queries = queries.size(2)
        missing = self.least_queries - num_queries
        if missing > 0:
            queries = F.pad(queries, [0, 0, 0, missing])
            if bias.size(-2) > 1:
                bias = F.pad(bias, [0, 0, 0, missing])
        heads = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias, scale=self.scale
        )
        return heads[:, :, :num_queries]
