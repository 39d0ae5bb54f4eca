"""The image stem: an ImageNet ResNet (v1.5) cut off after its third stage.

Source: modelscope `models/multi_modal/ofa/resnet.py`; module names follow its state dict.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

#: Channels of the last stage, the width of a patch before projection.
RESNET_CHANNELS = 1024
#: Pixels of the input on one side of a patch.
PATCH_STRIDE = 16
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 (carrying the stride) and 1x1 convolutions around a residual."""

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out_channels = planes * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, h, w] to [B, 4 * planes, h / stride, w / stride]."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.downsample(x))


def _stage(in_channels: int, planes: int, num_blocks: int, stride: int) -> nn.Sequential:
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(num_blocks):
        first = index == 0
        blocks[str(index)] = Bottleneck(
            in_channels if first else planes * _EXPANSION, planes, stride if first else 1
        )
    return nn.Sequential(blocks)


class ResNet(nn.Module):
    """Pictures to a grid of patch features, one for every 16 x 16 pixels (rounded up)."""

    def __init__(self, num_blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, num_blocks[0], stride=1)
        self.layer2 = _stage(256, 128, num_blocks[1], stride=2)
        self.layer3 = _stage(512, 256, num_blocks[2], stride=2)

    def forward(self, patch_images: Tensor) -> Tensor:
        """Normalised float [B, 3, height, width] to [B, 1024, ceil(height/16), ceil(width/16)]."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(patch_images))))
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features
