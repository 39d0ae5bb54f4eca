"""The generators that are exported: pixels and prompt in, ranked hypotheses out.

Shapes: B batch, S side of the picture in pixels, L prompt tokens, N hypotheses, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ofa.generation.beam_decoder import BeamDecoder
from ofa.generation.source_encoder import PixelNormalizer, SourceEncoder
from ofa.model import OFAModel
from ofa.task_config import SearchConfig


class Generator(nn.Module):
    """Texts for a batch of pictures and prompts, each row with options of its own."""

    def __init__(
        self,
        model: OFAModel,
        search: SearchConfig,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        unk_id: int,
        labels: Sequence[Sequence[int]] = (),
    ) -> None:
        """Bind the network to its search.

        Args:
            model: the network.
            search: what the checkpoint fixes of the search. With `prompt_type` "prev_output", every
                hypothesis starts with the prompt.
            pixel_mean: subtracted from every channel.
            pixel_std: divides every channel.
            unk_id: the unknown token.
            labels: token ids, without BOS and EOS, of all that may be answered; () allows anything.
        """
        super().__init__()
        self.normalize = PixelNormalizer(pixel_mean, pixel_std)
        self.source_encoder = SourceEncoder(model.encoder)
        self.beam_decoder = BeamDecoder(model, search, unk_id, labels)
        # A parameter in a mask would keep attention off its fast path even without gradients.
        self.requires_grad_(requires_grad=False)

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
        """Answer a batch.

        Args:
            patch_images: uint8 [B, 3, S, S]; [B, 3, 1, 1] stands for no pictures.
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
        hypotheses: tuple[Tensor, Tensor, Tensor] = self.beam_decoder(
            self.source_encoder(self.normalize(patch_images), source_ids),
            source_ids,
            num_hypotheses,
            beam_size,
            max_length,
            min_length,
            no_repeat_ngram_size,
            length_penalty,
            temperature,
        )
        return hypotheses


class TextGenerator(nn.Module):
    """Texts for a batch of prompts without pictures, each row with options of its own."""

    def __init__(
        self,
        model: OFAModel,
        search: SearchConfig,
        unk_id: int,
        labels: Sequence[Sequence[int]] = (),
    ) -> None:
        """Bind the network to its search; the arguments are those of `Generator`."""
        super().__init__()
        self.source_encoder = SourceEncoder(model.encoder, reads_pictures=False)
        self.beam_decoder = BeamDecoder(model, search, unk_id, labels)
        self.requires_grad_(requires_grad=False)

    def forward(
        self,
        source_ids: Tensor,
        num_hypotheses: Tensor,
        beam_size: Tensor,
        max_length: Tensor,
        min_length: Tensor,
        no_repeat_ngram_size: Tensor,
        length_penalty: Tensor,
        temperature: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Answer a batch: `Generator.forward` without `patch_images`."""
        hypotheses: tuple[Tensor, Tensor, Tensor] = self.beam_decoder(
            self.source_encoder(None, source_ids),
            source_ids,
            num_hypotheses,
            beam_size,
            max_length,
            min_length,
            no_repeat_ngram_size,
            length_penalty,
            temperature,
        )
        return hypotheses
