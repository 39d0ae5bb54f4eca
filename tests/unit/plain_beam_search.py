"""The reference's beam search for one picture, with lists and loops and nothing clever.

What `ofa.generation` does with tensors for a batch is compared with this. The rules are those of
modelscope 1.40.2, `models/multi_modal/ofa/generate/` (sequence_generator, search,
ngram_repeat_block), which is fairseq's search.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ofa.generation.beam_search import SearchRules
from ofa.options import GenerationOptions

NEVER = -math.inf


class Hypothesis(NamedTuple):
    """An ended answer: its tokens with EOS, the log-probability of each, and the score."""

    tokens: list[int]
    log_probs: list[float]
    score: float


class Beam(NamedTuple):
    """An answer so far: its tokens without BOS, and the sum after each of them."""

    tokens: list[int]
    sums: list[float]


def tokens_that_would_repeat(history: Sequence[int], size: int) -> set[int]:
    """Tokens that followed the last `size - 1` ones before."""
    if size == 0 or len(history) < size - 1:
        return set()
    last = list(history[len(history) - (size - 1) :])
    starts = range(len(history) - size + 1)
    return {
        history[start + size - 1]
        for start in starts
        if list(history[start : start + size - 1]) == last
    }


def plain_beam_search(
    next_log_probs: Callable[[list[int]], Sequence[float]],
    options: GenerationOptions,
    rules: SearchRules,
) -> list[Hypothesis]:
    """Search for the likeliest answers, best first.

    Args:
        next_log_probs: for a history that begins with BOS, the log-probability of every token.
        options: `max_length` with all that a checkpoint adds to it.
        rules: of the checkpoint.
    """
    beams = [Beam([], [])]  # before the first token all beams are equal: one stands for all
    finished: list[Hypothesis] = []
    for step in range(options.max_length + 1):
        candidates: list[tuple[float, int, int]] = []
        for index, beam in enumerate(beams):
            history = [rules.bos_id, *beam.tokens]
            log_probs = list(next_log_probs(history))
            if step < options.min_length:
                log_probs[rules.eos_id] = NEVER
            log_probs = [NEVER if math.isnan(value) else value for value in log_probs]
            log_probs[rules.pad_id] = NEVER
            log_probs[rules.unk_id] -= rules.unk_penalty
            if step >= options.max_length:
                eos_log_prob = log_probs[rules.eos_id]
                log_probs = [NEVER] * len(log_probs)
                log_probs[rules.eos_id] = eos_log_prob
            for token in tokens_that_would_repeat(history, options.no_repeat_ngram_size):
                log_probs[token] = NEVER
            so_far = beam.sums[-1] if beam.sums else 0.0
            candidates += [(so_far + value, index, token) for token, value in enumerate(log_probs)]
        candidates.sort(key=lambda candidate: -candidate[0])
        going_on: list[Beam] = []
        for rank, (total, index, token) in enumerate(candidates[: 2 * options.beam_size]):
            sums = [*beams[index].sums, total]
            tokens = [*beams[index].tokens, token]
            if token != rules.eos_id or total == NEVER:
                going_on.append(Beam(tokens, sums))
            elif rank < options.beam_size and len(finished) < options.beam_size:
                log_probs = [b - a for a, b in zip([0.0, *sums], sums, strict=False)]
                divisor = len(tokens) ** options.length_penalty if rules.normalize_scores else 1.0
                finished.append(Hypothesis(tokens, log_probs, total / divisor))
        if len(finished) == options.beam_size:
            break
        beams = going_on[: options.beam_size]
    return sorted(finished, key=lambda hypothesis: -hypothesis.score)
