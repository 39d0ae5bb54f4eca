"""Random numbers that are a function of seed, sample and step, and of nothing else.

A counter-based generator keeps no state: the same arguments give the same number on every device
and in every batch. It is Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2,
3" (SC 2011), in tensor operations, so that it can be exported. 32-bit words are held in int64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _multiply(factor: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of 32-bit `factor` times `words`, by halves so that nothing overflows."""
    low_product = factor * (words & 0xFFFF)
    high_product = factor * (words >> 16)
    high = (high_product + (low_product >> 16)) >> 16
    low = (low_product + ((high_product & 0xFFFF) << 16)) & 0xFFFFFFFF
    return high, low


def philox(counter: list[Tensor], key: list[Tensor]) -> list[Tensor]:
    """Four random words for every counter.

    Args:
        counter: four tensors of 32-bit words, int64.
        key: two tensors of 32-bit words, int64; all six shapes are broadcastable.

    Returns:
        Four int64 tensors of words.
    """
    first, second, third, fourth = counter[0], counter[1], counter[2], counter[3]
    key_low, key_high = key[0], key[1]
    for _ in range(10):
        high_0, low_0 = _multiply(0xD2511F53, first)
        high_1, low_1 = _multiply(0xCD9E8D57, third)
        first, second = high_1 ^ second ^ key_low, low_1
        third, fourth = high_0 ^ fourth ^ key_high, low_0
        key_low = (key_low + 0x9E3779B9) & 0xFFFFFFFF
        key_high = (key_high + 0xBB67AE85) & 0xFFFFFFFF
    return [first, second, third, fourth]


def uniforms(seeds: Tensor, num_samples: int, num_steps: int) -> Tensor:
    """Uniform numbers in [0, 1) for every step of every sample of every seed.

    Args:
        seeds: int64 [B].
        num_samples: K.
        num_steps: T.

    Returns:
        float64 [B, K, T] of 53 random bits each.
    """
    steps = torch.arange(num_steps, device=seeds.device)
    samples = torch.arange(num_samples, device=seeds.device)[:, None]
    zero = torch.zeros_like(steps)
    seeds = seeds[:, None, None]
    words = philox([steps, samples, zero, zero], [seeds & 0xFFFFFFFF, (seeds >> 32) & 0xFFFFFFFF])
    return ((words[0] >> 5) * 67108864 + (words[1] >> 6)).double() / 9007199254740992.0
