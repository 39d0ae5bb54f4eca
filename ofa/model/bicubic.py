"""Pillow's bicubic resizing in tensor operations, to the last bit.

Pillow (`src/libImaging/Resample.c`) resizes 8-bit pictures in two passes, rows first. It rounds the
filter's weights to 22 binary places and every pass to whole numbers. All of that are integers below
2 ** 53, so float64 matrix products give its numbers exactly, on any device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Binary places of Pillow's weights (PRECISION_BITS).
_PRECISION = 22


def _cubic(x: float) -> float:
    """Keys's cubic convolution kernel with a = -0.5."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0


def _weights(size: int, new_size: int) -> list[list[int]]:
    """Weight of every old pixel for every new one; each row sums up to about 2 ** _PRECISION."""
    scale = size / new_size
    filter_scale = max(scale, 1.0)
    support = 2.0 * filter_scale
    rows = []
    for index in range(new_size):
        center = (index + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), size)
        values = [_cubic((x - center + 0.5) / filter_scale) for x in range(first, last)]
        total = sum(values)
        row = [0] * size
        for x, value in zip(range(first, last), values, strict=True):
            row[x] = math.trunc(value / total * 2**_PRECISION + math.copysign(0.5, value))
        rows.append(row)
    return rows


class BicubicResize(nn.Module):
    """Square pictures of one size to another."""

    def __init__(self, size: int, new_size: int) -> None:
        super().__init__()
        self.is_needed = size != new_size
        self.one = 2**_PRECISION
        weights = torch.tensor(_weights(size, new_size), dtype=torch.float64)
        self.weights: Tensor = nn.Buffer(weights.T.contiguous())

    def _resize_rows(self, pixels: Tensor) -> Tensor:
        sums = torch.matmul(pixels, self.weights)
        return torch.floor((sums + self.one // 2) / self.one).clamp(0, 255)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [..., size, size] to uint8 [..., new_size, new_size]."""
        if not self.is_needed:
            return images
        narrow = self._resize_rows(images.double())
        return self._resize_rows(narrow.transpose(-1, -2)).transpose(-1, -2).to(torch.uint8)
