"""CLIP with a vision transformer: how well a picture and a text match.

Source: modelscope `models/multi_modal/mmr/models/module_clip.py`; module names follow OpenAI's
state dict. Shapes: B texts, K pictures of a text, N pictures in all, E width of
what the towers share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.errors import CheckpointError
from ofa.model.bicubic import BicubicResize
from ofa.model.vit import Transformer

#: Of all CLIP models (modelscope `ofa_for_text_to_image_synthesis_model.py`, build_clip_model).
_HEAD_WIDTH = 64

#: Statistics of CLIP's training pictures (same file, build_clip_transform).
_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class CLIPConfig(NamedTuple):
    """The architecture, which no file spells out: it follows from the shapes of the weights.

    Attributes:
        image_size: side of the pictures in pixels.
        patch_size: side of a patch in pixels.
        vision_width: channels of the vision tower.
        vision_layers: its blocks.
        text_width: channels of the text tower.
        text_layers: its blocks.
        context_length: tokens of a text, padding included.
        vocab_size: rows of the token embedding.
        shared_width: E.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    context_length: int
    vocab_size: int
    shared_width: int

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> CLIPConfig:
        """Read the shapes.

        Raises:
            CheckpointError: a tensor is missing, or the vision tower is no transformer.
        """
        if "visual.proj" not in tensors:
            raise CheckpointError("only CLIP models with a vision transformer are supported")
        try:
            vision_width, _, _, patch_size = tensors["visual.conv1.weight"].shape
            num_patches = tensors["visual.positional_embedding"].shape[0] - 1
            vocab_size, text_width = tensors["token_embedding.weight"].shape
            context_length = tensors["positional_embedding"].shape[0]
            shared_width = tensors["text_projection"].shape[1]
        except (KeyError, ValueError, IndexError) as error:
            raise CheckpointError(f"the weights are not CLIP's: {error}") from error
        if vision_width % _HEAD_WIDTH or text_width % _HEAD_WIDTH:
            raise CheckpointError(
                f"CLIP's widths are {vision_width} and {text_width}; "
                f"they must be multiples of {_HEAD_WIDTH}"
            )
        return cls(
            image_size=round(num_patches**0.5) * patch_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=_num_blocks(tensors, "visual.transformer.resblocks."),
            text_width=text_width,
            text_layers=_num_blocks(tensors, "transformer.resblocks."),
            context_length=context_length,
            vocab_size=vocab_size,
            shared_width=shared_width,
        )


def _num_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)})


class CLIPPixels(nn.Module):
    """Square pictures to what the vision tower takes."""

    def __init__(self, picture_size: int, image_size: int) -> None:
        super().__init__()
        self.resize = BicubicResize(picture_size, image_size)
        self.mean: Tensor = nn.Buffer(torch.tensor(_PIXEL_MEAN).view(3, 1, 1))
        self.std: Tensor = nn.Buffer(torch.tensor(_PIXEL_STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [..., 3, picture_size, picture_size] to float [..., 3, image_size, image_size]."""
        return (self.resize(images).to(self.mean.dtype) / 255 - self.mean) / self.std


class VisionTower(nn.Module):
    """Pictures to features, read off the class token."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width, patch_size = config.vision_width, config.patch_size
        num_patches = (config.image_size // patch_size) ** 2
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(num_patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.vision_layers, width // _HEAD_WIDTH)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, config.shared_width))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised float [N, 3, image_size, image_size] to [N, E]."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        class_token = self.class_embedding.expand(patches.size(0), 1, -1)
        x = torch.cat([class_token, patches], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return torch.matmul(self.ln_post(x[:, 0]), self.proj)


class CLIP(nn.Module):
    """Both towers; what the checkpoint has beside them (the logit scale) is left out."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTower(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(
            torch.zeros(config.context_length, config.text_width)
        )
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_width // _HEAD_WIDTH, is_causal=True
        )
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(torch.zeros(config.text_width, config.shared_width))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Features of texts.

        Args:
            token_ids: int64 [B, context_length]; the end token has the highest id of all.

        Returns:
            [B, E], read off the first end token.
        """
        x = self.token_embedding(token_ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        ends = token_ids.argmax(dim=1)[:, None, None].expand(-1, 1, x.size(2))
        return torch.matmul(x.gather(1, ends).squeeze(1), self.text_projection)

    def forward(self, pixels: Tensor, token_ids: Tensor) -> Tensor:
        """Cosine of every picture and its text.

        Args:
            pixels: float [B, K, 3, image_size, image_size], from `CLIPPixels`.
            token_ids: int64 [B, context_length].

        Returns:
            float [B, K], between -1 and 1.
        """
        images: Tensor = self.visual(pixels.flatten(0, 1))
        images = images.view(pixels.size(0), pixels.size(1), -1)
        texts = self.encode_text(token_ids).unsqueeze(1)
        return (F.normalize(images, dim=-1) * F.normalize(texts, dim=-1)).sum(-1)
