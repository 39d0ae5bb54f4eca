"""Beam search as tensor functions, the network left out.

It is fairseq's search as ModelScope runs it, step for step, for a batch whose rows have options of
their own: a row of a narrower beam gets exactly the search of its own width, and where the
reference's rule depends on the batch, the rule of a batch of one holds.

Shapes: B batch, K beams (the batch's widest), T tokens of an answer with EOS (the batch's longest),
V vocabulary. Source: modelscope `generate/sequence_generator.py`, `generate/search.py`,
`generate/ngram_repeat_block.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class SearchOptions(NamedTuple):
    """Options by row, and their extremes over the batch so that a step need not ask the device.

    Attributes:
        beam_size: int64 [B].
        max_length: int64 [B], tokens after which only EOS is left.
        min_length: int64 [B], tokens before which EOS is barred.
        no_repeat_ngram_size: int64 [B].
        length_penalty: float32 [B].
        prefix: int64 [B, P], tokens that hypotheses start with after BOS.
        prefix_length: int64 [B], how many of them are the row's; 0 for none.
        shortest_max_length: least `max_length`.
        longest_min_length: greatest `min_length`.
        largest_ngram_size: greatest `no_repeat_ngram_size`.
        longest_prefix: greatest `prefix_length`.
    """

    beam_size: Tensor
    max_length: Tensor
    min_length: Tensor
    no_repeat_ngram_size: Tensor
    length_penalty: Tensor
    prefix: Tensor
    prefix_length: Tensor
    shortest_max_length: int
    longest_min_length: int
    largest_ngram_size: int
    longest_prefix: int


class SearchRules(NamedTuple):
    """What is the same for every row of a checkpoint.

    Attributes:
        bos_id: starts every hypothesis.
        pad_id: fills what is not generated; never generated itself.
        eos_id: ends a hypothesis.
        unk_id: the unknown token.
        unk_penalty: subtracted from UNK's log-probability.
        normalize_scores: divide a hypothesis's sum by length ** length_penalty.
        is_prefix_hard: nothing but its prefix may start a hypothesis; else other tokens are but
            less likely, as the reference has it where no labels are given.
    """

    bos_id: int
    pad_id: int
    eos_id: int
    unk_id: int
    unk_penalty: float
    normalize_scores: bool
    is_prefix_hard: bool


class BeamState(NamedTuple):
    """What the search knows between two steps; changed in place.

    Attributes:
        tokens: int64 [B, K, T + 1], BOS, the tokens so far, padding.
        log_probs: float32 [B, K, T], log-probability of every token so far.
        totals: float32 [B, K], their sums.
        finished_tokens: int64 [B, K + 1, T], ended hypotheses with EOS, padded; slot K is waste.
        finished_log_probs: float32 [B, K + 1, T], log-probability of every token.
        finished_scores: float32 [B, K + 1], -inf in an empty slot.
        num_finished: int64 [B].
        is_done: bool [B], True when a row's search has ended.
    """

    tokens: Tensor
    log_probs: Tensor
    totals: Tensor
    finished_tokens: Tensor
    finished_log_probs: Tensor
    finished_scores: Tensor
    num_finished: Tensor
    is_done: Tensor


def make_state(options: SearchOptions, rules: SearchRules, num_beams: int) -> BeamState:
    """The state before the first step."""
    device = options.beam_size.device
    batch_size = options.beam_size.size(0)
    longest = int(options.max_length.max()) + 1
    shape = [batch_size, num_beams, longest]
    waste = [batch_size, num_beams + 1, longest]
    tokens = torch.full([batch_size, num_beams, longest + 1], rules.pad_id, device=device)
    tokens[:, :, 0] = rules.bos_id
    return BeamState(
        tokens=tokens,
        log_probs=torch.zeros(shape, device=device),
        totals=torch.zeros(shape[:2], device=device),
        finished_tokens=torch.full(waste, rules.pad_id, device=device),
        finished_log_probs=torch.zeros(waste, device=device),
        finished_scores=torch.full(waste[:2], float("-inf"), device=device),
        num_finished=torch.zeros(batch_size, dtype=torch.long, device=device),
        is_done=torch.zeros(batch_size, dtype=torch.bool, device=device),
    )


def repeated_ngram_tokens(tokens: Tensor, sizes: Tensor, largest_size: int) -> Tensor:
    """Mark the past tokens that would end an n-gram for the second time if they came next.

    A past token is barred when the n - 1 tokens before it equal the last n - 1 tokens.

    Args:
        tokens: int64 [B, K, t], the history with BOS.
        sizes: int64 [B], n by row; 0 bars nothing.
        largest_size: greatest of `sizes`.

    Returns:
        bool [B, K, t].
    """
    length = tokens.size(2)
    sizes = sizes[:, None, None]
    barred = (sizes > 0).expand(tokens.shape)
    for back in range(1, min(largest_size, length)):
        matches = torch.zeros_like(tokens, dtype=torch.bool)
        matches[:, :, back:] = tokens[:, :, : length - back] == tokens[:, :, length - back, None]
        barred = barred & (matches | (sizes <= back))
    # An n-gram longer than the history cannot have occurred.
    return barred & (sizes <= length)


def force_prefix(
    log_probs: Tensor, step: int, options: SearchOptions, rules: SearchRules
) -> Tensor:
    """Prefer the next token of each row's prefix.

    A hard prefix bars every other token. A soft one makes them less likely by one than the prefix's
    is in the beam that likes it least, and beams may stray from it. Source: `_prefix_tokens` in
    `sequence_generator.py`.

    Args:
        log_probs: float32 [B, K, V], changed in place.
        step: tokens generated so far, fewer than the longest prefix has.
        options: by row.
        rules: of the checkpoint.

    Returns:
        bool [B], True where a row's prefix goes on.
    """
    is_active = (step < options.prefix_length) & (step < options.max_length)
    num_beams = log_probs.size(1)
    tokens = options.prefix[:, step][:, None, None].expand(-1, num_beams, 1)
    forced = log_probs.gather(2, tokens)
    if rules.is_prefix_hard:
        others = torch.full_like(forced, float("-inf"))
    else:
        is_live = torch.arange(num_beams, device=forced.device) < options.beam_size[:, None]
        others = forced.masked_fill(~is_live.unsqueeze(2), float("inf")).amin(1, keepdim=True) - 1
    forced_log_probs = others.expand_as(log_probs).scatter(2, tokens, forced)
    log_probs.copy_(torch.where(is_active[:, None, None], forced_log_probs, log_probs))
    return is_active


def constrain(
    log_probs: Tensor, state: BeamState, step: int, options: SearchOptions, rules: SearchRules
) -> None:
    """Apply the rules on the next token, in the reference's order.

    Args:
        log_probs: float32 [B, K, V], changed in place; barred tokens become -inf.
        state: the search so far.
        step: tokens generated so far.
        options: by row.
        rules: of the checkpoint.
    """
    never = float("-inf")
    too_short = step < options.min_length
    if step < options.longest_prefix:
        too_short = too_short & ~force_prefix(log_probs, step, options, rules)
    if step < options.longest_min_length:
        log_probs[:, :, rules.eos_id].masked_fill_(too_short[:, None], never)
    # In one pass; a comparison and a fill are two.
    log_probs.nan_to_num_(nan=never, posinf=float("inf"), neginf=never)
    log_probs[:, :, rules.pad_id] = never
    log_probs[:, :, rules.unk_id] -= rules.unk_penalty
    if step >= options.shortest_max_length:
        too_long = (step >= options.max_length)[:, None, None]
        log_probs[:, :, : rules.eos_id].masked_fill_(too_long, never)
        log_probs[:, :, rules.eos_id + 1 :].masked_fill_(too_long, never)
    if options.largest_ngram_size > 0:
        history = state.tokens[:, :, : step + 1]
        barred = repeated_ngram_tokens(
            history, options.no_repeat_ngram_size, options.largest_ngram_size
        )
        if options.longest_prefix > 0:
            # The reference spares a prefix, but for its last tokens.
            first_step = options.prefix_length - options.no_repeat_ngram_size + 2
            barred = barred & (step >= first_step)[:, None, None]
        # A token that is not barred in one place may be in another: the smallest value wins.
        penalty = torch.zeros(history.shape, device=log_probs.device)
        penalty = penalty.masked_fill(barred, never)
        log_probs.scatter_add_(2, history, penalty)


def advance(
    state: BeamState, log_probs: Tensor, step: int, options: SearchOptions, rules: SearchRules
) -> Tensor:
    """Choose the next token of every beam and set aside the hypotheses that end here.

    Of a row's 2 * beam_size best candidates, those that are EOS end a hypothesis if they are among
    the first beam_size; the first beam_size others go on.

    Args:
        state: changed in place.
        log_probs: float32 [B, K, V] of the next token, constrained.
        step: tokens generated so far.
        options: by row.
        rules: of the checkpoint.

    Returns:
        int64 [B, K], for every beam that goes on the one it continues.
    """
    batch_size, num_beams, vocab_size = log_probs.shape
    if step == 0:
        # All beams are equal before the first token: one of them stands for all.
        candidate_totals = log_probs[:, 0]
    else:
        totals = log_probs + state.totals[:, :, None]
        candidate_totals = totals.view(batch_size, num_beams * vocab_size)
    if options.longest_prefix > 0 and not rules.is_prefix_hard:
        candidate_scores, flat = _best_by_row(candidate_totals, options, num_beams, vocab_size)
    else:
        candidate_scores, flat = top_candidates(candidate_totals, 2 * num_beams)
    candidate_log_probs = log_probs.view(batch_size, num_beams * vocab_size).gather(1, flat)
    candidate_beams = flat.div(vocab_size, rounding_mode="floor")
    candidate_tokens = flat.remainder(vocab_size)

    rank = torch.arange(2 * num_beams, device=log_probs.device)
    beam_size = options.beam_size[:, None]
    is_eos = (candidate_tokens == rules.eos_id) & (candidate_scores != float("-inf"))
    ends = is_eos & (rank < beam_size) & ~state.is_done[:, None]
    _set_aside(
        state,
        ends[:, :num_beams],
        candidate_beams[:, :num_beams],
        candidate_log_probs[:, :num_beams],
        candidate_scores[:, :num_beams],
        step,
        options,
        rules,
    )

    # The first beam_size candidates that do not end here, in rank order. They are among the first
    # 2 * beam_size, of which at most beam_size can be EOS, one a beam.
    order = rank + 2 * num_beams * is_eos.long()
    chosen = order.topk(num_beams, dim=1, largest=False).indices  # [B, K]
    beams = candidate_beams.gather(1, chosen)
    is_live = torch.arange(num_beams, device=log_probs.device) < beam_size
    next_tokens = candidate_tokens.gather(1, chosen).masked_fill(~is_live, rules.pad_id)
    next_totals = candidate_scores.gather(1, chosen).masked_fill(~is_live, float("-inf"))

    state.totals.copy_(next_totals)
    if step + 1 < state.log_probs.size(2):
        past = beams[:, :, None].expand(batch_size, num_beams, step + 1)
        state.tokens[:, :, : step + 1] = state.tokens[:, :, : step + 1].gather(1, past)
        state.log_probs[:, :, : step + 1] = state.log_probs[:, :, : step + 1].gather(1, past)
        state.tokens[:, :, step + 1] = next_tokens
        state.log_probs[:, :, step] = candidate_log_probs.gather(1, chosen)
    # Constraints may leave no beam alive; nothing ends any more then.
    state.is_done.logical_or_((next_totals == float("-inf")).all(1))
    return beams


def top_candidates(totals: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each row as `topk` finds them, in a pass and a half; of equals perhaps others.

    Each of a row's `count` largest is in a run of neighbours whose maximum is among the `count`
    largest maxima.

    Args:
        totals: float [B, n].
        count: how many are wanted.

    Returns:
        Values [B, count], largest first, and their indices int64 [B, count].
    """
    run = 64
    num_totals = totals.size(1)
    if num_totals < 2 * run * count:
        return totals.topk(count, dim=1)
    padded = F.pad(totals, [0, -num_totals % run], value=float("-inf"))
    runs = padded.view(totals.size(0), -1, run)
    best_runs = runs.amax(dim=2).topk(count, dim=1).indices  # [B, count]
    candidates = runs.gather(1, best_runs[:, :, None].expand(-1, -1, run)).flatten(1)
    values, places = candidates.topk(count, dim=1)
    first = best_runs.gather(1, places.div(run, rounding_mode="floor")) * run
    # Where a row has fewer candidates above -inf, padding may stand for one that is not.
    return values, (first + places.remainder(run)).clamp(max=num_totals - 1)


def _best_by_row(
    candidate_totals: Tensor, options: SearchOptions, num_beams: int, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """The best candidates of each row as a search of its own width finds them.

    A soft prefix makes nearly all candidates equal. Which of equals `topk` takes depends on how
    many it looks at and is asked for, and must not depend on the widest row of the batch.

    Returns:
        Totals float32 [B, 2K], -inf beyond a narrower row's, and their indices int64 [B, 2K].
    """
    shape = [candidate_totals.size(0), 2 * num_beams]
    scores = torch.full(shape, float("-inf"), device=candidate_totals.device)
    indices = torch.zeros(shape, dtype=torch.long, device=candidate_totals.device)
    for row in range(candidate_totals.size(0)):
        width = int(options.beam_size[row])
        best = candidate_totals[row, : width * vocab_size].topk(2 * width)
        scores[row, : 2 * width] = best[0]
        indices[row, : 2 * width] = best[1]
    return scores, indices


def _set_aside(
    state: BeamState,
    ends: Tensor,
    beams: Tensor,
    log_probs: Tensor,
    totals: Tensor,
    step: int,
    options: SearchOptions,
    rules: SearchRules,
) -> None:
    """Store the hypotheses that end at `step`, in rank order, and mark the rows that are done.

    Args:
        state: changed in place.
        ends: bool [B, K], candidates by rank, True where EOS ends a hypothesis.
        beams: int64 [B, K], the beam that each candidate continues.
        log_probs: float32 [B, K], of each candidate's last token.
        totals: float32 [B, K], each candidate's summed log-probability.
        step: tokens before the EOS.
        options: by row.
        rules: of the checkpoint.
    """
    num_beams = ends.size(1)
    longest = state.log_probs.size(2)
    history = beams[:, :, None].expand(-1, -1, longest)
    tokens = state.tokens[:, :, 1:].gather(1, history)
    tokens[:, :, step] = rules.eos_id
    token_log_probs = state.log_probs.gather(1, history)
    token_log_probs[:, :, step] = log_probs
    scores = totals
    if rules.normalize_scores:
        length = torch.full([1], step + 1.0, dtype=torch.float64, device=totals.device)
        scores = totals / length.pow(options.length_penalty.double()).float()[:, None]

    # What does not end, or finds its row's places taken, goes into the waste slot.
    slot = state.num_finished[:, None] + ends.long().cumsum(1) - 1
    slot = slot.masked_fill(~ends | (slot >= options.beam_size[:, None]), num_beams)
    state.finished_tokens.scatter_(1, slot[:, :, None].expand(-1, -1, longest), tokens)
    state.finished_log_probs.scatter_(1, slot[:, :, None].expand(-1, -1, longest), token_log_probs)
    state.finished_scores.scatter_(1, slot, scores)
    state.num_finished.add_(ends.long().sum(1)).clamp_(max=options.beam_size)
    state.is_done.logical_or_(state.num_finished >= options.beam_size)
    state.is_done.logical_or_(step >= options.max_length)


def best_hypotheses(
    state: BeamState, num_hypotheses: Tensor, pad_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ended hypotheses of every row, best first.

    Args:
        state: after the last step.
        num_hypotheses: int64 [B], hypotheses wanted by row.
        pad_id: fills what a row does not have.

    Returns:
        token_ids int64 [B, N, T], scores float32 [B, N] and log_probs float32 [B, N, T] with N the
        greatest of `num_hypotheses` and T the longest answer; -inf, padding and zeros where a row
        wants or has fewer.
    """
    most = int(num_hypotheses.max())
    num_beams = state.tokens.size(1)
    scores, order = state.finished_scores[:, :num_beams].sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :most], order[:, :most]
    unwanted = torch.arange(most, device=scores.device) >= num_hypotheses[:, None]
    history = order[:, :, None].expand(-1, -1, state.log_probs.size(2))
    token_ids = state.finished_tokens.gather(1, history).masked_fill(unwanted[:, :, None], pad_id)
    log_probs = state.finished_log_probs.gather(1, history).masked_fill(unwanted[:, :, None], 0.0)
    # A server may have no use for an empty tensor, so there is a column even if nothing was found.
    longest = max(int((token_ids != pad_id).sum(2).max()), 1)
    scores = scores.masked_fill(unwanted, float("-inf"))
    return token_ids[:, :, :longest].contiguous(), scores, log_probs[:, :, :longest].contiguous()
