"""Self-attention with one product for queries, keys and values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa.model.attention import Attention
from ofa.model.decoder import DecoderLayer
from ofa.model.encoder import EncoderLayer


class FusedAttention(Attention):
    """`Attention` of positions to one another, whose three projections are one linear layer.

    A decoder step multiplies few rows; much of that is what a call costs, and the rest is reading
    weights, which goes faster in one piece.
    """

    def __init__(self, attention: Attention) -> None:
        """Share the tensors of `attention`, but for the joined ones."""
        # Not the parent's, which would make weights of its own.
        nn.Module.__init__(self)
        self.num_heads = attention.num_heads
        self.head_dim = attention.head_dim
        self.scale = attention.scale
        self.product = attention.product
        self.out_proj = attention.out_proj
        self.c_attn = attention.c_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        width = attention.q_proj.in_features
        # "meta": it gets its weights in the next lines.
        self.qkv_proj = nn.Linear(width, 3 * width, device="meta")
        self.qkv_proj.weight = _joined(*(part.weight for part in parts))
        self.qkv_proj.bias = _joined(*(part.bias for part in parts))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention.project`."""
        shape = [x.size(0), x.size(1), 3, self.num_heads, self.head_dim]
        queries, keys, values = self.qkv_proj(x).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values

    def project_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Attention.project_keys_values`; positions attend to one another with `project`."""
        _, keys, values = self.project(x)
        return keys, values


def fuse_self_attention(generator: nn.Module) -> None:
    """Replace the self-attention of all layers, in place."""
    for module in list(generator.modules()):
        if isinstance(module, (EncoderLayer, DecoderLayer)):
            module.self_attn = FusedAttention(module.self_attn)


def _joined(*parts: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.cat(parts), requires_grad=False)
