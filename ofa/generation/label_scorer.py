"""The scorers that are exported: pixels and prompt in, the log-probability of every label out.

At every token of a label the model chooses among the tokens that continue some label. Where there
is but one, nothing is to choose, so only nodes on the way to a choice are decoded, all in one pass.

Shapes: B batch, S side of the picture in pixels, L prompt tokens, N labels, E edges that are one of
a choice, C choices, D width. Source: modelscope `ofa_for_all_tasks.py`, `_traverse_inference`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofa.generation.label_trie import LabelTrie, build_trie
from ofa.generation.source_encoder import EncodedSource, PixelNormalizer, SourceEncoder
from ofa.generation.tree_decoder import TreeDecoder
from ofa.model import OFAModel


def segment_log_softmax(logits: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """log-softmax within each segment of the last dimension.

    Args:
        logits: float [B, E].
        segments: int64 [E], the segment of every entry.
        num_segments: none of them is empty.

    Returns:
        float [B, E].
    """
    shape = [logits.size(0), num_segments]
    index = segments.expand(logits.shape)
    maxima = torch.full(shape, float("-inf"), dtype=logits.dtype, device=logits.device)
    maxima = maxima.scatter_reduce(1, index, logits, "amax")
    logits = logits - maxima.gather(1, index)
    sums = torch.zeros_like(maxima).scatter_add(1, index, logits.exp())
    return logits - sums.log().gather(1, index)


class LabelDecoder(nn.Module):
    """Encoded sources to the log-probability of every label."""

    def __init__(self, model: OFAModel, prompt_type: str, labels: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.bos_id = model.config.bos_token_id
        self.pad_id = model.config.pad_token_id
        self.prompt_type = prompt_type
        self.num_labels = len(labels)
        trie = build_trie(labels, model.config.eos_token_id)
        slots = _slots_before_choices(trie)
        nodes = list(slots)[1:]
        self.tree_decoder = TreeDecoder(
            model.decoder,
            [trie.tokens[node] for node in nodes],
            [slots[trie.parents[node]] - 1 for node in nodes],
        )
        choices = [node for node in slots if trie.num_children[node] > 1]
        edges = [
            (choice, trie.first_child[node] + child)
            for choice, node in enumerate(choices)
            for child in range(trie.num_children[node])
        ]
        edge_numbers = {node: number for number, (_, node) in enumerate(edges)}
        steps = [
            (label, edge_numbers[node])
            for label, leaf in enumerate(trie.leaves)
            for node in _path(trie, leaf)
            if node in edge_numbers
        ]
        self.choice_slots: Tensor = nn.Buffer(_indices([slots[node] for node in choices]))
        self.edge_choices: Tensor = nn.Buffer(_indices([choice for choice, _ in edges]))
        self.edge_tokens: Tensor = nn.Buffer(_indices([trie.tokens[node] for _, node in edges]))
        self.step_labels: Tensor = nn.Buffer(_indices([label for label, _ in steps]))
        self.step_edges: Tensor = nn.Buffer(_indices([edge for _, edge in steps]))

    def decoder_prompt(self, source_ids: Tensor) -> tuple[Tensor, Tensor]:
        """What comes before a label: token ids int64 [B, P] and their number by row."""
        if self.prompt_type == "none":
            prompt_ids = torch.full_like(source_ids[:, :1], self.bos_id)
            return prompt_ids, torch.ones_like(prompt_ids[:, 0])
        length = (source_ids != self.pad_id).sum(1)
        if self.prompt_type == "prev_output":
            return source_ids[:, :-1], length - 1
        return source_ids, length

    def forward(self, source: EncodedSource, source_ids: Tensor) -> Tensor:
        """Score; the argument beside `source` and the result are those of `LabelScorer.forward`."""
        decoder = self.tree_decoder.decoder
        prompt_ids, prompt_length = self.decoder_prompt(source_ids)
        states = self.tree_decoder(source, prompt_ids, prompt_length)  # [B, 1 + M, D]
        states = decoder.layer_norm(states.index_select(1, self.choice_slots))  # [B, C, D]
        embeddings = decoder.embed_tokens(self.edge_tokens)  # [E, D]
        logits = (states.index_select(1, self.edge_choices) * embeddings).sum(2).float()
        log_probs = segment_log_softmax(logits, self.edge_choices, self.choice_slots.size(0))
        sums = torch.zeros(source_ids.size(0), self.num_labels, device=logits.device)
        return sums.index_add(1, self.step_labels, log_probs.index_select(1, self.step_edges))


class LabelScorer(nn.Module):
    """Every label's log-probability for a batch of pictures and prompts."""

    def __init__(
        self,
        model: OFAModel,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        prompt_type: str,
        labels: Sequence[Sequence[int]],
    ) -> None:
        """Bind the network to its labels.

        Args:
            model: the network.
            pixel_mean: subtracted from every channel.
            pixel_std: divides every channel.
            prompt_type: what the decoder sees before a label: "none" (BOS), "prev_output" (the
                prompt without EOS) or "src" (the prompt).
            labels: token ids of every label without BOS and EOS, no two the same.
        """
        super().__init__()
        self.normalize = PixelNormalizer(pixel_mean, pixel_std)
        self.source_encoder = SourceEncoder(model.encoder)
        self.label_decoder = LabelDecoder(model, prompt_type, labels)
        self.requires_grad_(requires_grad=False)

    def forward(self, patch_images: Tensor, source_ids: Tensor) -> Tensor:
        """Score a batch.

        Args:
            patch_images: uint8 [B, 3, S, S].
            source_ids: int64 [B, L], the prompt with BOS and EOS, padded on the right.

        Returns:
            label_log_probs float32 [B, N], in the labels' order; the probabilities of a row sum to
            one.
        """
        source = self.source_encoder(self.normalize(patch_images), source_ids)
        label_log_probs: Tensor = self.label_decoder(source, source_ids)
        return label_log_probs


class TextLabelScorer(nn.Module):
    """Every label's log-probability for a batch of prompts without pictures."""

    def __init__(self, model: OFAModel, prompt_type: str, labels: Sequence[Sequence[int]]) -> None:
        """Bind the network to its labels; the arguments are those of `LabelScorer`."""
        super().__init__()
        self.source_encoder = SourceEncoder(model.encoder, reads_pictures=False)
        self.label_decoder = LabelDecoder(model, prompt_type, labels)
        self.requires_grad_(requires_grad=False)

    def forward(self, source_ids: Tensor) -> Tensor:
        """Score a batch: `LabelScorer.forward` without `patch_images`."""
        label_log_probs: Tensor = self.label_decoder(
            self.source_encoder(None, source_ids), source_ids
        )
        return label_log_probs


def _slots_before_choices(trie: LabelTrie) -> dict[int, int]:
    """The nodes to decode, in order: the root, and all on the way to a node of several children.

    Returns:
        For each its place in that order.
    """
    is_needed = [count > 1 for count in trie.num_children]
    is_needed[0] = True
    for node in range(len(is_needed) - 1, 0, -1):
        if is_needed[node]:
            is_needed[trie.parents[node]] = True
    needed = [node for node, needs in enumerate(is_needed) if needs]
    return {node: slot for slot, node in enumerate(needed)}


def _path(trie: LabelTrie, leaf: int) -> list[int]:
    """The nodes from a leaf up to the root's child."""
    path = []
    while leaf > 0:
        path.append(leaf)
        leaf = trie.parents[leaf]
    return path


def _indices(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
