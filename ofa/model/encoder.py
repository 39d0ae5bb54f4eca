"""The encoder: a picture and a prompt to one sequence of hidden states, picture first.

Shapes: B batch, D width, H heads, L prompt tokens, P patches, S = P + L source positions, N layers.
Source: modelscope `modeling_ofa.py`, OFAEncoder and OFAEncoderLayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.model.attention import Attention
from ofa.model.config import RESNET_BLOCKS, ModelConfig
from ofa.model.positions import (
    AbsolutePositionBias,
    NoPositionBias,
    UnappliedLayerNorm,
    embedding_tables,
    image_buckets,
    image_position_ids,
    num_image_buckets,
    relative_bias,
    token_buckets,
)
from ofa.model.resnet import PATCH_STRIDE, RESNET_CHANNELS, ResNet
from ofa.model.vit import VIT_SIZES, VisionTransformer


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward, each with NormFormer's extra norm.

    `final_layer_norm` is the norm *before* the feed-forward block, as in the reference.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ffn = config.d_model, config.encoder_ffn_dim
        self.self_attn = Attention(width, config.encoder_attention_heads, config.attn_scale_factor)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn_mid_layer_norm = nn.LayerNorm(width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn)
        self.ffn_layer_norm = nn.LayerNorm(ffn)
        self.fc2 = nn.Linear(ffn, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, S, D] with an attention bias broadcastable to [B, H, S, S]."""
        attended = self.self_attn(self.self_attn_layer_norm(x), bias)
        x = x + self.self_attn_mid_layer_norm(attended)
        hidden = F.gelu(self.fc1(self.final_layer_norm(x)))
        return x + self.fc2(self.ffn_layer_norm(hidden))


class Encoder(nn.Module):
    """The picture's patches and the prompt's tokens, read together."""

    def __init__(self, config: ModelConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        width, heads = config.d_model, config.encoder_attention_heads
        self.pad_id = config.pad_token_id
        self.token_bucket_size = config.token_bucket_size
        self.image_bucket_size = config.image_bucket_size
        # Side of the position grid that is stretched over larger pictures; 0 never stretches.
        self.interpolated_grid = (
            config.orig_patch_image_size // PATCH_STRIDE if config.interpolate_position else 0
        )
        self.adds_positions = config.entangle_position_embedding
        num_tables = 1 if config.share_attn_bias else config.encoder_layers

        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width)
        self.type_embedding = nn.Embedding(2, width)  # row 0 text, row 1 image
        self.embed_images: nn.Module
        if config.use_ofasys:
            size = VIT_SIZES[config.vit_type]
            self.embed_images = VisionTransformer(size)
            self.image_proj = nn.Linear(size.width, width)
        else:
            self.embed_images = ResNet(RESNET_BLOCKS[config.resnet_type])
            self.image_proj = nn.Linear(RESNET_CHANNELS, width)
        self.patch_layernorm_embedding = nn.LayerNorm(width)

        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
        self.pos_ln: nn.Module
        self.image_pos_ln: nn.Module
        if config.use_ofasys:
            self.pos_ln = nn.Identity()
            self.image_pos_ln = UnappliedLayerNorm(width)
        else:
            self.pos_ln = nn.LayerNorm(width)
            self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear: nn.Module
        self.pos_k_linear: nn.Module
        self.absolute_bias: nn.Module
        if config.has_absolute_bias:
            self.pos_q_linear = nn.Linear(width, width)
            self.pos_k_linear = nn.Linear(width, width)
            self.absolute_bias = AbsolutePositionBias(width, heads, config.attn_scale_factor)
        else:
            self.pos_q_linear = nn.Identity()
            self.pos_k_linear = nn.Identity()
            self.absolute_bias = NoPositionBias(heads)
        self.token_rel_pos_table_list = embedding_tables(
            num_tables, 2 * config.token_bucket_size - 1, heads
        )
        self.image_rel_pos_table_list = embedding_tables(
            num_tables, num_image_buckets(config.image_bucket_size), heads
        )
        self.layers = cast(
            "Sequence[EncoderLayer]",
            nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers)),
        )
        self.layer_norm = nn.LayerNorm(width)

    def image_positions(self, grid_height: int, grid_width: int) -> Tensor:
        """Position embedding of every patch, [P, D], row-major."""
        table = self.embed_image_positions
        device = table.weight.device
        grid = self.interpolated_grid
        if grid > 0 and grid_height * grid_width > grid * grid:
            ids = image_position_ids(self.image_bucket_size, grid, grid)
            coarse = table(ids.to(device)).view(1, grid, grid, -1).permute(0, 3, 1, 2)
            fine = F.interpolate(coarse, size=[grid_height, grid_width], mode="bilinear")
            return fine.permute(0, 2, 3, 1).reshape(grid_height * grid_width, -1)
        return table(image_position_ids(self.image_bucket_size, grid_height, grid_width).to(device))

    def position_states(self, grid_height: int, grid_width: int, prompt_length: int) -> Tensor:
        """Positions of the whole source as biases see them, [S, D]; the decoder uses them too."""
        image = self.image_positions(grid_height, grid_width)
        text = self.embed_positions.weight[:prompt_length]
        return torch.cat([self.image_pos_ln(image), self.pos_ln(text)], dim=0)

    def attention_bias(self, positions: Tensor, grid_height: int, grid_width: int) -> Tensor:
        """Bias of every layer's attention scores, [N, H, S, S] (N = 1 if layers share it).

        The absolute part covers all pairs; the relative part covers patch-patch and token-token
        pairs only.
        """
        num_patches = grid_height * grid_width
        prompt_length = positions.size(0) - num_patches
        absolute = self.absolute_bias(self.pos_q_linear(positions), self.pos_k_linear(positions))
        patch_pairs = image_buckets(self.image_bucket_size, grid_height, grid_width)
        token_pairs = token_buckets(self.token_bucket_size, prompt_length)
        # In place and table by table: for the large model all layers' biases are 633 MB.
        bias = absolute.repeat(len(self.image_rel_pos_table_list), 1, 1, 1)
        for index, table in enumerate(self.image_rel_pos_table_list):
            bias[index, :, :num_patches, :num_patches] += relative_bias(table.weight, patch_pairs)
        for index, table in enumerate(self.token_rel_pos_table_list):
            bias[index, :, num_patches:, num_patches:] += relative_bias(table.weight, token_pairs)
        return bias

    def embed(self, patch_images: Tensor | None, source_ids: Tensor) -> tuple[Tensor, int, int]:
        """Input of the first layer.

        Args:
            patch_images: float [B, 3, height, width], normalised; None without a picture.
            source_ids: int64 [B, L].

        Returns:
            Hidden states [B, S, D] and the patch grid's height and width, 0 without a picture.
        """
        text = self.embed_tokens(source_ids)
        if self.adds_positions:
            text = text + self.embed_positions.weight[: source_ids.size(1)]
        text = self.layernorm_embedding(text + self.type_embedding.weight[0])
        if patch_images is None:
            return text, 0, 0
        features = self.embed_images(patch_images)
        grid_height, grid_width = features.size(2), features.size(3)
        image = self.image_proj(features.flatten(2).transpose(1, 2))
        if self.adds_positions:
            image = image + self.image_positions(grid_height, grid_width)
        image = self.patch_layernorm_embedding(image + self.type_embedding.weight[1])
        return torch.cat([image, text], dim=1), grid_height, grid_width

    def padding_mask(self, source_ids: Tensor, num_patches: int) -> Tensor:
        """True where a source position is padding, bool [B, S]; patches never are."""
        return F.pad(source_ids == self.pad_id, [num_patches, 0], value=False)

    def run_layers(self, x: Tensor, padding_mask: Tensor, bias: Tensor) -> Tensor:
        """Hidden states [B, S, D] of the last layer for the embedded source.

        Args:
            x: from `embed`.
            padding_mask: from `padding_mask`.
            bias: from `attention_bias`.
        """
        # Masks cost time and change low bits, so rows without padding go without, as a batch of
        # one does in the reference.
        mask: Tensor | None = None
        if bool(padding_mask.any()):
            x = x.masked_fill(padding_mask.unsqueeze(-1), 0.0)
            mask = torch.zeros(padding_mask.shape, dtype=x.dtype, device=x.device)
            mask = mask.masked_fill(padding_mask, float("-inf"))[:, None, None, :]
        for index, layer in enumerate(self.layers):
            layer_bias = bias[index % bias.size(0)]
            x = layer(x, layer_bias.unsqueeze(0) if mask is None else layer_bias + mask)
        hidden: Tensor = self.layer_norm(x)
        return hidden
