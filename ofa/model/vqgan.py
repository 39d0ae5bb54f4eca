"""The decoder of a Gumbel VQGAN: a grid of codes to pixels.

Source: taming-transformers, `models/vqgan.py` and `modules/diffusionmodules/model.py`; module names
follow its state dict. The encoder and the losses are left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.errors import CheckpointError

_FILE = "vqgan_config.json"
_NUM_GROUPS = 32
#: Keys of `model.params` and its `ddconfig` that change the decoder, with the one supported value.
_REQUIRED_PARAMS: dict[str, Any] = {"remap": None}
_REQUIRED_DECODER: dict[str, Any] = {
    "out_ch": 3,
    "resamp_with_conv": True,
    "give_pre_end": False,
}


@dataclass(frozen=True)
class VQGANConfig:
    """The decoder's architecture.

    Attributes:
        num_codes: rows of the codebook.
        code_width: its columns.
        latent_channels: channels of the decoder's input.
        channels: of the last level; the others have multiples of it.
        multipliers: channels of every level by `channels`, largest pictures first.
        num_blocks: residual blocks of a level.
        attention_sizes: sides of the grids that have attention after every block.
        picture_size: side of the pictures that it was trained on; it tells the grid of every level.
    """

    num_codes: int
    code_width: int
    latent_channels: int
    channels: int
    multipliers: tuple[int, ...]
    num_blocks: int
    attention_sizes: tuple[int, ...]
    picture_size: int

    @property
    def scale(self) -> int:
        """Pixels on a side of a code."""
        return int(2 ** (len(self.multipliers) - 1))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VQGANConfig:
        """Read the object in a `vqgan_config.json`.

        Raises:
            CheckpointError: a value is missing, malformed or not supported.
        """
        params = _object(_object(values, "model"), "params")
        decoder = _object(params, "ddconfig")
        for given, required in ((params, _REQUIRED_PARAMS), (decoder, _REQUIRED_DECODER)):
            for key, value in required.items():
                if given.get(key, value) != value:
                    raise CheckpointError(
                        f"{_FILE}: {key}={given[key]!r} is not supported (only {value!r} is)"
                    )
        config = cls(
            num_codes=_count(params, "n_embed"),
            code_width=_count(params, "embed_dim"),
            latent_channels=_count(decoder, "z_channels"),
            channels=_count(decoder, "ch"),
            multipliers=_counts(decoder, "ch_mult"),
            num_blocks=_count(decoder, "num_res_blocks") + 1,
            attention_sizes=_counts(decoder, "attn_resolutions"),
            picture_size=_count(decoder, "resolution"),
        )
        if not config.multipliers:
            raise CheckpointError(f"{_FILE}: ch_mult is empty")
        if config.channels % _NUM_GROUPS:
            raise CheckpointError(
                f"{_FILE}: ch must be a multiple of {_NUM_GROUPS}, got {config.channels}"
            )
        return config


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{_FILE}: {key} must be an object, got {value!r}")
    return value


def _count(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{_FILE}: {key} must be a positive integer, got {value!r}")
    return value


def _counts(values: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = values.get(key)
    if not isinstance(value, list) or not all(type(v) is int and v > 0 for v in value):
        raise CheckpointError(f"{_FILE}: {key} must be a list of positive integers, got {value!r}")
    return tuple(value)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_NUM_GROUPS, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions around a shortcut, which a 1x1 convolution may widen."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, h, w] to [B, out_channels, h, w]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return self.nin_shortcut(x) + hidden


class AttentionBlock(nn.Module):
    """Attention of one head over all cells of a grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to the same shape."""
        normed = self.norm(x)
        cells = F.scaled_dot_product_attention(
            self.q(normed).flatten(2).transpose(1, 2),
            self.k(normed).flatten(2).transpose(1, 2),
            self.v(normed).flatten(2).transpose(1, 2),
        )
        return x + self.proj_out(cells.transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    """Every cell four times, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, channels, 2 h, 2 w]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """The lowest level's extra blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Residual blocks at one size of the grid, with or without attention after each."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, *, attends: bool, doubles: bool
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.ModuleList(
            ResidualBlock(widths[index], widths[index + 1]) for index in range(num_blocks)
        )
        self.attn = nn.ModuleList(
            AttentionBlock(out_channels) if attends else nn.Identity() for _ in range(num_blocks)
        )
        self.upsample: nn.Module = Upsample(out_channels) if doubles else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, h, w] to [B, out_channels, h, w], or twice the size."""
        for block, attention in zip(self.block, self.attn, strict=True):
            x = attention(block(x))
        return self.upsample(x)


class Decoder(nn.Module):
    """From latent cells to pixels, level by level."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        last = len(config.multipliers) - 1
        channels = config.channels * config.multipliers[last]
        self.conv_in = nn.Conv2d(config.latent_channels, channels, 3, padding=1)
        self.mid = Middle(channels)
        # As the reference numbers them: level 0 has the largest pictures, and comes last.
        levels: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(last, -1, -1):
            out_channels = config.channels * config.multipliers[index]
            levels[str(index)] = Level(
                channels,
                out_channels,
                config.num_blocks,
                attends=config.picture_size // 2**index in config.attention_sizes,
                doubles=index > 0,
            )
            channels = out_channels
        self.up = nn.Sequential(levels)
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, latent_channels, h, w] to [B, 3, scale * h, scale * w]."""
        x = self.up(self.mid(self.conv_in(latents)))
        pixels: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return pixels


class Codebook(nn.Module):
    """What a code stands for."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.num_codes, config.code_width)

    def forward(self, codes: Tensor) -> Tensor:
        """int64 [B, h, w] to [B, code_width, h, w]."""
        return self.embed(codes).permute(0, 3, 1, 2)


class VQGAN(nn.Module):
    """Codes to pictures."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.quantize = Codebook(config)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent_channels, 1)
        self.decoder = Decoder(config)

    def forward(self, codes: Tensor) -> Tensor:
        """Draw pictures.

        Args:
            codes: int64 [B, h, w].

        Returns:
            float [B, 3, scale * h, scale * w], red first, mostly between -1 and 1.
        """
        pixels: Tensor = self.decoder(self.post_quant_conv(self.quantize(codes)))
        return pixels


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels of about -1 to 1 as uint8, cut off and rounded down as the reference does it."""
    return (255 * ((pixels.clamp(-1.0, 1.0) + 1.0) / 2.0)).to(torch.uint8)
