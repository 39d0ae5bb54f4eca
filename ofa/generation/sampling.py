"""Nucleus sampling as a tensor function, the network left out.

Shapes: V tokens to choose from. Source: modelscope `generate/search.py`, Sampling.
"""

from __future__ import annotations

import torch
from torch import Tensor


def nucleus(log_probs: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The smallest set of the likeliest tokens whose probabilities sum up to `top_p`.

    Args:
        log_probs: float32 [..., V]; they need not sum up to 1.
        top_p: at least this much is kept, or everything if all is less.

    Returns:
        Probabilities float32 [..., V] in descending order, 0 where a token is not kept, and the
        tokens in the same order, int64 [..., V].
    """
    probs, tokens = log_probs.exp().sort(dim=-1, descending=True, stable=True)
    num_below = (probs.cumsum(-1) < top_p).sum(-1, keepdim=True)
    rank = torch.arange(probs.size(-1), device=probs.device)
    return probs.masked_fill(rank > num_below, 0.0), tokens


def draw(log_probs: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """Draw one token out of every nucleus, each with a chance in proportion to its probability.

    Args:
        log_probs: float32 [..., V].
        top_p: see `nucleus`.
        uniform: float64 [...] in [0, 1), decides the draw.

    Returns:
        int64 [...].
    """
    probs, tokens = nucleus(log_probs, top_p)
    mass = probs.double().cumsum(-1)
    # A uniform number just below 1 may round to the whole mass: the last kept token is meant.
    last = (probs > 0).sum(-1, keepdim=True) - 1
    rank = (mass <= uniform.unsqueeze(-1) * mass[..., -1:]).sum(-1, keepdim=True)
    return tokens.gather(-1, rank.minimum(last)).squeeze(-1)
