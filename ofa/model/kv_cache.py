"""Keys and values that decoding needs again at every step.

Shapes: B batch, K beams, H heads, T target positions, S source positions, Dh width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class KVCache(NamedTuple):
    """One tensor a layer and kind.

    Attributes:
        self_keys: [B * K, H, T, Dh], preallocated, filled from the left.
        self_values: like `self_keys`.
        cross_keys: [B, H, S, Dh], projected once and shared by a picture's beams.
        cross_values: like `cross_keys`.
    """

    self_keys: list[Tensor]
    self_values: list[Tensor]
    cross_keys: list[Tensor]
    cross_values: list[Tensor]


def make_cache(cross: list[tuple[Tensor, Tensor]], num_beams: int, max_length: int) -> KVCache:
    """An empty self-attention cache beside the given cross-attention keys and values.

    Args:
        cross: every layer's keys and values of the source.
        num_beams: beams a picture.
        max_length: target positions to make room for.
    """
    self_keys: list[Tensor] = []
    self_values: list[Tensor] = []
    for keys, _ in cross:
        shape = [keys.size(0) * num_beams, keys.size(1), max_length, keys.size(3)]
        self_keys.append(torch.empty(shape, dtype=keys.dtype, device=keys.device))
        self_values.append(torch.empty(shape, dtype=keys.dtype, device=keys.device))
    return KVCache(
        self_keys, self_values, [keys for keys, _ in cross], [values for _, values in cross]
    )


def reorder_cache(cache: KVCache, rows: Tensor, length: int) -> None:
    """Let every beam go on from the beam it was chosen from.

    Args:
        cache: changed in place.
        rows: int64 [B * K], for every new row the old one.
        length: positions filled so far.
    """
    for tensors in (cache.self_keys, cache.self_values):
        for tensor in tensors:
            filled = tensor[:, :, :length]
            filled.copy_(filled.index_select(0, rows))
