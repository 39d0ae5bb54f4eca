"""The decoder under beam search: one decoder step and one search step at a time.

Shapes: B batch, K beams (the batch's widest), L prompt tokens, N hypotheses, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from ofa.generation.label_trie import TrieConstraint
from ofa.generation.source_encoder import EncodedSource
from ofa.model import OFAModel
from ofa.model.kv_cache import make_cache, reorder_cache
from ofa.task_config import SearchConfig
from ofa.tokenizer import NUM_SPECIAL_TOKENS


class BeamDecoder(nn.Module):
    """Encoded sources to ranked hypotheses."""

    def __init__(
        self,
        model: OFAModel,
        search: SearchConfig,
        unk_id: int,
        labels: Sequence[Sequence[int]],
    ) -> None:
        """Fix what is the same for all requests.

        Args:
            model: the network.
            search: of the checkpoint.
            unk_id: the unknown token.
            labels: token ids, without BOS and EOS, of all that may be answered; () allows anything.
        """
        super().__init__()
        self.decoder = model.decoder
        self.bos_id = model.config.bos_token_id
        self.pad_id = model.config.pad_token_id
        self.eos_id = model.config.eos_token_id
        self.unk_id = unk_id
        self.max_length_a = search.max_length_a
        self.match_source_length = search.match_source_length
        self.normalize_scores = search.normalize_scores
        self.unk_penalty = search.unk_penalty
        self.has_prefix = search.prompt_type == "prev_output"
        first_id, end_id = search.constraint_range or (NUM_SPECIAL_TOKENS, model.config.vocab_size)
        self.barred_ranges = [(NUM_SPECIAL_TOKENS, first_id), (end_id, model.config.vocab_size)]
        self.trie = TrieConstraint(labels, self.eos_id) if labels else None

    def row_max_length(self, prompt_length: Tensor, max_length: Tensor) -> Tensor:
        """Tokens after which only EOS is left, int64 [B]; each row counts its own prompt."""
        if self.match_source_length:
            return prompt_length - 1
        return (self.max_length_a * prompt_length.double() + max_length.double()).long()

    def allowed_logits(self, logits: Tensor, nodes: Tensor, is_in_prefix: Tensor) -> Tensor:
        """`logits` with -inf for what the checkpoint never answers.

        Args:
            logits: float [B, K, V].
            nodes: int64 [B, K], every beam's place in the tree of labels.
            is_in_prefix: bool [B, 1], True where the labels have not begun yet.
        """
        for first, end in self.barred_ranges:
            logits[:, :, first:end] = float("-inf")
        if self.trie is not None:
            allowed = self.trie.allowed_logits(logits, nodes)
            logits = torch.where(is_in_prefix.unsqueeze(2), logits, allowed)
        return logits

    def forward(
        self,
        source: EncodedSource,
        source_ids: Tensor,
        num_hypotheses: Tensor,
        beam_size: Tensor,
        max_length: Tensor,
        min_length: Tensor,
        no_repeat_ngram_size: Tensor,
        length_penalty: Tensor,
        temperature: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Search; arguments and results beside `source` are those of `Generator.forward`."""
        batch_size, num_beams = source_ids.size(0), int(beam_size.max())
        prompt_length = (source_ids != self.pad_id).sum(1)
        # The prefix is the prompt without EOS. Its BOS follows that of every hypothesis.
        prefix_length = prompt_length - 1 if self.has_prefix else torch.zeros_like(prompt_length)
        row_max_length = self.row_max_length(prompt_length, max_length[:, 0])
        options = SearchOptions(
            beam_size=beam_size[:, 0].long(),
            max_length=row_max_length,
            # A length that follows the prompt can be shorter than what was asked for.
            min_length=torch.minimum(min_length[:, 0].long(), row_max_length),
            no_repeat_ngram_size=no_repeat_ngram_size[:, 0].long(),
            length_penalty=length_penalty[:, 0],
            prefix=source_ids,
            prefix_length=prefix_length,
            shortest_max_length=int(row_max_length.min()),
            longest_min_length=int(min_length.max()),
            largest_ngram_size=int(no_repeat_ngram_size.max()),
            longest_prefix=int(prefix_length.max()),
        )
        rules = SearchRules(
            bos_id=self.bos_id,
            pad_id=self.pad_id,
            eos_id=self.eos_id,
            unk_id=self.unk_id,
            unk_penalty=self.unk_penalty,
            normalize_scores=self.normalize_scores,
            is_prefix_hard=self.trie is not None,
        )
        num_steps = int(row_max_length.max()) + 1

        self_bias = self.decoder.self_attention_bias(num_steps)
        cross_bias = self.decoder.cross_attention_bias(num_steps, source.positions)
        cross_mask = torch.zeros(source.padding_mask.shape, device=cross_bias.device)
        cross_mask = cross_mask.masked_fill(source.padding_mask, float("-inf"))[:, None, None, :]
        cache = make_cache(self.decoder.cross_keys_values(source.hidden), num_beams, num_steps)
        state = make_state(options, rules, num_beams)
        first_row = torch.arange(batch_size, device=cross_bias.device)[:, None] * num_beams
        nodes = torch.zeros(batch_size, num_beams, dtype=torch.long, device=cross_bias.device)
        is_tempered = bool((temperature != 1.0).any())
        for step in range(num_steps):
            step_bias = (cross_bias[:, step : step + 1] + cross_mask).expand(-1, -1, num_beams, -1)
            logits = self.decoder.step(state.tokens[:, :, step], step, cache, self_bias, step_bias)
            if is_tempered:
                logits = logits / temperature[:, :, None]
            is_in_prefix = (step < prefix_length)[:, None]
            log_probs = torch.log_softmax(self.allowed_logits(logits, nodes, is_in_prefix), dim=-1)
            constrain(log_probs, state, step, options, rules)
            beams = advance(state, log_probs, step, options, rules)
            if bool(state.is_done.all()):
                break
            reorder_cache(cache, (first_row + beams).view(-1), step + 1)
            if self.trie is not None:
                next_nodes = self.trie.follow(nodes.gather(1, beams), state.tokens[:, :, step + 1])
                nodes = torch.where(is_in_prefix, nodes, next_nodes)
        return best_hypotheses(state, num_hypotheses[:, 0].long(), self.pad_id)
