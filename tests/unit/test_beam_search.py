"""The tensor search against a plain one, over made-up networks: tables of log-probabilities."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ofa.generation.beam_search import (
    SearchOptions,
    SearchRules,
    advance,
    best_hypotheses,
    constrain,
    make_state,
    repeated_ngram_tokens,
    top_candidates,
)
from ofa.options import GenerationOptions
from tests.unit.plain_beam_search import plain_beam_search, tokens_that_would_repeat

BOS, PAD, EOS, UNK = range(4)
VOCAB_SIZE = 17

Network = Callable[[list[int]], list[float]]


def make_network(seed: int, vocab_size: int = VOCAB_SIZE) -> Network:
    """Log-probabilities that depend on the whole history.

    Some networks like EOS, some hate it, and some know but a few tokens, so that beams die.
    """
    character = random.Random(seed)
    eos_bonus = character.choice([-3.0, 0.0, 2.0, 4.0])
    unknown = []
    if character.random() < 0.3:
        others = [token for token in range(vocab_size) if token != EOS]
        unknown = character.sample(others, vocab_size - character.randint(2, 5))

    def next_log_probs(history: list[int]) -> list[float]:
        numbers = np.random.default_rng([seed, *history])
        logits = numbers.normal(0, 2, vocab_size)
        logits[EOS] += eos_bonus
        log_probs = logits - np.log(np.exp(logits).sum())
        log_probs[unknown] = -np.inf
        if numbers.random() < 0.1:
            log_probs[numbers.integers(0, vocab_size, 4)] = -np.inf
        if numbers.random() < 0.1:
            log_probs[numbers.integers(0, vocab_size)] = np.nan
        return log_probs.astype(np.float32).tolist()

    return next_log_probs


def random_options(numbers: random.Random) -> GenerationOptions:
    beam_size = numbers.randint(1, 6)
    max_length = numbers.randint(1, 8)
    return GenerationOptions(
        num_hypotheses=beam_size,
        beam_size=beam_size,
        max_length=max_length,
        min_length=numbers.choice([0, 1, numbers.randint(0, max_length), max_length]),
        no_repeat_ngram_size=numbers.choice([0, 0, 1, 2, 3, 4, 9]),
        length_penalty=numbers.choice([-1.5, -1.0, 0.0, 0.5, 1.0, 1.0, 2.0]),
        temperature=1.0,
    )


def search(
    networks: list[Network],
    rows: list[GenerationOptions],
    rules: SearchRules,
    prefixes: list[list[int]] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the tensor search for a batch, one network and one prefix a row."""
    prefixes = prefixes or [[]] * len(rows)
    longest_prefix = max(map(len, prefixes))

    def column(name: str, dtype: torch.dtype = torch.long) -> Tensor:
        return torch.tensor([getattr(row, name) for row in rows], dtype=dtype)

    options = SearchOptions(
        beam_size=column("beam_size"),
        max_length=column("max_length"),
        min_length=column("min_length"),
        no_repeat_ngram_size=column("no_repeat_ngram_size"),
        length_penalty=column("length_penalty", torch.float32),
        prefix=torch.tensor(
            [prefix + [PAD] * (longest_prefix + 1 - len(prefix)) for prefix in prefixes]
        ),
        prefix_length=torch.tensor([len(prefix) for prefix in prefixes]),
        shortest_max_length=min(row.max_length for row in rows),
        longest_min_length=max(row.min_length for row in rows),
        largest_ngram_size=max(row.no_repeat_ngram_size for row in rows),
        longest_prefix=longest_prefix,
    )
    state = make_state(options, rules, max(row.beam_size for row in rows))
    for step in range(max(row.max_length for row in rows) + 1):
        histories = state.tokens[:, :, : step + 1].tolist()
        log_probs = torch.tensor(
            [
                [network(history) for history in beams]
                for network, beams in zip(networks, histories, strict=True)
            ]
        )
        constrain(log_probs, state, step, options, rules)
        advance(state, log_probs, step, options, rules)
        if bool(state.is_done.all()):
            break
    return best_hypotheses(state, column("num_hypotheses"), rules.pad_id)


def assert_same_as_plain(
    answer: tuple[Tensor, Tensor, Tensor],
    networks: list[Network],
    rows: list[GenerationOptions],
    rules: SearchRules,
    prefixes: list[list[int]] | None = None,
) -> None:
    for index, (network, options) in enumerate(zip(networks, rows, strict=True)):
        prefix = prefixes[index] if prefixes else []
        token_ids, scores, log_probs = (tensor[index].tolist() for tensor in answer)
        hypotheses = plain_beam_search(network, options, rules, prefix)[: options.num_hypotheses]
        for slot, hypothesis in enumerate(hypotheses):
            padding = len(token_ids[slot]) - len(hypothesis.tokens)
            assert token_ids[slot] == hypothesis.tokens + [PAD] * padding
            assert scores[slot] == pytest.approx(hypothesis.score, rel=1e-5, abs=1e-5)
            assert log_probs[slot] == pytest.approx(
                hypothesis.log_probs + [0.0] * padding, abs=1e-5
            )
        for slot in range(len(hypotheses), len(token_ids)):
            assert scores[slot] == -np.inf
            assert set(token_ids[slot]) <= {PAD}
            assert not any(log_probs[slot])


@pytest.mark.parametrize("seed", range(60))
def test_every_row_gets_the_plain_search_of_its_own_options(seed: int) -> None:
    numbers = random.Random(seed)
    num_rows = numbers.randint(1, 5)
    rows = [random_options(numbers) for _ in range(num_rows)]
    networks = [make_network(1000 * seed + index) for index in range(num_rows)]
    rules = SearchRules(
        bos_id=BOS,
        pad_id=PAD,
        eos_id=EOS,
        unk_id=UNK,
        unk_penalty=numbers.choice([0.0, 0.0, 3.0, -3.0]),
        normalize_scores=numbers.random() < 0.7,
        is_prefix_hard=False,
    )
    answer = search(networks, rows, rules)
    assert_same_as_plain(answer, networks, rows, rules)


RULES = SearchRules(
    bos_id=BOS,
    pad_id=PAD,
    eos_id=EOS,
    unk_id=UNK,
    unk_penalty=0.0,
    normalize_scores=True,
    is_prefix_hard=False,
)


@st.composite
def prefixed_rows(draw: st.DrawFn) -> list[tuple[Network, GenerationOptions, list[int]]]:
    """A batch of networks, options and prefixes with nothing in common."""
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        numbers = random.Random(draw(st.integers(0, 10_000)))
        # Few different tokens, so that n-grams repeat inside the prefix and after it.
        prefix = draw(st.lists(st.integers(4, 7), max_size=7))
        network = make_network(numbers.randint(0, 10_000))
        rows.append((network, random_options(numbers), [BOS, *prefix]))
    return rows


@given(rows=prefixed_rows(), is_hard=st.booleans(), unk_penalty=st.sampled_from([0.0, -3.0]))
@settings(max_examples=60)
def test_every_row_starts_with_its_own_prefix(
    rows: list[tuple[Network, GenerationOptions, list[int]]], is_hard: bool, unk_penalty: float
) -> None:
    rules = RULES._replace(is_prefix_hard=is_hard, unk_penalty=unk_penalty)
    networks, options, prefixes = (list(column) for column in zip(*rows, strict=True))
    answer = search(networks, options, rules, prefixes)
    assert_same_as_plain(answer, networks, options, rules, prefixes)
    if is_hard:
        for token_ids, row, prefix in zip(answer[0].tolist(), options, prefixes, strict=True):
            forced = prefix[: row.max_length]
            for hypothesis in token_ids:
                assert hypothesis[: len(forced)] == forced or set(hypothesis) <= {PAD}


def options(**changes: float) -> GenerationOptions:
    values: dict[str, float] = {
        "num_hypotheses": changes.get("beam_size", 3),
        "beam_size": 3,
        "max_length": 6,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "length_penalty": 1.0,
        "temperature": 1.0,
    }
    return GenerationOptions(**{**values, **changes})  # type: ignore[arg-type]


def test_special_ids_may_have_other_numbers() -> None:
    rules = RULES._replace(bos_id=5, pad_id=0, eos_id=16, unk_id=1)
    networks = [make_network(seed) for seed in range(4)]
    rows = [options(beam_size=size) for size in (1, 2, 3, 4)]
    token_ids, _, _ = answer = search(networks, rows, rules)
    for index, (network, row) in enumerate(zip(networks, rows, strict=True)):
        hypotheses = plain_beam_search(network, row, rules)
        found = [[t for t in ids if t != 0] for ids in token_ids[index].tolist()]
        assert found[: len(hypotheses)] == [hypothesis.tokens for hypothesis in hypotheses]
    assert answer[1].isfinite().any()


def test_a_network_that_says_nothing_gives_no_hypotheses() -> None:
    def silent(history: list[int]) -> list[float]:
        return [float("nan")] * VOCAB_SIZE

    networks = [silent, make_network(1)]
    rows = [options(), options()]
    token_ids, scores, log_probs = answer = search(networks, rows, RULES)
    assert torch.equal(scores[0], torch.full([3], -torch.inf))
    assert torch.equal(token_ids[0], torch.full_like(token_ids[0], PAD))
    assert not log_probs[0].any()
    assert_same_as_plain(answer, networks, rows, RULES)


def test_an_end_below_the_first_ranks_is_dropped() -> None:
    # One beam: EOS is second best, so it is no candidate; the best token goes on instead.
    def network(history: list[int]) -> list[float]:
        log_probs = [-9.0] * VOCAB_SIZE
        log_probs[7], log_probs[EOS] = -0.6, -0.9
        return log_probs

    token_ids, scores, _ = search([network], [options(beam_size=1, max_length=2)], RULES)
    assert token_ids.tolist() == [[[7, 7, EOS]]]
    assert scores.item() == pytest.approx(-(0.6 + 0.6 + 0.9) / 3)


def test_the_search_ends_with_the_last_wanted_hypothesis() -> None:
    # EOS is likeliest everywhere: each step ends one answer, and three are enough.
    def network(history: list[int]) -> list[float]:
        log_probs = [-9.0 - token for token in range(VOCAB_SIZE)]
        log_probs[EOS] = -0.1
        return log_probs

    networks_asked: list[int] = []

    def counting(history: list[int]) -> list[float]:
        networks_asked.append(len(history))
        return network(history)

    token_ids, scores, _ = search([counting], [options(max_length=8)], RULES)
    assert token_ids.shape == (1, 3, 2)  # EOS at once, and after either of the next best tokens
    assert max(networks_asked) == 2
    assert scores.isfinite().all()


def test_a_row_that_is_out_of_length_does_not_keep_the_batch() -> None:
    """Even if it found fewer answers than it has beams."""

    def two_words(history: list[int]) -> list[float]:
        log_probs = [-np.inf] * VOCAB_SIZE
        log_probs[EOS], log_probs[7] = -0.7, -0.7
        return log_probs

    asked: list[int] = []

    def eager_to_end(history: list[int]) -> list[float]:
        asked.append(len(history))
        log_probs = [-9.0 - token for token in range(VOCAB_SIZE)]
        log_probs[EOS] = -0.1
        return log_probs

    rows = [options(beam_size=4, max_length=1), options(beam_size=4, max_length=8)]
    _, scores, _ = search([two_words, eager_to_end], rows, RULES)
    assert scores.isfinite().sum(1).tolist() == [2, 4]
    assert max(asked) == 2


def test_fewer_captions_than_beams_are_the_first_of_all() -> None:
    networks = [make_network(3), make_network(4)]
    everything = search(networks, [options(beam_size=4), options(beam_size=4)], RULES)
    some = search(
        networks,
        [options(beam_size=4, num_hypotheses=1), options(beam_size=4, num_hypotheses=3)],
        RULES,
    )
    token_ids, scores, log_probs = some
    assert scores[0, 1:].tolist() == [-np.inf, -np.inf]
    assert (token_ids[0, 1:] == PAD).all()
    assert not log_probs[0, 1:].any()
    for row, count in ((0, 1), (1, 3)):
        for kept, full in zip(some, everything, strict=True):
            shape = [slice(row, row + 1), slice(count)]
            if kept.dim() == 3:
                length = kept.size(2)
                assert torch.equal(kept[*shape], full[*shape][:, :, :length])
            else:
                assert torch.equal(kept[*shape], full[*shape])


@pytest.mark.parametrize("seed", range(20))
def test_repeated_ngrams_are_those_of_the_plain_rule(seed: int) -> None:
    numbers = random.Random(seed)
    length = numbers.randint(1, 9)
    sizes = [numbers.randint(0, 5) for _ in range(6)]
    histories = [[[numbers.randint(4, 6) for _ in range(length)] for _ in range(3)] for _ in sizes]
    barred = repeated_ngram_tokens(torch.tensor(histories), torch.tensor(sizes), max(sizes))
    for size, beams, marks in zip(sizes, histories, barred.tolist(), strict=True):
        for history, beam_marks in zip(beams, marks, strict=True):
            found = {token for token, mark in zip(history, beam_marks, strict=True) if mark}
            assert found == tokens_that_would_repeat(history, size)


def test_padding_is_no_candidate() -> None:
    totals = torch.full((1, 64 * 40 + 1), -torch.inf)
    totals[0, -1] = 0.0
    values, indices = top_candidates(totals, 2)
    assert values.tolist() == [[0.0, -torch.inf]]
    assert indices[0, 0] == 64 * 40
    assert (indices < totals.size(1)).all()


@pytest.mark.parametrize("num_totals", [1, 63, 1279, 1280, 1281, 5000, 64 * 200])
@pytest.mark.parametrize("num_barred", [0, 1, 64])
def test_top_candidates_are_those_of_topk(num_totals: int, num_barred: int) -> None:
    torch.manual_seed(num_totals + num_barred)
    totals = torch.randn(3, num_totals)
    totals[:, :num_barred] = -torch.inf
    # Best ones side by side, and in the last and shortest run.
    totals[0, -10:] += 5.0
    count = min(10, num_totals)
    values, indices = top_candidates(totals, count)
    expected = totals.topk(count, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(totals.gather(1, indices), values)
    assert all(len(set(row)) == count for row in indices.tolist())
    for row in range(3):
        alone = top_candidates(totals[row : row + 1], count)
        assert torch.equal(alone[1][0], indices[row])
