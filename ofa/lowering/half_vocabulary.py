"""Scores over the vocabulary from weights of half the size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HalfVocabulary(nn.Module):
    """`VocabularyProjection` on CPU of one embedding rounded to float16, summed up in float32.

    A step of the search takes as long as reading these weights does. float16 keeps three bits more
    of them than bfloat16, and FBGEMM multiplies them with float32 states: scores are off by a
    few ten-thousandths, where bfloat16 products would round them to two or three digits.

    Every row is summed up alike, however many there are. `PackedLinear` says when it is packed.
    """

    def __init__(self, embedding: Tensor) -> None:
        """Hold an embedding [V, D]."""
        super().__init__()
        self.weight = embedding.detach().half()
        # Scripting needs an object of the right type from the start.
        self.packed = torch.ops.quantized.linear_prepack_fp16(torch.zeros(1, 1), None)

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        """[..., D] to [..., V]; the embedding is packed already."""
        if self.weight.numel() > 0:
            self.packed = torch.ops.quantized.linear_prepack_fp16(self.weight.float(), None)
            self.weight = torch.empty(0)
        logits: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return logits
