"""The ResNet stem for 16-bit arithmetic: norms, sums and ReLUs are part of the convolutions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ofa.lowering.packed_conv import PackedConv
from ofa.model.resnet import Bottleneck, ResNet


class FoldedConv(PackedConv):
    """A convolution, the norm after it, and what follows that, in one pass over the memory.

    The norm of a channel, gamma * (y - mean) / sqrt(variance + eps) + beta, is linear in y, so its
    factor goes into the weight, and the rest is a bias.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        size: int,
        dtype: torch.dtype,
        activation: str = "relu",
    ) -> None:
        """Hold a weight and a bias.

        Args:
            conv: as trained.
            norm: likewise, of the convolution's output.
            size: as of `PackedConv`.
            dtype: likewise.
            activation: after the norm, "relu" or "none".

        Raises:
            ValueError: `norm` has no statistics.
        """
        super().__init__(conv, size, dtype)
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise ValueError("a norm without statistics cannot be folded")
        factor = norm.weight.detach() / (variance + norm.eps).sqrt()
        self.weight = (conv.weight.detach() * factor[:, None, None, None]).to(dtype)
        self.bias = (norm.bias.detach() - mean * factor).to(dtype)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, h, w] to [1, out, h / stride, w / stride]."""
        self.pack()
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, self.bias, self.padding, self.stride, [1, 1], 1,
            self.activation, [], "",
        )  # fmt: skip
        return y

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """relu(total + norm(conv(x))), written into `total` and returned.

        Args:
            total: [1, out, h / stride, w / stride], channels last; the caller's to give away.
            x: [1, in, h, w], of the same dtype.
        """
        self.pack()
        y: Tensor = torch.ops.mkldnn._convolution_pointwise_(
            total, x, self.packed, self.bias, self.padding, self.stride, [1, 1], 1,
            "add", 1.0, "relu", [], "",
        )  # fmt: skip
        return y


class FoldedBottleneck(nn.Module):
    """`Bottleneck`, which may write its result over its input."""

    def __init__(self, block: Bottleneck, size: int, dtype: torch.dtype) -> None:
        """Fold a block for inputs with a side of `size`."""
        super().__init__()
        next_size = -(-size // block.conv2.stride[0])
        self.conv1 = FoldedConv(block.conv1, block.bn1, size, dtype)
        self.conv2 = FoldedConv(block.conv2, block.bn2, size, dtype)
        self.conv3 = FoldedConv(block.conv3, block.bn3, next_size, dtype)
        self.downsample: nn.Module = nn.Identity()
        if isinstance(block.downsample, nn.Sequential):
            conv, norm = block.downsample
            self.downsample = FoldedConv(
                cast("nn.Conv2d", conv), cast("nn.BatchNorm2d", norm), size, dtype, "none"
            )

    def forward(self, x: Tensor) -> Tensor:
        """As `Bottleneck`."""
        y = self.conv2(self.conv1(x))
        # Without a downsample that is `x`, which nobody reads any more.
        summed: Tensor = self.conv3.add_to(self.downsample(x), y)
        return summed


class FoldedResNet(nn.Module):
    """`ResNet`, one picture at a time: so no picture's features depend on its batch.

    Norms, sums and ReLUs would read and write all features again, and in 16 bits round them each
    time. Here they are rounded once; that oneDNN wants the bias in 16 bits, too, weighs less.
    """

    def __init__(self, resnet: ResNet, image_size: int, dtype: torch.dtype) -> None:
        """As `PackedResNet`."""
        super().__init__()
        self.dtype = dtype
        self.conv1 = FoldedConv(resnet.conv1, resnet.bn1, image_size, dtype)
        self.maxpool = resnet.maxpool
        size = -(-image_size // 4)
        blocks: list[nn.Module] = []
        for stage in (resnet.layer1, resnet.layer2, resnet.layer3):
            for block in cast("list[Bottleneck]", list(stage)):
                blocks.append(FoldedBottleneck(block, size, dtype))
                size = -(-size // block.conv2.stride[0])
        self.blocks = nn.Sequential(*blocks)

    def forward(self, patch_images: Tensor) -> Tensor:
        """As `ResNet`."""
        features: list[Tensor] = []
        for picture in torch.split(patch_images, 1):
            x = picture.to(self.dtype).contiguous(memory_format=torch.channels_last)
            features.append(self.blocks(self.maxpool(self.conv1(x))))
        return features[0] if len(features) == 1 else torch.cat(features)
