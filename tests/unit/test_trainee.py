"""Training runs the model as serving does, and a new vocabulary keeps the words of the old."""

import copy
from pathlib import Path

import pytest
import torch

from ofa.model.attention import Attention
from training.batches import Batch, Rows
from training.trainee import Trainee, model_config, move_stem, normalise, warm_start
from training.vocabulary import (
    NUM_BINS,
    PAD_ID,
    caption_corpus,
    task_corpus,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def trainee() -> Trainee:
    torch.manual_seed(0)
    return Trainee(model_config(train_tokenizer(caption_corpus()))).eval()


def make_rows(pictures: list[int]) -> Rows:
    """Three questions of different length, the last two padded."""
    source_ids = torch.tensor([[0, 9, 8, 7, 2], [0, 9, 8, 2, PAD_ID], [0, 9, 2, PAD_ID, PAD_ID]])
    inputs = torch.tensor([[0, 5, 6], [0, 7, PAD_ID], [0, 8, 9]])
    num_cells = 16 if pictures else 0
    finds = torch.ones(len(pictures), num_cells + 5, num_cells + 5, dtype=torch.bool)
    sees = torch.ones(len(pictures), 3, num_cells, dtype=torch.bool)
    about = torch.tensor(pictures, dtype=torch.int64)
    return Rows(about, source_ids, inputs, inputs, finds, sees)


def test_answers_are_those_of_the_model(trainee: Trainee) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    about_pictures, about_texts = make_rows([1, 0, 1]), make_rows([])
    empty = torch.empty(0)
    rows = {"grounding": about_pictures, "summarization": about_texts}
    with torch.inference_mode():
        outputs = trainee(Batch(images, empty, empty, empty, empty, rows))
        pixels = normalise(images)[about_pictures.pictures]
        inputs = about_pictures.decoder_input_ids
        expected = trainee.model(pixels, about_pictures.source_ids, inputs)
        expected_texts = trainee.model(None, about_texts.source_ids, inputs)
    torch.testing.assert_close(outputs.logits["grounding"], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(outputs.logits["summarization"], expected_texts, rtol=0, atol=1e-4)
    assert outputs.boxes.shape == (3, 16, 5)
    assert outputs.looks.keys() == outputs.gazes.keys() == {"grounding"}


def test_the_taught_scores_are_those_of_the_first_heads(
    trainee: Trainee, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their softmax times the values is what the heads hand on."""
    handed_on: list[torch.Tensor] = []

    def keep(attention: Attention, heads: torch.Tensor) -> torch.Tensor:
        handed_on.append(heads)
        return merge(attention, heads)

    merge = Attention.merge_heads
    monkeypatch.setattr(Attention, "merge_heads", keep)
    encoder, last = trainee.model.encoder, trainee.model.decoder.layers[-1].cross_attn
    rows = make_rows([0, 0, 0])
    images, empty = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), torch.empty(0)
    with torch.inference_mode():
        outputs = trainee(Batch(images, empty, empty, empty, empty, {"vqa": rows}))
        x, *_ = encoder.embed(normalise(images).expand(3, -1, -1, -1), rows.source_ids)
        padding_mask = encoder.padding_mask(rows.source_ids, 16)
        bias = encoder.attention_bias(encoder.position_states(4, 4, 5), 4, 4)
        hidden = encoder.run_layers(x, padding_mask, bias)
        _, source_values = last.project_keys_values(hidden)
        layer = encoder.layers[0]
        _, values = layer.self_attn.project_keys_values(layer.self_attn_layer_norm(x))
    found = outputs.looks["vqa"].softmax(-1) @ values[:, 0]
    # The encoder's three layers, then each of the decoder's two: itself and the source.
    asking = ~padding_mask
    torch.testing.assert_close(found[asking], handed_on[0][:, 0][asking], rtol=0, atol=1e-5)
    seen = outputs.gazes["vqa"].softmax(-1) @ source_values[:, 0]
    torch.testing.assert_close(seen, handed_on[6][:, 0], rtol=0, atol=1e-5)


def test_a_warm_start_keeps_words_and_bins(trainee: Trainee, tmp_path: Path) -> None:
    torch.save({"trainee": trainee.state_dict()}, tmp_path / "captions.pt")
    old, new = train_tokenizer(caption_corpus()), train_tokenizer(task_corpus())
    started = Trainee(model_config(new))
    warm_start(tmp_path / "captions.pt", old, started, new)
    before = trainee.model.encoder.embed_tokens.weight
    after = started.model.encoder.embed_tokens.weight
    for token in ("<s>", "<mask>", "Ġapple", "Ġthe"):
        assert torch.equal(after[new.token_to_id(token)], before[old.token_to_id(token)])
    assert torch.equal(after[-NUM_BINS:], before[-NUM_BINS:])
    assert old.token_to_id("Ġmaybe") is None
    assert torch.equal(
        started.model.encoder.image_proj.weight, trainee.model.encoder.image_proj.weight
    )


def test_the_stem_moves_and_nothing_else_does(trainee: Trainee, tmp_path: Path) -> None:
    """A quarter of the way to a state of ones, its statistics too."""
    moved = copy.deepcopy(trainee)
    ones = {name: torch.ones_like(tensor) for name, tensor in trainee.state_dict().items()}
    torch.save({"trainee": ones}, tmp_path / "state.pt")
    move_stem(tmp_path / "state.pt", moved, 0.25)
    before = trainee.state_dict()
    for name, tensor in moved.state_dict().items():
        is_moved = "embed_images" in name and tensor.is_floating_point()
        expected = before[name] * 0.75 + 0.25 if is_moved else before[name]
        torch.testing.assert_close(tensor, expected)
