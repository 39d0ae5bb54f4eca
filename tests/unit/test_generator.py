"""The whole generator on a tiny random model: what must not change its answers."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ofa.generation import Generator, LabelScorer, TextGenerator
from ofa.generation.beam_search import SearchRules
from ofa.model import OFAModel
from ofa.model.encoder import Encoder
from ofa.options import GenerationOptions
from ofa.task_config import SearchConfig
from tests.unit import tiny
from tests.unit.plain_beam_search import Hypothesis, plain_beam_search
from tests.unit.tiny import BOS, EOS, PAD, UNK, make_options, stack_options

Answer = tuple[Tensor, Tensor, Tensor]

PROMPT = [BOS, 10, 20, 30, EOS]

#: One option odd at a time, then several: neighbours with nothing in common.
ODD_OPTIONS = [
    make_options(),
    make_options(beam_size=1),
    make_options(beam_size=5, num_hypotheses=2),
    make_options(max_length=2),
    make_options(max_length=12),
    make_options(min_length=5),
    make_options(max_length=6, min_length=6),
    make_options(no_repeat_ngram_size=0),
    make_options(no_repeat_ngram_size=1),
    make_options(no_repeat_ngram_size=2, temperature=0.5),
    make_options(length_penalty=-1.0, temperature=2.0),
    make_options(length_penalty=0.0, beam_size=4, max_length=5),
]


def run(
    generator: torch.nn.Module,
    pictures: Tensor,
    source_ids: Tensor,
    rows: list[GenerationOptions],
) -> Answer:
    with torch.inference_mode():
        answer: Answer = generator(pictures, source_ids, *stack_options(rows))
    return answer


def prompts(count: int) -> Tensor:
    return torch.tensor([PROMPT] * count)


def assert_same_row(actual: Answer, expected: Answer, row: int) -> None:
    """Row `row` of `actual` is the only row of `expected`, whatever both are padded to."""
    token_ids, scores, log_probs = (tensor[row] for tensor in actual)
    num_hypotheses, length = expected[0].shape[1:]
    assert token_ids[:num_hypotheses, :length].tolist() == expected[0][0].tolist()
    assert (token_ids[:, length:] == PAD).all()
    torch.testing.assert_close(scores[:num_hypotheses], expected[1][0], rtol=1e-6, atol=1e-5)
    assert (scores[num_hypotheses:] == -torch.inf).all()
    torch.testing.assert_close(
        log_probs[:num_hypotheses, :length], expected[2][0], rtol=0, atol=1e-4
    )
    assert not log_probs[:, length:].any()


def assert_same(actual: Answer, expected: Answer) -> None:
    assert torch.equal(actual[0], expected[0])
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(actual[2], expected[2], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def generator(tiny_model: OFAModel) -> Generator:
    return tiny.make_generator(tiny_model)


@pytest.fixture(scope="module")
def odd_batch(generator: Generator) -> Answer:
    count = len(ODD_OPTIONS)
    return run(generator, tiny.make_pictures(count), prompts(count), ODD_OPTIONS)


def test_pixels_are_normalised_in_the_references_order(tiny_model: OFAModel) -> None:
    """Bit for bit torchvision's ToTensor and Normalize: / 255, then - mean, then / std."""
    values = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    generator = Generator(tiny_model, SearchConfig(), mean, std, UNK)
    steps = np.arange(256, dtype=np.float32) / np.float32(255)
    expected = [(steps - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)]
    assert np.array_equal(generator.normalize(values)[0, :, 0].numpy(), np.stack(expected))


@pytest.mark.parametrize("row", range(len(ODD_OPTIONS)))
def test_a_batch_equals_its_singles(generator: Generator, odd_batch: Answer, row: int) -> None:
    picture = tiny.make_pictures(len(ODD_OPTIONS))[row : row + 1]
    alone = run(generator, picture, prompts(1), [ODD_OPTIONS[row]])
    assert_same_row(odd_batch, alone, row)


def test_the_odd_batch_has_something_to_tell(odd_batch: Answer) -> None:
    """Else the equalities here would hold for a generator that ignores its inputs."""
    best = odd_batch[0][:, 0]
    assert len({tuple(row) for row in best.tolist()}) > len(ODD_OPTIONS) / 2
    assert len(set((best != PAD).sum(1).tolist())) >= 4


def plain_search(
    model: OFAModel,
    picture: Tensor | None,
    source_ids: Tensor,
    options: GenerationOptions,
    search: SearchConfig,
    labels: Sequence[Sequence[int]] = (),
) -> list[Hypothesis]:
    """The plain search over full, uncached passes of the model for one row."""
    encoder = model.encoder
    pixels = None if picture is None else (picture.float() / 255 - 0.5) / 0.5
    x, height, width = encoder.embed(pixels, source_ids)
    positions = encoder.position_states(height, width, source_ids.size(1))
    padding = encoder.padding_mask(source_ids, height * width)
    hidden = encoder.run_layers(x, padding, encoder.attention_bias(positions, height, width))

    prefix = source_ids[0, :-1].tolist() if search.prompt_type == "prev_output" else []

    def next_log_probs(history: list[int]) -> list[float]:
        logits = model.decoder(torch.tensor([history]), hidden, padding, positions)[0, -1]
        logits = logits / options.temperature
        if search.constraint_range is not None:
            logits[4 : search.constraint_range[0]] = -torch.inf
            logits[search.constraint_range[1] :] = -torch.inf
        if labels and len(history) > len(prefix):
            done = history[len(prefix) + 1 :]
            next_tokens = {[*label, EOS, EOS][len(done)] for label in labels if starts(label, done)}
            allowed = torch.full_like(logits, -torch.inf)
            allowed[list(next_tokens or {EOS})] = 0.0
            logits += allowed
        log_probs: list[float] = torch.log_softmax(logits, -1).tolist()
        return log_probs

    rules = SearchRules(
        BOS, PAD, EOS, UNK, search.unk_penalty, search.normalize_scores, bool(labels)
    )
    return plain_beam_search(next_log_probs, options, rules, prefix)


def starts(label: Sequence[int], tokens: Sequence[int]) -> bool:
    """Whether `tokens` are the first of the label's, its end counted."""
    return [*label, EOS][: len(tokens)] == list(tokens)


@pytest.mark.parametrize("row", range(len(ODD_OPTIONS)))
def test_answers_are_those_of_the_plain_search(
    tiny_model: OFAModel, odd_batch: Answer, row: int
) -> None:
    picture = tiny.make_pictures(len(ODD_OPTIONS))[row : row + 1]
    options = ODD_OPTIONS[row]
    with torch.inference_mode():
        hypotheses = plain_search(tiny_model, picture, prompts(1), options, SearchConfig())
    assert len(hypotheses) == options.beam_size
    for slot, hypothesis in enumerate(hypotheses[: options.num_hypotheses]):
        length = len(hypothesis.tokens)
        assert odd_batch[0][row, slot, :length].tolist() == hypothesis.tokens
        assert odd_batch[1][row, slot].item() == pytest.approx(hypothesis.score, abs=1e-4)
        assert odd_batch[2][row, slot, :length].tolist() == pytest.approx(
            hypothesis.log_probs, abs=5e-4
        )


@pytest.mark.parametrize(
    ("search", "options"),
    [
        (SearchConfig(unk_penalty=-40.0), make_options()),
        (SearchConfig(normalize_scores=False), make_options()),
        (SearchConfig(max_length_a=0.7), make_options(max_length=2)),
        (SearchConfig(match_source_length=True), make_options()),
    ],
    ids=["unk_penalty", "normalize_scores", "max_length_a", "match_source_length"],
)
def test_what_a_checkpoint_fixes_of_the_search(
    tiny_model: OFAModel, search: SearchConfig, options: GenerationOptions
) -> None:
    pictures = tiny.make_pictures(3)
    generator = tiny.make_generator(tiny_model, search)
    answer = run(generator, pictures, prompts(3), [options] * 3)
    plain_answer = run(tiny.make_generator(tiny_model), pictures, prompts(3), [options] * 3)
    assert answer[1].shape != plain_answer[1].shape or not torch.equal(answer[1], plain_answer[1])

    longest = int(search.max_length_a * len(PROMPT) + options.max_length)
    if search.match_source_length:
        longest = len(PROMPT) - 1
    options = dataclasses.replace(options, max_length=longest)
    for row in range(3):
        with torch.inference_mode():
            hypotheses = plain_search(
                tiny_model, pictures[row : row + 1], prompts(1), options, search
            )
        for slot, hypothesis in enumerate(hypotheses):
            token_ids = [token for token in answer[0][row, slot].tolist() if token != PAD]
            assert token_ids == hypothesis.tokens
            assert answer[1][row, slot].item() == pytest.approx(hypothesis.score, abs=1e-4)


def test_every_row_counts_its_own_prompt(tiny_model: OFAModel) -> None:
    """The reference counts a padded prompt's padding too; a row must not depend on neighbours."""
    short, long = [BOS, 10, EOS], [BOS, 10, 20, 30, 40, EOS]
    source_ids = torch.tensor([short + [PAD] * 3, long])
    rows = [make_options(max_length=1, no_repeat_ngram_size=0, beam_size=1)] * 2
    pictures = tiny.make_pictures(6)[[1, 3]]  # two that make long answers
    for search, lengths in (
        (SearchConfig(max_length_a=1.0), [3 + 1, 6 + 1]),
        (SearchConfig(match_source_length=True), [3 - 1, 6 - 1]),
    ):
        generator = tiny.make_generator(tiny_model, search)
        both = run(generator, pictures, source_ids, rows)
        assert (both[0] != PAD).sum(2).flatten().tolist() == [length + 1 for length in lengths]
        assert_same_row(both, run(generator, pictures[:1], torch.tensor([short]), rows[:1]), 0)
        assert_same_row(both, run(generator, pictures[1:], torch.tensor([long]), rows[1:]), 1)


def test_a_padded_prompt_equals_an_unpadded_one(generator: Generator, odd_batch: Answer) -> None:
    count = len(ODD_OPTIONS)
    padded = torch.cat([prompts(count), torch.full([count, 4], PAD)], dim=1)
    assert_same(run(generator, tiny.make_pictures(count), padded, ODD_OPTIONS), odd_batch)


TEXTS = [
    [BOS, 10, 20, 30, EOS, PAD, PAD, PAD],
    [BOS, 40, 41, 42, 43, 44, 45, EOS],
    [BOS, EOS, PAD, PAD, PAD, PAD, PAD, PAD],
]

LABELS = [[10], [10, 11], [10, 11, 12], [20, 21, 22, 23], [30, 31], [], [40], [41, 40]]

CONSTRAINTS: dict[str, tuple[SearchConfig, Sequence[Sequence[int]]]] = {
    "labels": (SearchConfig(), LABELS),
    "labels, sums": (SearchConfig(normalize_scores=False), LABELS),
    "range": (SearchConfig(constraint_range=(100, 140)), ()),
    "soft prefix": (SearchConfig(prompt_type="prev_output"), ()),
    "prefix and range": (SearchConfig(prompt_type="prev_output", constraint_range=(5, 60)), ()),
    "prefix and labels": (SearchConfig(prompt_type="prev_output"), LABELS),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_are_those_of_the_plain_search(tiny_model: OFAModel, name: str) -> None:
    search, labels = CONSTRAINTS[name]
    rows = [
        make_options(max_length=14),
        make_options(beam_size=2, max_length=12, no_repeat_ngram_size=0),
        make_options(beam_size=5, max_length=8, min_length=4, no_repeat_ngram_size=2),
        make_options(beam_size=4, max_length=4, min_length=2, temperature=2.0),
    ]
    source_ids = torch.tensor([*TEXTS, TEXTS[0]])
    generator = TextGenerator(tiny_model, search, UNK, labels).eval()
    with torch.inference_mode():
        answer = generator(source_ids, *stack_options(rows))
        scripted = torch.jit.script(generator)
        for _ in range(2):
            assert_same(scripted(source_ids, *stack_options(rows)), answer)
        for row, options in enumerate(rows):
            alone = source_ids[row : row + 1, : int((source_ids[row] != PAD).sum())]
            assert_same_row(answer, generator(alone, *stack_options([options])), row)
            hypotheses = plain_search(tiny_model, None, alone, options, search, labels)
            for slot, hypothesis in enumerate(hypotheses):
                length = len(hypothesis.tokens)
                assert answer[0][row, slot, :length].tolist() == hypothesis.tokens
                assert answer[1][row, slot].item() == pytest.approx(hypothesis.score, abs=1e-4)
            assert (answer[1][row, len(hypotheses) :] == -torch.inf).all()


@pytest.mark.parametrize("prompt_type", ["none", "prev_output"])
def test_beams_for_all_labels_find_their_log_probabilities(
    tiny_model: OFAModel, prompt_type: str
) -> None:
    pictures, source_ids = tiny.make_pictures(len(TEXTS)), torch.tensor(TEXTS)
    search = SearchConfig(prompt_type=prompt_type, normalize_scores=False)
    generator = Generator(tiny_model, search, *[(0.5,) * 3] * 2, UNK, LABELS).eval()
    scorer = LabelScorer(tiny_model, *[(0.5,) * 3] * 2, prompt_type, LABELS).eval()
    options = make_options(
        beam_size=len(LABELS), max_length=12, min_length=0, no_repeat_ngram_size=0
    )
    token_ids, _, log_probs = run(generator, pictures, source_ids, [options] * len(TEXTS))
    with torch.inference_mode():
        label_log_probs = scorer(pictures, source_ids)
    for row, text in enumerate(TEXTS):
        prefix = [] if prompt_type == "none" else text[: text.index(EOS)]
        found = {}
        for tokens, values in zip(token_ids[row].tolist(), log_probs[row], strict=True):
            answer = [token for token in tokens if token != PAD]
            assert answer[: len(prefix)] == prefix
            found[tuple(answer[len(prefix) : -1])] = values[len(prefix) :].sum().item()
        expected = dict(zip(map(tuple, LABELS), label_log_probs[row].tolist(), strict=True))
        if prompt_type == "none":
            assert found == pytest.approx(expected, abs=1e-4)
        else:
            # The generator's prompt has a second BOS, the scorer's has not, as in the reference.
            assert set(found) == set(expected)
            assert sum(map(math.exp, found.values())) == pytest.approx(1, abs=1e-6)


def test_a_text_alone_gets_the_plain_search(tiny_model: OFAModel) -> None:
    rows = [make_options(), make_options(beam_size=4), make_options(min_length=3)]
    generator = TextGenerator(tiny_model, SearchConfig(), UNK).eval()
    scripted = torch.jit.script(generator)
    source_ids = torch.tensor(TEXTS)
    with torch.inference_mode():
        answer = generator(source_ids, *stack_options(rows))
        assert_same(scripted(source_ids, *stack_options(rows)), answer)
        for row, options in enumerate(rows):
            alone = source_ids[row : row + 1, : int((source_ids[row] != PAD).sum())]
            hypotheses = plain_search(tiny_model, None, alone, options, SearchConfig())
            for slot, hypothesis in enumerate(hypotheses):
                length = len(hypothesis.tokens)
                assert answer[0][row, slot, :length].tolist() == hypothesis.tokens
                assert answer[1][row, slot].item() == pytest.approx(hypothesis.score, abs=1e-4)


def test_a_length_that_follows_the_prompt_bounds_the_least_length(tiny_model: OFAModel) -> None:
    """Else neither a word nor the end would be left in the last step."""
    generator = TextGenerator(tiny_model, SearchConfig(match_source_length=True), UNK).eval()
    source_ids = torch.tensor(TEXTS[:1])
    length = int((source_ids != PAD).sum()) - 1
    with torch.inference_mode():
        asked = generator(source_ids, *stack_options([make_options(min_length=length + 3)]))
        expected = generator(source_ids, *stack_options([make_options(min_length=length)]))
    assert_same(asked, expected)
    assert asked[1][0, 0] > -torch.inf


def test_a_batch_without_room_for_its_biases_harms_no_other(
    tiny_model: OFAModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    generator = TextGenerator(tiny_model, SearchConfig(), UNK).eval()
    short, long = torch.tensor([[0, 9, 2]]), torch.tensor([[0, 9, 8, 7, 2]])
    options = stack_options([make_options()])
    with torch.inference_mode():
        expected = generator(short, *options)
        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "attention_bias", out_of_memory)
            with pytest.raises(MemoryError):
                generator(long, *options)
        assert_same(generator(short, *options), expected)


def test_more_beams_than_labels_find_the_labels_that_there_are(tiny_model: OFAModel) -> None:
    generator = TextGenerator(tiny_model, SearchConfig(), UNK, LABELS[:2]).eval()
    options = make_options(beam_size=5, num_hypotheses=5, max_length=12, no_repeat_ngram_size=0)
    with torch.inference_mode():
        token_ids, scores, _ = generator(torch.tensor(TEXTS[:1]), *stack_options([options]))
    found = [[token for token in row if token not in (PAD, EOS)] for row in token_ids[0].tolist()]
    assert sorted(found) == sorted([*LABELS[:2], [], [], []])
    assert scores[0].isfinite().sum() == 2


def test_a_single_pixel_stands_for_no_picture(tiny_model: OFAModel, generator: Generator) -> None:
    rows = [make_options()] * len(TEXTS)
    source_ids = torch.tensor(TEXTS)
    text_generator = TextGenerator(tiny_model, SearchConfig(), UNK).eval()
    with torch.inference_mode():
        expected = text_generator(source_ids, *stack_options(rows))
    no_pictures = torch.zeros(len(TEXTS), 3, 1, 1, dtype=torch.uint8)
    assert_same(run(generator, no_pictures, source_ids, rows), expected)
    scripted = torch.jit.script(tiny.make_generator(tiny_model))
    pictures = tiny.make_pictures(len(TEXTS))
    with_pictures = run(generator, pictures, source_ids, rows)
    assert not torch.equal(with_pictures[1], expected[1])
    for images, answer in ((no_pictures, expected), (pictures, with_pictures)) * 2:
        assert_same(run(scripted, images, source_ids, rows), answer)


def test_another_shape_in_between_changes_nothing(tiny_model: OFAModel) -> None:
    """The position biases are kept from call to call, for one shape at a time."""
    generator = tiny.make_generator(tiny_model)
    rows = [make_options()]
    inputs = {
        (size, length): (
            tiny.make_pictures(1, size=size),
            torch.tensor([[BOS, *range(10, 10 + length), EOS]]),
        )
        for size, length in ((64, 3), (32, 3), (64, 2), (96, 8))
    }
    fresh = {
        shape: run(tiny.make_generator(tiny_model), *tensors, rows)
        for shape, tensors in inputs.items()
    }
    for shape in [*inputs, *reversed(inputs), (64, 3), (64, 3)]:
        answer = run(generator, *inputs[shape], rows)
        for actual, expected in zip(answer, fresh[shape], strict=True):
            assert torch.equal(actual, expected)


def test_scripted_and_saved_equal_eager(
    tiny_model: OFAModel, odd_batch: Answer, tmp_path: Path
) -> None:
    count = len(ODD_OPTIONS)
    scripted = torch.jit.script(tiny.make_generator(tiny_model))
    scripted.save(str(tmp_path / "model.pt"))
    loaded = torch.jit.load(str(tmp_path / "model.pt"))
    for module in (scripted, loaded):
        # TorchScript optimises a function after its first calls, for the shapes that it has seen.
        for _ in range(3):
            answer = run(module, tiny.make_pictures(count), prompts(count), ODD_OPTIONS)
            assert_same(answer, odd_batch)
        alone = run(module, tiny.make_pictures(1), prompts(1), ODD_OPTIONS[:1])
        assert_same_row(odd_batch, alone, 0)


def test_scripted_keeps_its_biases_apart_by_shape(tiny_model: OFAModel) -> None:
    scripted = torch.jit.script(tiny.make_generator(tiny_model))
    eager = tiny.make_generator(tiny_model)
    for size, length in ((64, 5), (96, 5), (64, 3), (64, 5)):
        inputs = (tiny.make_pictures(2, size=size), prompts(2)[:, :length], [make_options()] * 2)
        assert_same(run(scripted, *inputs), run(eager, *inputs))
