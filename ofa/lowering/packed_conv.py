"""The ResNet stem with its weights laid out for the processor."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ofa.model.resnet import Bottleneck, ResNet
from ofa.model.sharing import copy_sharing_tensors


class PackedConv(nn.Module):
    """`nn.Conv2d` without a bias on CPU by oneDNN, packed as `PackedLinear` is."""

    def __init__(self, conv: nn.Conv2d, size: int, dtype: torch.dtype) -> None:
        """Hold a weight.

        Args:
            conv: as trained.
            size: side of the input in pixels that the layout is chosen for; others do as well.
            dtype: of input and output.
        """
        super().__init__()
        self.weight = conv.weight.detach().to(dtype)
        self.padding = [int(conv.padding[0])] * 2
        self.stride = [conv.stride[0]] * 2
        self.input_size = [1, conv.in_channels, size, size]
        self.packed = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, h, w] to [1, out, h / stride, w / stride]."""
        self.pack()
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, None, self.padding, self.stride, [1, 1], 1, "none", [], ""
        )
        return y

    def pack(self) -> None:
        """Lays the weight out, in the first call only."""
        if self.weight.numel() > 0:
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, [1, 1], 1, self.input_size
            )
            self.weight = torch.empty(0)


class PackedResNet(nn.Module):
    """`ResNet`, one picture at a time: so no picture's features depend on its batch.

    Norms are not folded into the weights, as `FoldedResNet` has them: in float32 that would round
    otherwise than the reference, which a deep stem makes visible in the scores.
    """

    def __init__(self, resnet: ResNet, image_size: int, dtype: torch.dtype) -> None:
        """Pack a stem for square pictures of `image_size` pixels.

        Its features are of `dtype`; pictures may be of any.
        """
        super().__init__()
        self.dtype = dtype
        self.resnet = copy_sharing_tensors(resnet)
        pack = partial(_replace_conv, dtype=dtype)
        pack(self.resnet, "conv1", image_size)
        size = -(-image_size // 4)
        for stage in (self.resnet.layer1, self.resnet.layer2, self.resnet.layer3):
            for block in cast("list[Bottleneck]", list(stage)):
                next_size = -(-size // block.conv2.stride[0])
                pack(block, "conv1", size)
                pack(block, "conv2", size)
                pack(block, "conv3", next_size)
                if isinstance(block.downsample, nn.Sequential):
                    pack(block.downsample, "0", size)
                size = next_size

    def forward(self, patch_images: Tensor) -> Tensor:
        """As `ResNet`."""
        features: list[Tensor] = []
        for picture in torch.split(patch_images, 1):
            x = picture.to(self.dtype).contiguous(memory_format=torch.channels_last)
            features.append(self.resnet(x))
        return features[0] if len(features) == 1 else torch.cat(features)


def _replace_conv(module: nn.Module, name: str, size: int, dtype: torch.dtype) -> None:
    setattr(module, name, PackedConv(getattr(module, name), size, dtype))
