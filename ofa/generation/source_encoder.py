"""What every search starts with: pixels and prompt to the encoder's hidden states.

Shapes: B batch, S source positions (patches, then prompt tokens), L prompt tokens, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ofa.model.encoder import Encoder
from ofa.model.sharing import copy_sharing_tensors


class EncodedSource(NamedTuple):
    """What the decoder needs of a batch of pictures and prompts.

    Attributes:
        hidden: [B, S, D].
        padding_mask: bool [B, S], True at padding.
        positions: [S, D], the encoder's `position_states`.
    """

    hidden: Tensor
    padding_mask: Tensor
    positions: Tensor


class PixelNormalizer(nn.Module):
    """Pictures as the client's side sends them to what the encoder's stem takes."""

    def __init__(
        self, pixel_mean: tuple[float, float, float], pixel_std: tuple[float, float, float]
    ) -> None:
        super().__init__()
        self.pixel_mean: Tensor = nn.Buffer(torch.tensor(pixel_mean).view(1, 3, 1, 1))
        self.pixel_std: Tensor = nn.Buffer(torch.tensor(pixel_std).view(1, 3, 1, 1))

    def forward(self, patch_images: Tensor) -> Tensor | None:
        """uint8 [B, 3, height, width] to float, in the reference's order: / 255, - mean, / std.

        A single pixel stands for no picture and gives None.
        """
        if patch_images.size(2) * patch_images.size(3) == 1:
            return None
        return (patch_images.to(self.pixel_mean.dtype) / 255 - self.pixel_mean) / self.pixel_std


def without_stem(encoder: Encoder) -> Encoder:
    """The same encoder, all other weights shared, for sources without pictures."""
    # The decoder has the same token embedding: it stays one module, and one tensor in an archive.
    return copy_sharing_tensors(
        encoder,
        {encoder.embed_images: nn.Identity(), encoder.embed_tokens: encoder.embed_tokens},
    )


class SourceEncoder(nn.Module):
    """The encoder with its position biases.

    The biases depend on shapes alone; they are computed for the first batch of a shape and kept
    until another shape comes.
    """

    def __init__(self, encoder: Encoder, *, reads_pictures: bool = True) -> None:
        """Bind the encoder; one that reads no pictures is kept without its stem."""
        super().__init__()
        self.encoder = encoder if reads_pictures else without_stem(encoder)
        self.bias_shape = [0, 0, 0]
        self.source_positions: Tensor = nn.Buffer(torch.empty(0), persistent=False)
        self.encoder_bias: Tensor = nn.Buffer(torch.empty(0), persistent=False)

    def prepare_biases(self, grid_height: int, grid_width: int, prompt_length: int) -> None:
        """Have the source's positions and the encoder's bias ready for a shape."""
        shape = [grid_height, grid_width, prompt_length]
        if self.bias_shape != shape:
            # Two of them at a time would be over a gigabyte for the large model. Without a shape,
            # a batch that fails here leaves nothing behind that another could take for its own.
            self.bias_shape = [0, 0, 0]
            self.encoder_bias = torch.empty(0)
            positions = self.encoder.position_states(grid_height, grid_width, prompt_length)
            self.encoder_bias = self.encoder.attention_bias(positions, grid_height, grid_width)
            self.source_positions = positions
            self.bias_shape = shape

    def forward(self, pixels: Tensor | None, source_ids: Tensor) -> EncodedSource:
        """Encode a batch.

        Args:
            pixels: float [B, 3, height, width], normalised; None without pictures.
            source_ids: int64 [B, L], the prompt with BOS and EOS, padded on the right.
        """
        x, grid_height, grid_width = self.encoder.embed(pixels, source_ids)
        self.prepare_biases(grid_height, grid_width, source_ids.size(1))
        padding_mask = self.encoder.padding_mask(source_ids, grid_height * grid_width)
        hidden = self.encoder.run_layers(x, padding_mask, self.encoder_bias)
        return EncodedSource(hidden, padding_mask, self.source_positions)
