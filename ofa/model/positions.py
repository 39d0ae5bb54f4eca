"""Where tokens and patches stand: bucket indices and the bias they give to attention scores.

Every attention score gets an absolute bias, the scaled product of two projections of position
embeddings, and inside the text and inside the picture a relative bias out of a learned table.
Neither depends on content. No position is added to the inputs, unless a checkpoint entangles them;
then the ofasys layout has no absolute bias.

Source: modelscope `modeling_ofa.py` (make_token_bucket_position, make_image_bucket_position).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Text positions that the logarithmic scale is made for (the rows of the reference's buffer).
MAX_TEXT_LENGTH = 1024


def token_buckets(bucket_size: int, length: int, max_length: int = MAX_TEXT_LENGTH) -> Tensor:
    """Row of the token bias table for every pair of text positions.

    Distances up to half of `bucket_size` have a bucket each; longer ones share buckets on a
    logarithmic scale.

    Returns:
        int64 [length, length], values 0 to 2 * bucket_size - 2; entry [i, j] is for query i, key j.
    """
    mid = bucket_size // 2
    position = torch.arange(length, dtype=torch.long)
    distance = position[:, None] - position[None, :]
    far = distance.abs().clamp(min=mid).to(torch.float32)
    steps = torch.log(far / mid) / math.log((max_length - 1) / mid) * (mid - 1)
    far_bucket = torch.ceil(steps).to(torch.long) + mid
    bucket = torch.where(distance.abs() <= mid, distance, far_bucket * distance.sign())
    return bucket + bucket_size - 1


def image_buckets(bucket_size: int, height: int, width: int) -> Tensor:
    """Row of the image bias table for every pair of patches of a `height` x `width` grid.

    Returns:
        int64 [height * width, height * width] for patches in row-major order.
    """
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    row_distance = rows[:, None] - rows[None, :] + bucket_size - 1
    column_distance = columns[:, None] - columns[None, :] + bucket_size - 1
    return row_distance * (2 * bucket_size - 1) + column_distance


def code_buckets(bucket_size: int, height: int, width: int) -> Tensor:
    """Row of the image bias table for every pair of decoder positions in code mode.

    Position 0 is BOS, which has three rows of its own at the end of the table: as query, as key,
    and as both. The codes of a `height` x `width` grid follow.

    Returns:
        int64 [1 + height * width, 1 + height * width]; entry [i, j] is for query i, key j.
    """
    buckets = F.pad(image_buckets(bucket_size, height, width), [1, 0, 1, 0])
    first = num_image_buckets(bucket_size) - 3
    buckets[0, :] = first
    buckets[:, 0] = first + 1
    buckets[0, 0] = first + 2
    return buckets


def num_image_buckets(bucket_size: int) -> int:
    """Rows of the image bias table: every 2-d distance, and three special slots of the decoder."""
    num_distances = 2 * bucket_size - 1  # of rows, and as many of columns
    return num_distances * num_distances + 3


def image_position_ids(bucket_size: int, height: int, width: int) -> Tensor:
    """Row of the image position table for every patch, int64 [height * width], row-major."""
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    return rows * bucket_size + columns + 1


def embedding_tables(num_tables: int, num_buckets: int, num_heads: int) -> Sequence[nn.Embedding]:
    """Relative bias tables, one a layer, or one for all layers that share it."""
    tables = nn.ModuleList(nn.Embedding(num_buckets, num_heads) for _ in range(num_tables))
    return cast("Sequence[nn.Embedding]", tables)


def relative_bias(table: Tensor, buckets: Tensor) -> Tensor:
    """Look up `table` [buckets, H] for every pair: [H, T, T]."""
    return table[buckets.to(table.device)].permute(2, 0, 1)


class AbsolutePositionBias(nn.Module):
    """The scaled product of projected query and key positions.

    It owns no parameters of its own: the two projections live in the encoder or decoder under the
    names of the reference's state dict.
    """

    def __init__(self, d_model: int, num_heads: int, attn_scale_factor: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = d_model // num_heads
        self.scale = float(self.head_dim * attn_scale_factor) ** -0.5

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Projected positions [T, D] and [S, D] to a bias [H, T, S]."""
        q = queries.view(queries.size(0), self.num_heads, self.head_dim).transpose(0, 1)
        k = keys.view(keys.size(0), self.num_heads, self.head_dim).transpose(0, 1)
        return torch.matmul(q * self.scale, k.transpose(1, 2))


class NoPositionBias(nn.Module):
    """Zeros, in place of `AbsolutePositionBias` where positions are added to the inputs instead."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions [T, D] and [S, D] to a bias [H, T, S] of zeros."""
        return queries.new_zeros([self.num_heads, queries.size(0), keys.size(0)])


class UnappliedLayerNorm(nn.LayerNorm):
    """Holds parameters that a checkpoint has and the reference never applies."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x


class UnappliedLinear(nn.Linear):
    """Holds parameters that a checkpoint has and the reference never applies."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x
