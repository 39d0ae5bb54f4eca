"""Attention over long sources, one head of one picture at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionByHead(nn.Module):
    """`ScaledDotProduct` on CPU by oneDNN, whose products of one head are larger than a tile's.

    `scaled_dot_product_attention` multiplies small tiles with MKL, which wins where memory is
    short. A head's scores of a picture are a few megabytes, which the cache holds: three whole
    passes over them take half as long, and no answer depends on what else is in the batch.

    In any precision, scores and their softmax are float32.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """As `ScaledDotProduct`."""
        batch_size, num_heads = queries.size(0), queries.size(1)
        scaled_queries = (queries.float() * self.scale).contiguous()
        wide_keys = keys.float().contiguous()
        values_by_channel = values.transpose(2, 3).contiguous()
        biases = bias.expand(batch_size, num_heads, -1, -1)
        heads = torch.empty(queries.shape, dtype=values.dtype, device=values.device)
        for item in range(batch_size):
            for head in range(num_heads):
                scores = _multiply(scaled_queries[item, head], wide_keys[item, head])
                weights = torch.softmax(scores.add_(biases[item, head]), dim=-1)
                weights = weights.to(values.dtype)
                heads[item, head] = _multiply(weights, values_by_channel[item, head])
        return heads


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """[m, k] and [n, k] to [m, n]."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return product
