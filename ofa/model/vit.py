"""The image stem of the ofasys layout: CLIP's vision transformer without its class token.

Source: modelscope `models/multi_modal/ofa/vit.py`; module names follow its state dict.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ViTSize(NamedTuple):
    """Size of a stem.

    Attributes:
        image_size: side in pixels of the pictures that the position table was made for.
        patch_size: side of a patch in pixels.
        width: channels.
        num_layers: transformer blocks.
        num_heads: attention heads of a block.
    """

    image_size: int
    patch_size: int
    width: int
    num_layers: int
    num_heads: int


#: By the checkpoint's `vit_type`.
VIT_SIZES: dict[str, ViTSize] = {
    "vit_base": ViTSize(224, 16, 768, 9, 12),
    "vit_large": ViTSize(224, 14, 1024, 18, 16),
    "vit_large_336": ViTSize(336, 14, 1024, 18, 16),
    "vit_huge": ViTSize(224, 14, 1280, 24, 16),
}


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of any shape."""
        return x * torch.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Plain multi-head attention with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, num_heads: int, *, is_causal: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.is_causal = is_causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, P, W] to the same shape."""
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        # Queries, keys and values, together [3, B, H, P, W / H].
        split = projected.view(x.size(0), x.size(1), 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(
            split[0], split[1], split[2], is_causal=self.is_causal
        )
        return self.out_proj(heads.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, width: int, num_heads: int, *, is_causal: bool) -> None:
        super().__init__()
        self.attn = SelfAttention(width, num_heads, is_causal=is_causal)
        self.ln_1 = nn.LayerNorm(width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["c_fc"] = nn.Linear(width, 4 * width)
        layers["gelu"] = QuickGELU()
        layers["c_proj"] = nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(layers)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, P, W] to the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """The blocks, one after another; causal ones let a position see none after it."""

    def __init__(
        self, width: int, num_layers: int, num_heads: int, *, is_causal: bool = False
    ) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(
            *[Block(width, num_heads, is_causal=is_causal) for _ in range(num_layers)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, P, W] to the same shape."""
        return self.resblocks(x)


class VisionTransformer(nn.Module):
    """Pictures to a grid of patch features, one for every whole patch.

    Learned positions are added to the patches; for pictures of another height than the native one
    their grid is stretched bilinearly. Row 0 of the table, the class token's, is never read.
    """

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.image_size = size.image_size
        self.grid_size = size.image_size // size.patch_size
        self.conv1 = nn.Conv2d(3, size.width, size.patch_size, stride=size.patch_size, bias=False)
        self.positional_embedding = nn.Parameter(
            size.width**-0.5 * torch.randn(self.grid_size**2 + 1, size.width)
        )
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = Transformer(size.width, size.num_layers, size.num_heads)

    def positions(self, image_height: int, grid_height: int, grid_width: int) -> Tensor:
        """Position of every patch, [grid_height * grid_width, W], row-major."""
        native = self.positional_embedding[1:]
        if image_height == self.image_size:
            return native
        grid = native.view(1, self.grid_size, self.grid_size, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=[grid_height, grid_width], mode="bilinear")
        return grid[0].flatten(1).transpose(0, 1)

    def forward(self, patch_images: Tensor) -> Tensor:
        """Normalised float [B, 3, height, width] to [B, W, height // patch, width // patch]."""
        patches = self.conv1(patch_images)
        grid_height, grid_width = patches.size(2), patches.size(3)
        x = patches.flatten(2).transpose(1, 2)
        x = x + self.positions(patch_images.size(2), grid_height, grid_width)
        x = self.transformer(self.ln_pre(x))
        return x.transpose(1, 2).reshape(patches.shape)
