"""Linear layers for few rows from weights of a quarter of the size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """`nn.Linear` on CPU by FBGEMM in 8-bit integers.

    Weights have a scale for every output, rows of the input one each, taken from the row itself:
    so a row's result depends on no other, and sums of integers are exact in any order. Results are
    bfloat16. `PackedLinear` says when the weight is packed.

    FBGEMM rounds rows within its call. oneDNN's product in integers leaves that to passes before
    it, and takes a quarter longer with them, or twice as long where layers are small.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Round a weight [out, in]; hold it and a bias [out]."""
        super().__init__()
        largest = weight.detach().abs().amax(dim=1).clamp(min=1e-12)
        self.scales = largest / 127
        self.weight = (weight.detach() / self.scales[:, None]).round().to(torch.int8)
        self.bias = torch.zeros(weight.size(0)) if bias is None else bias.detach()
        # Scripting needs an object of the right type from the start.
        self.packed = torch.ops.quantized.linear_prepack_fp16(torch.zeros(1, 1), None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to bfloat16 [..., out]."""
        rows = x.flatten(0, -2)
        if self.weight.numel() > 0:
            zero_points = torch.zeros(self.scales.size(0), dtype=torch.long)
            weight = torch._make_per_channel_quantized_tensor(
                self.weight, self.scales, zero_points, 0
            )
            self.packed = torch.ops.quantized.linear_prepack(weight, None)
            self.weight = torch.empty(0)
        scales = rows.abs().amax(dim=1, keepdim=True).float().clamp_(min=1e-12) * (1 / 127)
        # Around 128, because the fast kernels want unsigned rows.
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / scales, 1.0, 128, self.packed
        )
        product = torch.addcmul(self.bias, product, scales).to(torch.bfloat16)
        return product.view(x.shape[:-1] + product.shape[1:])
