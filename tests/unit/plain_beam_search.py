"""The reference's beam search for one picture, with lists and loops and nothing clever.

What `ofa.generation` does with tensors for a batch is compared with this. The rules are those of
modelscope 1.40.2, `models/multi_modal/ofa/generate/` (sequence_generator, search,
ngram_repeat_block), which is fairseq's search.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

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


def force(rows: list[list[float]], token: int, rules: SearchRules) -> None:
    """Prefer `token` in every beam's log-probabilities, as `_prefix_tokens` does."""
    least = torch.tensor([row[token] for row in rows], dtype=torch.float64).min().item()
    others = NEVER if rules.is_prefix_hard else least - 1
    for row in rows:
        row[:] = [value if other == token else others for other, value in enumerate(row)]


def constrain(
    log_probs: Sequence[float],
    history: Sequence[int],
    options: GenerationOptions,
    rules: SearchRules,
    prefix_length: int,
) -> list[float]:
    """Apply the rules on the token after `history`, which begins with BOS, in their order."""
    step = len(history) - 1
    is_in_prefix = step < min(prefix_length, options.max_length)
    values = [NEVER if math.isnan(value) else value for value in log_probs]
    if step < options.min_length and not is_in_prefix:
        values[rules.eos_id] = NEVER
    values[rules.pad_id] = NEVER
    values[rules.unk_id] -= rules.unk_penalty
    if step >= options.max_length:
        values = [v if token == rules.eos_id else NEVER for token, v in enumerate(values)]
    ngram_size = options.no_repeat_ngram_size
    if prefix_length == 0 or prefix_length < step + ngram_size - 1:
        for token in tokens_that_would_repeat(history, ngram_size):
            values[token] = NEVER
    return values


def plain_beam_search(
    next_log_probs: Callable[[list[int]], Sequence[float]],
    options: GenerationOptions,
    rules: SearchRules,
    prefix: Sequence[int] = (),
) -> list[Hypothesis]:
    """Search for the likeliest answers, best first.

    Args:
        next_log_probs: for a history that begins with BOS, the log-probability of every token.
        options: `max_length` with all that a checkpoint adds to it.
        rules: of the checkpoint.
        prefix: tokens that an answer starts with.
    """
    beams = [Beam([], [])]  # before the first token all beams are equal: one stands for all
    finished: list[Hypothesis] = []
    for step in range(options.max_length + 1):
        rows = [list(next_log_probs([rules.bos_id, *beam.tokens])) for beam in beams]
        if step < min(len(prefix), options.max_length):
            force(rows, prefix[step], rules)
        totals: list[float] = []
        for beam, log_probs in zip(beams, rows, strict=True):
            history = [rules.bos_id, *beam.tokens]
            so_far = beam.sums[-1] if beam.sums else 0.0
            values = constrain(log_probs, history, options, rules, len(prefix))
            totals += [so_far + value for value in values]
        # Which of equal candidates come first is torch's choice in the reference too.
        best = torch.tensor(totals, dtype=torch.float64).topk(2 * options.beam_size)
        candidates = [
            (total, *divmod(index, len(rows[0])))
            for total, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        going_on: list[Beam] = []
        for rank, (total, index, token) in enumerate(candidates):
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
