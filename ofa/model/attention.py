"""Multi-head attention with an additive position bias and a learned scale for every head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledDotProduct(nn.Module):
    """softmax(scale * q k^T + bias) v of every head."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """What the heads find, [B, H, T, Dh].

        Args:
            queries: [B, H, T, Dh].
            keys: [B, H, S, Dh].
            values: [B, H, S, Dh].
            bias: added to the scores before the softmax; broadcastable to [B, H, T, S].
        """
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias, scale=self.scale
        )


class Attention(nn.Module):
    """softmax(scale * q k^T + bias) v, each head times its `c_attn`, then `out_proj`.

    Source: modelscope `modeling_ofa.py`, OFAAttention; scale = (head_dim * attn_scale_factor)^-0.5.
    """

    def __init__(self, d_model: int, num_heads: int, attn_scale_factor: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = d_model // num_heads
        self.scale = float(self.head_dim * attn_scale_factor) ** -0.5
        self.product: nn.Module = ScaledDotProduct(self.scale)
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.c_attn = nn.Parameter(torch.ones(num_heads))

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, H, T, D / H]."""
        return x.view(x.size(0), x.size(1), self.num_heads, self.head_dim).transpose(1, 2)

    def project_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `x` [B, S, D], each [B, H, S, D / H]."""
        return self.split_heads(self.k_proj(x)), self.split_heads(self.v_proj(x))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of `x` [B, T, D], each [B, H, T, D / H]."""
        keys, values = self.project_keys_values(x)
        return self.split_heads(self.q_proj(x)), keys, values

    def merge_heads(self, heads: Tensor) -> Tensor:
        """What the heads have found, [B, H, T, D / H], as one output [B, T, D]."""
        heads = heads * self.c_attn.view(1, self.num_heads, 1, 1)
        merged: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return merged

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attend from `x` [B, T, D] to projected keys and values [B, H, S, D / H].

        Args:
            x: what asks.
            keys: from `project_keys_values`.
            values: from `project_keys_values`.
            bias: added to the scores before the softmax; broadcastable to [B, H, T, S].

        Returns:
            [B, T, D].
        """
        queries = self.split_heads(self.q_proj(x))
        return self.merge_heads(self.product(queries, keys, values, bias))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Self-attention of `x` [B, T, D] with `bias` broadcastable to [B, H, T, T]."""
        queries, keys, values = self.project(x)
        return self.merge_heads(self.product(queries, keys, values, bias))
