"""Linear layers for few rows from weights of a quarter of the size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """`nn.Linear` on CPU by oneDNN in 8-bit integers.

    Weights have a scale for every output, rows of the input one each, taken from the row itself:
    so a row's result depends on no other, and sums of integers are exact in any order. Results are
    bfloat16. `PackedLinear` says when the weight is packed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Round a weight [out, in]; hold it and a bias [out]."""
        super().__init__()
        largest = weight.detach().abs().amax(dim=1).clamp(min=1e-12)
        self.scales = largest / 127
        self.weight = (weight.detach() / self.scales[:, None]).round().to(torch.int8)
        self.bias = torch.zeros(weight.size(0)) if bias is None else bias.detach()
        self.zero_points = torch.zeros(weight.size(0), dtype=torch.long)
        self.packed = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to bfloat16 [..., out]."""
        rows = x.flatten(0, -2)
        if self.weight.numel() > 0:
            self.packed = torch.ops.onednn.qlinear_prepack(self.weight, [5, rows.size(1)])
            self.weight = torch.empty(0)
        largest = rows.abs().amax(dim=1, keepdim=True).float().clamp_(min=1e-12)
        # Around 128, because the fast kernels want unsigned rows.
        quantized = (rows * (127 / largest)).round_().add_(128).to(torch.uint8)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, 128, self.packed, self.scales, self.zero_points, None, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip
        product = torch.addcmul(self.bias, product, largest / 127).to(torch.bfloat16)
        return product.view(x.shape[:-1] + product.shape[1:])
