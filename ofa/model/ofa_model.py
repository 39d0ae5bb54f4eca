"""Encoder and decoder around one shared token embedding."""

from __future__ import annotations

from torch import Tensor, nn

from ofa.model.config import ModelConfig
from ofa.model.decoder import Decoder
from ofa.model.encoder import Encoder


class OFAModel(nn.Module):
    """The whole network.

    `state_dict()` has the names and shapes of the published checkpoints, less what can be computed
    (bucket buffers) or is the same matrix (`decoder.output_projection`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = Encoder(config, embed_tokens)
        self.decoder = Decoder(config, embed_tokens)

    def forward(
        self, patch_images: Tensor | None, source_ids: Tensor, decoder_input_ids: Tensor
    ) -> Tensor:
        """Teacher-forced logits.

        Args:
            patch_images: float [B, 3, height, width], normalised; None without a picture.
            source_ids: int64 [B, L], the prompt with BOS and EOS, padded on the right.
            decoder_input_ids: int64 [B, T], the answer with BOS in front, without EOS.

        Returns:
            float [B, T, V]; position t scores the token after `decoder_input_ids[:, : t + 1]`.
        """
        x, grid_height, grid_width = self.encoder.embed(patch_images, source_ids)
        positions = self.encoder.position_states(grid_height, grid_width, source_ids.size(1))
        bias = self.encoder.attention_bias(positions, grid_height, grid_width)
        padding_mask = self.encoder.padding_mask(source_ids, grid_height * grid_width)
        hidden = self.encoder.run_layers(x, padding_mask, bias)
        logits: Tensor = self.decoder(decoder_input_ids, hidden, padding_mask, positions)
        return logits
