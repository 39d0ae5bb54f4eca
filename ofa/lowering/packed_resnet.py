"""The ResNet stem in few calls: norms folded into weights, ReLU and sums done by the kernels."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ofa.model.resnet import Bottleneck, ResNet


class PackedConv(nn.Module):
    """A convolution with its BatchNorm on CPU by oneDNN, packed as `PackedLinear` is."""

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, size: int, dtype: torch.dtype
    ) -> None:
        """Fold and pack.

        Args:
            conv: without a bias.
            norm: behind it.
            size: side of the input in pixels that the layout is chosen for; others do as well.
            dtype: of input and output.
        """
        super().__init__()
        mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
        # In float64, so that nothing but the rounding of the folded weight is lost.
        scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
        bias = norm.bias.double() - mean.double() * scale
        weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
        self.weight = weight.detach().to(dtype)
        self.bias = bias.detach().to(dtype)
        self.padding = [int(conv.padding[0])] * 2
        self.stride = [conv.stride[0]] * 2
        self.input_size = [1, conv.in_channels, size, size]
        self.packed = _pack(self.weight, self.padding, self.stride, self.input_size)

    def forward(self, x: Tensor, activation: str) -> Tensor:
        """[1, in, h, w] to [1, out, h / stride, w / stride]; `activation` is "relu" or "none"."""
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, self.bias, self.padding, self.stride, [1, 1], 1, activation, [], ""
        )
        return y

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """relu(residual + conv(x)), written over `residual`."""
        y: Tensor = torch.ops.mkldnn._convolution_pointwise_(
            residual, x, self.packed, self.bias, self.padding, self.stride, [1, 1], 1,
            "add", 1.0, "relu", [], "",
        )  # fmt: skip
        return y

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, list[int], list[int], list[int], bool]:
        """What is saved."""
        if self.weight.numel() == 0:
            raise RuntimeError("the weight was packed when it was loaded: it cannot be saved again")
        return self.weight, self.bias, self.padding, self.stride, self.input_size, self.training

    @torch.jit.export
    def __setstate__(
        self, state: tuple[Tensor, Tensor, list[int], list[int], list[int], bool]
    ) -> None:
        """Pack what was saved."""
        self.weight = torch.empty(0)
        self.bias = state[1]
        self.padding = state[2]
        self.stride = state[3]
        self.input_size = state[4]
        self.training = state[5]
        self.packed = _pack(state[0], state[2], state[3], state[4])


class PackedBottleneck(nn.Module):
    """`Bottleneck` without its norms."""

    def __init__(self, block: Bottleneck, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv1 = PackedConv(block.conv1, block.bn1, size, dtype)
        self.conv2 = PackedConv(block.conv2, block.bn2, size, dtype)
        stride = block.conv2.stride[0]
        self.conv3 = PackedConv(block.conv3, block.bn3, -(-size // stride), dtype)
        self.downsample: nn.Module | None = None
        if isinstance(block.downsample, nn.Sequential):
            conv, norm = block.downsample
            self.downsample = PackedConv(
                cast("nn.Conv2d", conv), cast("nn.BatchNorm2d", norm), size, dtype
            )

    def forward(self, x: Tensor) -> Tensor:
        """As `Bottleneck`; `x` may be overwritten."""
        y = self.conv2(self.conv1(x, "relu"), "relu")
        residual = x if self.downsample is None else self.downsample(x, "none")
        return self.conv3.add_to(residual, y)


class PackedResNet(nn.Module):
    """`ResNet`, one picture at a time: so no picture's features depend on its batch."""

    def __init__(self, resnet: ResNet, image_size: int, dtype: torch.dtype) -> None:
        """Fold and pack a stem for square pictures of `image_size` pixels.

        Its features are of `dtype`; pictures may be of any.
        """
        super().__init__()
        self.conv1 = PackedConv(resnet.conv1, resnet.bn1, image_size, dtype)
        self.maxpool = resnet.maxpool
        size = -(-image_size // 4)
        blocks: list[nn.Module] = []
        for stage in (resnet.layer1, resnet.layer2, resnet.layer3):
            for block in cast("list[Bottleneck]", list(stage)):
                blocks.append(PackedBottleneck(block, size, dtype))
                size = -(-size // block.conv2.stride[0])
        self.blocks = nn.ModuleList(blocks)

    def forward(self, patch_images: Tensor) -> Tensor:
        """As `ResNet`."""
        features: list[Tensor] = []
        for picture in torch.split(patch_images, 1):
            x = picture.to(self.conv1.bias.dtype).contiguous(memory_format=torch.channels_last)
            x = self.maxpool(self.conv1(x, "relu"))
            for block in self.blocks:
                x = block(x)
            features.append(x)
        return features[0] if len(features) == 1 else torch.cat(features)


def _pack(weight: Tensor, padding: list[int], stride: list[int], input_size: list[int]) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, stride, [1, 1], 1, input_size
    )
    return packed
