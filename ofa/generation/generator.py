"""The generator that is exported: pixels and prompt in, ranked hypotheses out.

It reads as one page: normalise, encode once, then one decoder step and one search step at a time.
Shapes: B batch, S side of the picture in pixels, L prompt tokens, N hypotheses, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa.generation.beam_search import (
    SearchOptions,
    SearchRules,
    advance,
    best_hypotheses,
    constrain,
    make_state,
)
from ofa.model import OFAModel
from ofa.model.kv_cache import make_cache, reorder_cache
from ofa.task_config import SearchConfig


class Generator(nn.Module):
    """Captions for a batch of pictures, each row with options of its own.

    The position biases depend on shapes alone; they are computed for the first batch of a shape and
    kept until another shape comes.
    """

    def __init__(
        self,
        model: OFAModel,
        search: SearchConfig,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        unk_id: int,
    ) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.decoder = model.decoder
        self.bos_id = model.config.bos_token_id
        self.pad_id = model.config.pad_token_id
        self.eos_id = model.config.eos_token_id
        self.unk_id = unk_id
        self.max_length_a = search.max_length_a
        self.match_source_length = search.match_source_length
        self.normalize_scores = search.normalize_scores
        self.unk_penalty = search.unk_penalty
        self.pixel_mean: Tensor = nn.Buffer(torch.tensor(pixel_mean).view(1, 3, 1, 1))
        self.pixel_std: Tensor = nn.Buffer(torch.tensor(pixel_std).view(1, 3, 1, 1))
        self.bias_shape = [0, 0, 0]
        self.source_positions: Tensor = nn.Buffer(torch.empty(0), persistent=False)
        self.encoder_bias: Tensor = nn.Buffer(torch.empty(0), persistent=False)
        # A parameter in a mask would keep attention off its fast path even without gradients.
        self.requires_grad_(requires_grad=False)

    def normalize(self, patch_images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] to float, in the reference's order: / 255, - mean, / std."""
        return (patch_images.to(self.pixel_mean.dtype) / 255 - self.pixel_mean) / self.pixel_std

    def prepare_biases(self, grid_height: int, grid_width: int, prompt_length: int) -> None:
        """Have the source's positions and the encoder's bias ready for a shape."""
        shape = [grid_height, grid_width, prompt_length]
        if self.bias_shape != shape:
            positions = self.encoder.position_states(grid_height, grid_width, prompt_length)
            self.encoder_bias = self.encoder.attention_bias(positions, grid_height, grid_width)
            self.source_positions = positions
            self.bias_shape = shape

    def row_max_length(self, source_ids: Tensor, max_length: Tensor) -> Tensor:
        """Tokens after which only EOS is left, int64 [B]; each row counts its own prompt."""
        prompt_length = (source_ids != self.pad_id).sum(1)
        if self.match_source_length:
            return prompt_length - 1
        return (self.max_length_a * prompt_length.double() + max_length.double()).long()

    def forward(
        self,
        patch_images: Tensor,
        source_ids: Tensor,
        num_hypotheses: Tensor,
        beam_size: Tensor,
        max_length: Tensor,
        min_length: Tensor,
        no_repeat_ngram_size: Tensor,
        length_penalty: Tensor,
        temperature: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Caption a batch.

        Args:
            patch_images: uint8 [B, 3, S, S].
            source_ids: int64 [B, L], the prompt with BOS and EOS, padded on the right.
            num_hypotheses: int32 [B, 1].
            beam_size: int32 [B, 1].
            max_length: int32 [B, 1].
            min_length: int32 [B, 1].
            no_repeat_ngram_size: int32 [B, 1].
            length_penalty: float32 [B, 1].
            temperature: float32 [B, 1].

        Returns:
            token_ids int64 [B, N, T], hypothesis_scores float32 [B, N] and hypothesis_log_probs
            float32 [B, N, T]; N is the batch's greatest `num_hypotheses`, T its longest answer.
        """
        num_beams = int(beam_size.max())
        row_max_length = self.row_max_length(source_ids, max_length[:, 0])
        options = SearchOptions(
            beam_size=beam_size[:, 0].long(),
            max_length=row_max_length,
            min_length=min_length[:, 0].long(),
            no_repeat_ngram_size=no_repeat_ngram_size[:, 0].long(),
            length_penalty=length_penalty[:, 0],
            shortest_max_length=int(row_max_length.min()),
            longest_min_length=int(min_length.max()),
            largest_ngram_size=int(no_repeat_ngram_size.max()),
        )
        rules = SearchRules(
            bos_id=self.bos_id,
            pad_id=self.pad_id,
            eos_id=self.eos_id,
            unk_id=self.unk_id,
            unk_penalty=self.unk_penalty,
            normalize_scores=self.normalize_scores,
        )
        num_steps = int(row_max_length.max()) + 1

        x, grid_height, grid_width = self.encoder.embed(self.normalize(patch_images), source_ids)
        self.prepare_biases(grid_height, grid_width, source_ids.size(1))
        padding_mask = self.encoder.padding_mask(source_ids, grid_height * grid_width)
        encoder_hidden = self.encoder.run_layers(x, padding_mask, self.encoder_bias)

        self_bias = self.decoder.self_attention_bias(num_steps)
        cross_bias = self.decoder.cross_attention_bias(num_steps, self.source_positions)
        cross_mask = torch.zeros(padding_mask.shape, device=x.device)
        cross_mask = cross_mask.masked_fill(padding_mask, float("-inf"))[:, None, None, :]
        cache = make_cache(self.decoder.cross_keys_values(encoder_hidden), num_beams, num_steps)
        state = make_state(options, rules, num_beams)
        first_row = torch.arange(x.size(0), device=x.device)[:, None] * num_beams
        for step in range(num_steps):
            step_bias = (cross_bias[:, step : step + 1] + cross_mask).expand(-1, -1, num_beams, -1)
            logits = self.decoder.step(state.tokens[:, :, step], step, cache, self_bias, step_bias)
            logits = logits.float() / temperature[:, :, None]
            log_probs = torch.log_softmax(logits, dim=-1)
            constrain(log_probs, state, step, options, rules)
            beams = advance(state, log_probs, step, options, rules)
            if bool(state.is_done.all()):
                break
            reorder_cache(cache, (first_row + beams).view(-1), step + 1)
        return best_hypotheses(state, num_hypotheses[:, 0].long(), self.pad_id)
