"""The decoder: the answer so far to the logits of the next token.

Shapes: B batch, K beams, D width, H heads, S source positions, T target positions, V vocabulary,
N layers. Source: modelscope `modeling_ofa.py`, OFADecoder and OFADecoderLayer (text mode).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.model.attention import Attention
from ofa.model.config import ModelConfig
from ofa.model.kv_cache import KVCache
from ofa.model.positions import (
    AbsolutePositionBias,
    NoPositionBias,
    UnappliedLinear,
    embedding_tables,
    num_image_buckets,
    relative_bias,
    token_buckets,
)


class DecoderLayer(nn.Module):
    """Pre-norm self-attention, cross-attention and feed-forward with NormFormer's extra norms."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ffn = config.d_model, config.decoder_ffn_dim
        heads, factor = config.decoder_attention_heads, config.attn_scale_factor
        self.self_attn = Attention(width, heads, factor)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn_mid_layer_norm = nn.LayerNorm(width)
        self.cross_attn = Attention(width, heads, factor)
        self.cross_attn_layer_norm = nn.LayerNorm(width)
        self.cross_attn_mid_layer_norm = nn.LayerNorm(width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn)
        self.ffn_layer_norm = nn.LayerNorm(ffn)
        self.fc2 = nn.Linear(ffn, width)

    def self_attend(
        self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor
    ) -> Tensor:
        """Self-attention block for `x` [B, T, D].

        Args:
            x: what the block is added to.
            queries: [B, H, T, D / H], of `self_attn_layer_norm(x)`.
            keys: [B, H, S, D / H], of the same and of what came before.
            values: like `keys`.
            bias: broadcastable to [B, H, T, S].
        """
        heads = self.self_attn.product(queries, keys, values, bias)
        return x + self.self_attn_mid_layer_norm(self.self_attn.merge_heads(heads))

    def cross_attend(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Cross-attention block for `x` [B, T, D]."""
        attended = self.cross_attn.attend(self.cross_attn_layer_norm(x), keys, values, bias)
        return x + self.cross_attn_mid_layer_norm(attended)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Feed-forward block for `x` [B, T, D]."""
        hidden = F.gelu(self.fc1(self.final_layer_norm(x)))
        return x + self.fc2(self.ffn_layer_norm(hidden))


class VocabularyProjection(nn.Module):
    """Hidden states to scores over the vocabulary; it has no weights but the token embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """[..., D] and [V, D] to [..., V]."""
        return F.linear(x, embedding)


class Decoder(nn.Module):
    """Text positions only; `CodeDecoder` uses the modules of the code (picture token) mode."""

    def __init__(self, config: ModelConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        width, heads = config.d_model, config.decoder_attention_heads
        self.token_bucket_size = config.token_bucket_size
        self.adds_positions = config.entangle_position_embedding and not config.disable_entangle
        num_tables = 1 if config.share_attn_bias else config.decoder_layers

        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width)
        self.code_layernorm_embedding = nn.LayerNorm(width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.pos_ln: nn.Module
        if config.use_ofasys:
            self.pos_ln = nn.Identity()
            self.type_embedding = nn.Embedding(1, width)  # in the file, and never read
        else:
            self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
            self.pos_ln = nn.LayerNorm(width)
            self.image_pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear: nn.Module
        self.self_pos_k_linear: nn.Module
        self.absolute_bias: nn.Module
        if config.has_absolute_bias:
            self.self_pos_q_linear = nn.Linear(width, width)
            self.self_pos_k_linear = nn.Linear(width, width)
            self.cross_pos_q_linear = nn.Linear(width, width)
            self.cross_pos_k_linear = nn.Linear(width, width)
            self.absolute_bias = AbsolutePositionBias(width, heads, config.attn_scale_factor)
        else:
            self.self_pos_q_linear = nn.Identity()
            self.self_pos_k_linear = nn.Identity()
            self.cross_pos_q_linear = UnappliedLinear(width, width)
            self.cross_pos_k_linear = UnappliedLinear(width, width)
            self.absolute_bias = NoPositionBias(heads)
        self.token_rel_pos_table_list = embedding_tables(
            num_tables, 2 * config.token_bucket_size - 1, heads
        )
        if not config.use_ofasys:
            self.image_rel_pos_table_list = embedding_tables(
                num_tables, num_image_buckets(config.image_bucket_size), heads
            )
        self.layers = cast(
            "Sequence[DecoderLayer]",
            nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers)),
        )
        self.layer_norm = nn.LayerNorm(width)
        self.vocabulary_projection: nn.Module = VocabularyProjection()

    def self_attention_bias(self, length: int) -> Tensor:
        """Bias of every layer's self-attention, [N, H, T, T] (N = 1 if layers share it)."""
        positions = self.pos_ln(self.embed_positions.weight[:length])
        absolute = self.absolute_bias(
            self.self_pos_q_linear(positions), self.self_pos_k_linear(positions)
        )
        pairs = token_buckets(self.token_bucket_size, length)
        relative = [relative_bias(t.weight, pairs) for t in self.token_rel_pos_table_list]
        return absolute + torch.stack(relative)

    def cross_attention_bias(self, length: int, source_positions: Tensor) -> Tensor:
        """Bias of every layer's cross-attention, [H, T, S].

        Args:
            length: target positions T.
            source_positions: the encoder's `position_states` [S, D].
        """
        positions = self.pos_ln(self.embed_positions.weight[:length])
        bias: Tensor = self.absolute_bias(
            self.cross_pos_q_linear(positions), self.cross_pos_k_linear(source_positions)
        )
        return bias

    def cross_keys_values(self, encoder_hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Every layer's keys and values of the source, each [B, H, S, D / H]."""
        cross: list[tuple[Tensor, Tensor]] = []
        for layer in self.layers:
            keys, values = layer.cross_attn.project_keys_values(encoder_hidden)
            # Every step reads them head by head, which is a quarter faster where heads are whole.
            cross.append((keys.contiguous(), values.contiguous()))
        return cross

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Input of the first layer.

        Args:
            token_ids: int64 of any shape.
            positions: int64, broadcastable to `token_ids`; they count only where a checkpoint
                entangles positions and tokens.
        """
        embedded = self.embed_tokens(token_ids)
        if self.adds_positions:
            embedded = embedded + self.embed_positions(positions)
        return self.layernorm_embedding(embedded)

    def logits(self, x: Tensor) -> Tensor:
        """Scores over the vocabulary [..., V]."""
        logits: Tensor = self.vocabulary_projection(self.layer_norm(x), self.embed_tokens.weight)
        return logits

    def forward(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden: Tensor,
        padding_mask: Tensor,
        source_positions: Tensor,
    ) -> Tensor:
        """Logits of every next token at once, as training needs them.

        Args:
            decoder_input_ids: int64 [B, T], BOS first; padding on the right needs no mask.
            encoder_hidden: [B, S, D].
            padding_mask: bool [B, S], True at padding.
            source_positions: [S, D].

        Returns:
            float [B, T, V].
        """
        length = decoder_input_ids.size(1)
        x = self.embed(decoder_input_ids, torch.arange(length, device=decoder_input_ids.device))
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        self_bias = self.self_attention_bias(length).masked_fill(future, float("-inf"))
        cross_bias = self.cross_attention_bias(length, source_positions).unsqueeze(0)
        if bool(padding_mask.any()):
            cross_bias = cross_bias.masked_fill(padding_mask[:, None, None, :], float("-inf"))
        cross = self.cross_keys_values(encoder_hidden)
        for index, layer in enumerate(self.layers):
            queries, keys, values = layer.self_attn.project(layer.self_attn_layer_norm(x))
            x = layer.self_attend(x, queries, keys, values, self_bias[index % self_bias.size(0)])
            x = layer.cross_attend(x, cross[index][0], cross[index][1], cross_bias)
            x = layer.feed_forward(x)
        return self.logits(x)

    def step(
        self,
        token_ids: Tensor,
        position: int,
        cache: KVCache,
        self_bias: Tensor,
        cross_bias: Tensor,
    ) -> Tensor:
        """Logits after one more token of every beam.

        Args:
            token_ids: int64 [B, K], the tokens at `position`.
            position: how many tokens came before.
            cache: keys and values; gets those of this position.
            self_bias: from `self_attention_bias` for at least `position` + 1 positions.
            cross_bias: bias of this position for the source, broadcastable to [B, H, K, S].

        Returns:
            float [B, K, V].
        """
        x = self.embed(token_ids, torch.full_like(token_ids, position))
        row_bias = self_bias[:, None, :, position : position + 1, : position + 1]
        return self.logits(self.run_layers(x, position, cache, row_bias, cross_bias))

    def run_layers(
        self, x: Tensor, position: int, cache: KVCache, self_bias: Tensor, cross_bias: Tensor
    ) -> Tensor:
        """All layers for one more token of every beam.

        Args:
            x: [B, K, D], the embedded tokens at `position`.
            position: how many tokens came before.
            cache: keys and values; gets those of this position.
            self_bias: bias of this position for itself and those before, [N, 1, H, 1, T].
            cross_bias: bias of this position for the source, broadcastable to [B, H, K, S].

        Returns:
            [B, K, D], what `logits` takes.
        """
        batch_size, num_beams = x.size(0), x.size(1)
        # Beams are rows of their own in self-attention, and queries of one row in cross-attention.
        rows = [batch_size * num_beams, 1, x.size(2)]
        for index, layer in enumerate(self.layers):
            normed = layer.self_attn_layer_norm(x).view(rows)
            queries, keys, values = layer.self_attn.project(normed)
            cache.self_keys[index][:, :, position : position + 1] = keys
            cache.self_values[index][:, :, position : position + 1] = values
            x = layer.self_attend(
                x.view(rows),
                queries,
                cache.self_keys[index][:, :, : position + 1],
                cache.self_values[index][:, :, : position + 1],
                self_bias[index % self_bias.size(0)],
            ).view(batch_size, num_beams, -1)
            x = layer.cross_attend(
                x, cache.cross_keys[index], cache.cross_values[index], cross_bias
            )
            x = layer.feed_forward(x)
        return x
