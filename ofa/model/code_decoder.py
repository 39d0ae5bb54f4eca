"""The decoder in code mode: picture tokens, which stand on a grid instead of in a line.

Shapes: B batch, K samples, D width, H heads, S source positions, T codes, C choices, N layers.
Source: modelscope `modeling_ofa.py`, OFADecoder with `code_masks`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.model.config import ModelConfig
from ofa.model.decoder import Decoder
from ofa.model.kv_cache import KVCache
from ofa.model.positions import code_buckets, image_position_ids, relative_bias
from ofa.tokenizer import NUM_SPECIAL_TOKENS


class CodeBias(NamedTuple):
    """What positions add to attention scores; it depends on shapes alone.

    Attributes:
        absolute: [H, T, T], of self-attention.
        buckets: int64 [T, T], rows of the relative tables. What they hold is looked up step by
            step: for the large model, all layers' biases would be 800 MB.
        cross: [H, T, S], of cross-attention.
    """

    absolute: Tensor
    buckets: Tensor
    cross: Tensor


class CodeDecoder(nn.Module):
    """A decoder that writes a square of codes row by row, after a BOS in front of the grid."""

    def __init__(self, decoder: Decoder, config: ModelConfig, code_ids: range) -> None:
        """Put a decoder into code mode.

        Args:
            decoder: of a checkpoint that has not the ofasys layout.
            config: of the same checkpoint.
            code_ids: token ids of the codes.
        """
        super().__init__()
        self.decoder = decoder
        self.grid_size = config.code_grid_size
        self.num_codes = self.grid_size * self.grid_size
        self.image_bucket_size = config.image_bucket_size
        self.first_code_id = code_ids.start
        self.last_code_id = code_ids.stop - 1
        self.num_special_tokens = NUM_SPECIAL_TOKENS

    def bias(self, source_positions: Tensor) -> CodeBias:
        """The biases of all positions.

        Args:
            source_positions: the encoder's `position_states` [S, D].
        """
        decoder = self.decoder
        device = source_positions.device
        cells = image_position_ids(self.image_bucket_size, self.grid_size, self.grid_size)
        # BOS stands on row 0 of the table; what follows the last code is never asked for.
        ids = F.pad(cells, [1, 0])[: self.num_codes].to(device)
        positions = decoder.image_pos_ln(decoder.embed_image_positions(ids))
        absolute = decoder.absolute_bias(
            decoder.self_pos_q_linear(positions), decoder.self_pos_k_linear(positions)
        )
        buckets = code_buckets(self.image_bucket_size, self.grid_size, self.grid_size)
        cross = decoder.absolute_bias(
            decoder.cross_pos_q_linear(positions), decoder.cross_pos_k_linear(source_positions)
        )
        return CodeBias(absolute, buckets.to(device), cross)

    def step(
        self, token_ids: Tensor, position: int, cache: KVCache, bias: CodeBias, cross_mask: Tensor
    ) -> Tensor:
        """Logits of the four special tokens and of all codes, one step further.

        Args:
            token_ids: int64 [B, K], the tokens at `position`.
            position: how many tokens came before.
            cache: keys and values; gets those of this position.
            bias: from `bias`.
            cross_mask: [B, 1, 1, S], -inf at padding, else 0.

        Returns:
            float [B, K, 4 + C].
        """
        decoder = self.decoder
        end = position + 1
        buckets = bias.buckets[position:end, :end]
        relative = [relative_bias(t.weight, buckets) for t in decoder.image_rel_pos_table_list]
        self_bias = bias.absolute[:, position:end, :end] + torch.stack(relative)
        cross_bias = (bias.cross[:, position:end] + cross_mask).expand(
            -1, -1, token_ids.size(1), -1
        )
        x = decoder.code_layernorm_embedding(decoder.embed_tokens(token_ids))
        x = decoder.run_layers(x, position, cache, self_bias.unsqueeze(1), cross_bias)
        x = decoder.layer_norm(x)
        rows = decoder.embed_tokens.weight
        codes = rows[self.first_code_id : self.last_code_id + 1]
        return torch.cat([F.linear(x, rows[: self.num_special_tokens]), F.linear(x, codes)], dim=-1)
