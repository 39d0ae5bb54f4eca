"""Which module stands in for which on an NVIDIA GPU, in every precision."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.lowering.fused_attention import fuse_self_attention
from ofa.model.attention import Attention
from ofa.model.decoder import DecoderLayer
from ofa.model.encoder import EncoderLayer
from ofa.model.resnet import ResNet
from ofa.model.sharing import copy_sharing_tensors

CUDA_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


#: Norms of a layer whose input comes from a product.
_INNER_NORMS = ("self_attn_mid_layer_norm", "cross_attn_mid_layer_norm", "ffn_layer_norm")


class NarrowLinear(nn.Module):
    """`nn.Linear` that rounds what it gets, and answers, in the dtype of its weights."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight: Tensor = nn.Buffer(linear.weight.detach().to(dtype))
        self.bias: Tensor = nn.Buffer(linear.bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class NarrowProduct(nn.Module):
    """`ScaledDotProduct` with a bias of the queries' dtype, as the fused kernels want it."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """As `ScaledDotProduct`."""
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias.to(queries.dtype), scale=self.scale
        )


class NarrowResNet(nn.Module):
    """`ResNet` in a dtype, its channels last in memory, as the tensor cores want them."""

    def __init__(self, resnet: ResNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.resnet = copy_sharing_tensors(resnet)
        # Not its norms: a variance in 16 bits would cost more than it saves.
        for module in self.resnet.modules():
            if isinstance(module, nn.Conv2d):
                weight = module.weight.detach().to(dtype, memory_format=torch.channels_last)
                module.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, patch_images: Tensor) -> Tensor:
        """As `ResNet`; pictures may be of any dtype."""
        x = patch_images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.resnet(x)
        return features


def lower_for_cuda(generator: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A lowered copy, see `ofa.lowering.lower`; it runs on any device that knows the dtype."""
    lowered = copy_sharing_tensors(generator)
    fuse_self_attention(lowered)
    for module in list(lowered.modules()):
        if isinstance(module, Attention):
            module.product = NarrowProduct(module.scale)
        is_layer = isinstance(module, (Attention, EncoderLayer, DecoderLayer))
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and (is_layer or name == "image_proj"):
                setattr(module, name, NarrowLinear(child, dtype))
            elif isinstance(child, ResNet):
                setattr(module, name, NarrowResNet(child, dtype))
            elif is_layer and name in _INNER_NORMS:
                # A GPU's norm has one dtype for its input and its weights; it sums up in float32.
                setattr(module, name, copy.deepcopy(child).to(dtype))
    return lowered
