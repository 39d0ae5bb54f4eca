"""Training runs the model as serving does, and a new vocabulary keeps the words of the old."""

from pathlib import Path

import pytest
import torch

from training.batches import Batch, Rows
from training.trainee import Trainee, model_config, normalise, warm_start
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
    return Rows(torch.tensor(pictures, dtype=torch.int64), source_ids, inputs, inputs)


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
