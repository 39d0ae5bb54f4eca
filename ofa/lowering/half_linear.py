"""Linear layers for few rows from weights of half the size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HalfLinear(nn.Module):
    """`nn.Linear` on CPU whose weights are float16, multiplied and summed up in float32 by FBGEMM.

    A step of the search takes as long as reading its weights does. float16 keeps three bits more
    of them than bfloat16, and nothing else is rounded: logits of the vocabulary are off by a few
    ten-thousandths, where bfloat16 products would leave them two or three digits.

    Every row is summed up alike, however many there are. `PackedLinear` says when it is packed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Hold a weight [out, in] and a bias [out]."""
        super().__init__()
        self.weight = weight.detach().half()
        self.bias = torch.zeros(weight.size(0)) if bias is None else bias.detach()
        # Scripting needs an object of the right type from the start.
        self.packed = torch.ops.quantized.linear_prepack_fp16(torch.zeros(1, 1), None)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] to [..., out]."""
        if self.weight.numel() > 0:
            weight = self.weight.float()
            self.packed = torch.ops.quantized.linear_prepack_fp16(weight, self.bias)
            self.weight = torch.empty(0)
        product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return product
