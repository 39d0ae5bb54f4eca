"""Linear layers whose weights are laid out for the processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """`nn.Linear` on CPU by oneDNN, whose kernels read the weight in a layout of their own.

    The layout has no serialised form, so an archive holds the plain weight. The first call, a
    server's warm-up, packs it and drops the plain one; from then on the module cannot be saved.
    (Packing while loading would hold both of all layers at once: the archive's reader keeps what it
    has read until it is done.)

    How oneDNN sums up an element can depend on the number of rows. So one product takes the rows of
    one item of the batch, or of several as long as they are few, which changes nothing on any
    processor that was tried: items of equal shape get the same bits in every batch.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        """Hold a weight [out, in] and a bias [out] to be multiplied, and answered, in `dtype`."""
        super().__init__()
        self.weight = weight.detach().to(dtype)
        self.bias = self.weight.new_zeros(weight.size(0))
        if bias is not None:
            self.bias = bias.detach().to(dtype)
        self.max_rows = 20
        self.packed = torch.empty(0)

    def _multiply(self, rows: Tensor) -> Tensor:
        """[n, in] to [n, out]."""
        if rows.size(0) == 1:
            # A single row would be summed up in another order than the same one among several.
            return self._multiply_several(rows.expand(2, -1).contiguous())[:1]
        return self._multiply_several(rows)

    def _multiply_several(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self.packed, self.bias, "none", [], ""
        )
        return product

    def forward(self, x: Tensor) -> Tensor:
        """[items, ..., in] to [items, ..., out]; a matrix is one item."""
        if self.weight.numel() > 0:
            # Laid out for the 5 rows of a usual beam, which does for many rows as well.
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, 5)
            self.weight = torch.empty(0)
        rows = x.flatten(0, -2).to(self.bias.dtype)
        num_rows = rows.size(0)
        rows_of_item = num_rows if x.dim() == 2 else num_rows // x.size(0)
        rows_at_once = max(1, self.max_rows // rows_of_item) * rows_of_item
        if num_rows <= rows_at_once:
            product = self._multiply(rows)
        else:
            product = torch.cat([self._multiply(part) for part in torch.split(rows, rows_at_once)])
        return product.view(x.shape[:-1] + product.shape[1:])
