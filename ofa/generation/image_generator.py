"""The generator of pictures that is exported: prompt in, pictures out, best first.

It reads as one page: encode, draw codes one by one, paint them, and let CLIP judge.
Shapes: B batch, L prompt tokens, K pictures a row, T codes a picture, S side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa.generation.philox import uniforms
from ofa.generation.sampling import draw
from ofa.generation.source_encoder import EncodedSource, SourceEncoder
from ofa.model import OFAModel
from ofa.model.clip import CLIP, CLIPPixels
from ofa.model.code_decoder import CodeDecoder
from ofa.model.kv_cache import make_cache
from ofa.model.vqgan import VQGAN, to_bytes


class ImageGenerator(nn.Module):
    """Pictures for a batch of prompts, each row with a seed and a number of its own.

    A picture is a function of its row's prompt and seed and of its number in the row before the
    judgement. It changes neither with the row's other pictures nor with the rows of the batch.
    """

    def __init__(
        self, model: OFAModel, code_ids: range, vqgan: VQGAN, clip: CLIP, temperature: float
    ) -> None:
        """Bind the networks to the search.

        Args:
            model: writes codes.
            code_ids: token ids of the codes.
            vqgan: paints them.
            clip: judges the paintings.
            temperature: divides the logits before the softmax.
        """
        super().__init__()
        self.source_encoder = SourceEncoder(model.encoder, reads_pictures=False)
        self.code_decoder = CodeDecoder(model.decoder, model.config, code_ids)
        self.vqgan = vqgan
        picture_size = model.config.code_grid_size * vqgan.config.scale
        self.clip_pixels = CLIPPixels(picture_size, clip.config.image_size)
        self.clip = clip
        self.bos_id = model.config.bos_token_id
        self.first_code_id = code_ids.start
        self.grid_size = model.config.code_grid_size
        self.temperature = temperature
        # Fixed in the reference (modelscope `ofa_for_text_to_image_synthesis_model.py`).
        self.top_p = 0.9
        self.requires_grad_(requires_grad=False)

    def draw_codes(
        self, source: EncodedSource, seeds: Tensor, num_images: int
    ) -> tuple[Tensor, Tensor]:
        """Draw the codes of all pictures, one after another.

        The end token is not drawn: after the last code nothing else is possible.

        Args:
            source: B encoded prompts.
            seeds: int64 [B].
            num_images: K.

        Returns:
            Codes int64 [B, K, T] and their log-probabilities float32 [B, K, T].
        """
        decoder = self.code_decoder
        bias = decoder.bias(source.positions)
        cross_mask = torch.zeros(source.padding_mask.shape, device=seeds.device)
        cross_mask = cross_mask.masked_fill(source.padding_mask, float("-inf"))[:, None, None, :]
        cross = decoder.decoder.cross_keys_values(source.hidden)
        cache = make_cache(cross, num_images, decoder.num_codes)
        randoms = uniforms(seeds, num_images, decoder.num_codes)
        codes = torch.zeros_like(randoms, dtype=torch.long)
        log_probs = torch.zeros_like(randoms, dtype=torch.float)
        token_ids = torch.full_like(codes[:, :, 0], self.bos_id)
        for step in range(decoder.num_codes):
            logits = decoder.step(token_ids, step, cache, bias, cross_mask)
            log_probs_of_all = (logits.float() / self.temperature).log_softmax(-1)
            code_log_probs = log_probs_of_all[:, :, decoder.num_special_tokens :]
            code = draw(code_log_probs, self.top_p, randoms[:, :, step])
            codes[:, :, step] = code
            log_probs[:, :, step] = code_log_probs.gather(2, code.unsqueeze(2)).squeeze(2)
            token_ids = code + self.first_code_id
        return codes, log_probs

    def forward(
        self, source_ids: Tensor, clip_ids: Tensor, seed: Tensor, num_hypotheses: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw pictures for a batch.

        Args:
            source_ids: int64 [B, L], the prompt with BOS and EOS, padded on the right.
            clip_ids: int64 [B, 77], what CLIP compares the pictures with.
            seed: int64 [B, 1], tells which pictures are drawn.
            num_hypotheses: int32 [B, 1], pictures wanted.

        Returns:
            pixels uint8 [B, K, 3, S, S], best first, image_scores float32 [B, K], the cosine that
            CLIP finds between picture and text, and image_log_probs float32 [B, K], the mean
            log-probability of a picture's codes. K is the batch's greatest `num_hypotheses`; where
            a row wants fewer, the scores are -inf at its end.
        """
        num_images = int(num_hypotheses.max())
        source = self.source_encoder(None, source_ids)
        codes, log_probs = self.draw_codes(source, seed[:, 0], num_images)
        grids = codes.view(-1, 1, self.grid_size, self.grid_size)
        # One by one: a picture of 256 pixels takes hundreds of megabytes on its way.
        painted = torch.cat([to_bytes(self.vqgan(grid)) for grid in grids.unbind()])
        painted = painted.view(codes.size(0), num_images, 3, painted.size(2), painted.size(3))
        scores = self.clip(self.clip_pixels(painted), clip_ids).float()
        unwanted = torch.arange(num_images, device=scores.device) >= num_hypotheses
        scores = scores.masked_fill(unwanted, float("-inf"))
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        pixels = painted.gather(1, order[:, :, None, None, None].expand_as(painted))
        return pixels, scores, log_probs.mean(2).gather(1, order)
