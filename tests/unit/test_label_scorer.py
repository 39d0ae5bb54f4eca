"""The scorer of labels against a loop over the labels, as the reference has it."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ofa.generation import LabelScorer, TextLabelScorer
from ofa.generation.label_scorer import segment_log_softmax
from ofa.model import OFAModel
from tests.unit import tiny
from tests.unit.tiny import BOS, EOS, PAD

PROMPT_TYPES = ["none", "prev_output", "src"]
HALF = (0.5, 0.5, 0.5)

#: Labels that begin alike, that begin others, that are long, and one that says nothing.
LABELS = [
    [10],
    [10, 11],
    [10, 11, 12],
    [20, 21, 22, 23, 24],
    [20, 21, 22, 33, 24],
    [30, 31, 32],
    [12, 10],
    [],
    [40],
]

#: Prompts of different lengths, padded to one.
PROMPTS = [
    [BOS, 10, 20, 30, EOS, PAD, PAD, PAD],
    [BOS, 40, 41, 42, 43, 44, 45, EOS],
    [BOS, EOS, PAD, PAD, PAD, PAD, PAD, PAD],
    [BOS, 50, EOS, PAD, PAD, PAD, PAD, PAD],
]


def make_scorer(model: OFAModel, prompt_type: str, labels: Sequence[Sequence[int]]) -> LabelScorer:
    return LabelScorer(model, HALF, HALF, prompt_type, labels).eval()


def score(scorer: torch.nn.Module, *inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        log_probs: Tensor = scorer(*inputs)
    return log_probs


def plain_score(
    model: OFAModel,
    picture: Tensor | None,
    source: list[int],
    prompt_type: str,
    labels: Sequence[Sequence[int]],
) -> list[float]:
    """Sum over each label's tokens, one teacher-forced pass a label, masks as sets."""
    prompt = {"none": [BOS], "prev_output": source[:-1], "src": source}[prompt_type]
    pixels = None if picture is None else (picture[None].float() / 255 - 0.5) / 0.5
    encoder, source_ids = model.encoder, torch.tensor([source])
    sums = []
    with torch.inference_mode():
        x, height, width = encoder.embed(pixels, source_ids)
        positions = encoder.position_states(height, width, len(source))
        padding = encoder.padding_mask(source_ids, height * width)
        hidden = encoder.run_layers(x, padding, encoder.attention_bias(positions, height, width))
        for label in labels:
            history = torch.tensor([[*prompt, *label]])
            logits = model.decoder(history, hidden, padding, positions)[0]
            total = 0.0
            for done, token in enumerate([*label, EOS]):
                allowed = {
                    [*other, EOS][done] for other in labels if other[:done] == list(label[:done])
                }
                mask = torch.full([logits.size(1)], -torch.inf)
                mask[list(allowed)] = 0.0
                log_probs = torch.log_softmax(logits[len(prompt) - 1 + done] + mask, 0)
                total += float(log_probs[token])
            sums.append(total)
    return sums


def unpadded(row: list[int]) -> list[int]:
    return [token for token in row if token != PAD]


@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_scores_are_those_of_a_loop_over_the_labels(tiny_model: OFAModel, prompt_type: str) -> None:
    pictures = tiny.make_pictures(len(PROMPTS))
    scorer = make_scorer(tiny_model, prompt_type, LABELS)
    log_probs = score(scorer, pictures, torch.tensor(PROMPTS))
    assert log_probs.shape == (len(PROMPTS), len(LABELS))
    for row, prompt in enumerate(PROMPTS):
        expected = plain_score(tiny_model, pictures[row], unpadded(prompt), prompt_type, LABELS)
        assert log_probs[row].tolist() == pytest.approx(expected, abs=1e-4)
        assert log_probs[row].exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_probs.std(0).max() > 0.01  # rows differ, else the equalities would say little


@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_texts_alone_are_scored_too(tiny_model: OFAModel, prompt_type: str) -> None:
    scorer = TextLabelScorer(tiny_model, prompt_type, LABELS).eval()
    log_probs = score(scorer, torch.tensor(PROMPTS))
    for row, prompt in enumerate(PROMPTS):
        expected = plain_score(tiny_model, None, unpadded(prompt), prompt_type, LABELS)
        assert log_probs[row].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_any_labels_will_do(tiny_model: OFAModel, seed: int) -> None:
    numbers = random.Random(seed)
    labels = {
        tuple(numbers.randint(4, 4 + 2 * seed) for _ in range(numbers.randint(0, 5)))
        for _ in range(numbers.randint(1, 40))
    }
    prompt_type = numbers.choice(PROMPT_TYPES)
    scorer = TextLabelScorer(tiny_model, prompt_type, list(labels)).eval()
    log_probs = score(scorer, torch.tensor(PROMPTS[1:2]))[0]
    sequences = [list(label) for label in labels]
    expected = plain_score(tiny_model, None, PROMPTS[1], prompt_type, sequences)
    assert log_probs.tolist() == pytest.approx(expected, abs=1e-4)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("labels", [[[10]], [[10, 20, 30]], [[]]])
def test_the_only_label_is_certain(tiny_model: OFAModel, labels: list[list[int]]) -> None:
    scorer = TextLabelScorer(tiny_model, "prev_output", labels).eval()
    assert score(scorer, torch.tensor(PROMPTS)).tolist() == [[0.0]] * len(PROMPTS)


@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_a_batch_equals_its_singles(tiny_model: OFAModel, prompt_type: str) -> None:
    scorer = make_scorer(tiny_model, prompt_type, LABELS)
    pictures, source_ids = tiny.make_pictures(len(PROMPTS)), torch.tensor(PROMPTS)
    batch = score(scorer, pictures, source_ids)
    for row in range(len(PROMPTS)):
        alone = score(scorer, pictures[row : row + 1], source_ids[row : row + 1])
        torch.testing.assert_close(batch[row : row + 1], alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("changes", [{"share_attn_bias": True}, {"decoder_layers": 1}])
def test_other_layouts(changes: dict[str, object]) -> None:
    model = tiny.make_model(tiny.make_config(**changes))
    scorer = TextLabelScorer(model, "src", LABELS).eval()
    expected = plain_score(model, None, PROMPTS[1], "src", LABELS)
    found = score(scorer, torch.tensor(PROMPTS[1:2]))[0]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_scripted_and_saved_equal_eager(
    tiny_model: OFAModel, prompt_type: str, tmp_path: Path
) -> None:
    inputs = (tiny.make_pictures(len(PROMPTS)), torch.tensor(PROMPTS))
    expected = score(make_scorer(tiny_model, prompt_type, LABELS), *inputs)
    torch.jit.script(make_scorer(tiny_model, prompt_type, LABELS)).save(str(tmp_path / "model.pt"))
    loaded = torch.jit.load(str(tmp_path / "model.pt"))
    for _ in range(3):  # TorchScript optimises after its first calls
        torch.testing.assert_close(score(loaded, *inputs), expected, rtol=1e-5, atol=1e-4)
    text_scorer = TextLabelScorer(tiny_model, prompt_type, LABELS).eval()
    torch.testing.assert_close(
        score(torch.jit.script(text_scorer), inputs[1]),
        score(text_scorer, inputs[1]),
        rtol=0,
        atol=1e-5,
    )


def test_log_softmax_goes_by_segment() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 400.0, -5.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    segments = torch.tensor([0, 1, 0, 1, 2])
    log_probs = segment_log_softmax(logits, segments, 3)
    for segment in range(3):
        places = segments == segment
        expected = torch.log_softmax(logits[:, places], 1)
        torch.testing.assert_close(log_probs[:, places], expected)
    assert log_probs[1, 0].item() == pytest.approx(math.log(0.5))
