import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.errors import CheckpointError, InvalidImageError, InvalidOptionError
from ofa.options import OptionLimits
from ofa.tasks import CaptioningTask, TaskSettings, load_task
from tests.unit import tiny
from tests.unit.tiny import BOS, EOS, PAD, UNK

SETTINGS = TaskSettings(
    task="image-captioning",
    language="en",
    prompt=" what does the image describe?",
    patch_image_size=64,
    max_source_length=256,
    defaults=tiny.make_options(num_captions=2),
    limits=OptionLimits(max_beam_size=5, max_length=16),
)


@pytest.fixture(scope="module")
def task(tokenizer_folder: Path) -> CaptioningTask:
    return CaptioningTask(SETTINGS, tokenizer_folder)


@pytest.fixture(scope="module")
def image_bytes() -> bytes:
    file = io.BytesIO()
    Image.fromarray(tiny.make_pictures(1)[0].permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def test_preprocess_makes_one_row(task: CaptioningTask, image_bytes: bytes) -> None:
    inputs = task.preprocess(image_bytes, {"beam_size": 4, "temperature": 0.5})
    # The picture has the model's size already, so no pixel changes.
    assert np.array_equal(inputs.patch_images, tiny.make_pictures(1)[0].numpy())
    assert inputs.patch_images.dtype == np.uint8
    assert inputs.source_ids.dtype == np.int64
    text = task.tokenizer.encode(SETTINGS.prompt, 99)
    assert inputs.source_ids.tolist() == text
    assert (text[0], text[-1]) == (BOS, EOS)
    assert inputs.options == replace(SETTINGS.defaults, beam_size=4, temperature=0.5)


def test_a_long_prompt_is_cut(tokenizer_folder: Path, image_bytes: bytes) -> None:
    short = CaptioningTask(replace(SETTINGS, max_source_length=2), tokenizer_folder)
    assert short.preprocess(image_bytes, {}).source_ids.size == 4


def test_preprocess_refuses_what_cannot_be_served(task: CaptioningTask, image_bytes: bytes) -> None:
    with pytest.raises(InvalidImageError):
        task.preprocess(b"not a picture", {})
    with pytest.raises(InvalidOptionError):
        task.preprocess(image_bytes, {"beam_size": 6})


def answer_ids(task: CaptioningTask, *texts: str, length: int = 32) -> np.ndarray:
    rows = [[*task.tokenizer.encode(text, 999)[1:-1], EOS] for text in texts]
    return np.array([row + [PAD] * (length - len(row)) for row in rows])


def test_postprocess_gives_texts_scores_and_log_probs(task: CaptioningTask) -> None:
    token_ids = answer_ids(task, " a small dog", " two cats in the snow")
    scores = np.array([-0.5, -0.7], np.float32)
    log_probs = np.where(token_ids == PAD, 0, -0.1 * token_ids).astype(np.float32)
    answer = task.postprocess(token_ids, scores, log_probs, num_captions=2)
    assert answer.captions == ["a small dog", "two cats in the snow"]
    assert answer.scores.tolist() == scores.tolist()
    longest = (token_ids != PAD).sum(1).max()
    assert answer.token_log_probs.shape == (2, longest)
    assert np.array_equal(answer.token_log_probs, log_probs[:, :longest])


def test_a_neighbours_wishes_do_not_show(task: CaptioningTask) -> None:
    """The generator's answer is as wide and long as the batch's largest row needs."""
    token_ids = answer_ids(task, " a small dog", " two cats in the snow")
    scores = np.array([-0.5, -np.inf], np.float32)
    log_probs = np.zeros(token_ids.shape, np.float32)
    answer = task.postprocess(token_ids, scores, log_probs, num_captions=1)
    assert answer.captions == ["a small dog"]
    assert answer.scores.tolist() == [-0.5]
    assert answer.token_log_probs.shape == (1, (token_ids[0] != PAD).sum())


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (' it\'s 10% off, "really"!', "its 10 off really"),
        (" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", ""),
        ("  a  b  ", "a  b"),
        (" a - b", "a  b"),
        (' " a dog " !', "a dog"),
        (" naïve café, 日本\u3002", "naïve café 日本\u3002"),
    ],
)
def test_captions_lose_ascii_punctuation_as_the_references(
    task: CaptioningTask, text: str, caption: str
) -> None:
    token_ids = answer_ids(task, text, length=64)
    answer = task.postprocess(
        token_ids, np.zeros(1, np.float32), np.zeros(token_ids.shape, np.float32), num_captions=1
    )
    assert answer.captions == [caption]


def test_special_tokens_vanish_and_bins_lose_their_brackets(task: CaptioningTask) -> None:
    word = task.tokenizer.encode(" dog", 9)[1:-1]
    token_ids = np.array([[BOS, UNK, *word, task.tokenizer.first_bin_id + 7, EOS, PAD]])
    zeros = np.zeros(token_ids.shape, np.float32)
    answer = task.postprocess(token_ids, zeros[:, 0], zeros, num_captions=1)
    assert answer.captions == ["dog bin7"]


def test_hypotheses_that_were_not_found_are_empty_texts(task: CaptioningTask) -> None:
    token_ids = answer_ids(task, " a dog", length=8)
    token_ids = np.vstack([token_ids, np.full_like(token_ids, PAD)])
    scores = np.array([-1, -np.inf], np.float32)
    answer = task.postprocess(token_ids, scores, np.zeros((2, 8), np.float32), num_captions=2)
    assert answer.captions == ["a dog", ""]
    assert answer.scores[1] == -np.inf


def test_an_answer_without_any_token_is_empty(task: CaptioningTask) -> None:
    answer = task.postprocess(
        np.zeros((1, 0), np.int64),
        np.full(1, -np.inf, np.float32),
        np.zeros((1, 0), np.float32),
        num_captions=1,
    )
    assert answer.captions == [""]
    assert answer.token_log_probs.shape == (1, 0)


def test_a_saved_task_is_the_same_task(
    task: CaptioningTask, image_bytes: bytes, tmp_path: Path
) -> None:
    task.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "merges.txt",
        "task.json",
        "vocab.json",
    ]
    loaded = load_task(tmp_path)
    assert loaded.settings == SETTINGS
    for name, value in loaded.preprocess(image_bytes, {})._asdict().items():
        assert np.array_equal(value, getattr(task.preprocess(image_bytes, {}), name))


def test_a_prompt_keeps_every_character(tmp_path: Path) -> None:
    settings = replace(SETTINGS, prompt=' "\\ \t图片描述了什么内容? 🍎 ')
    settings.save(tmp_path)
    assert TaskSettings.load(tmp_path) == settings


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", "7", "{}", '{"task": "image-captioning"}', '{"defaults": 1}'],
)
def test_a_malformed_task_file_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "task.json").write_text(content, "utf-8")
    with pytest.raises(CheckpointError, match=r"^task\.json is missing or malformed"):
        load_task(tmp_path)


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    SETTINGS.save(tmp_path)
    values = json.loads((tmp_path / "task.json").read_text("utf-8"))
    (tmp_path / "task.json").write_text(json.dumps(values | {"new": 1}), "utf-8")
    with pytest.raises(CheckpointError, match=r"^task\.json is missing or malformed"):
        load_task(tmp_path)


def test_an_unknown_task_is_refused(task: CaptioningTask, tmp_path: Path) -> None:
    task.save(tmp_path)
    replace(SETTINGS, task="juggling").save(tmp_path)
    with pytest.raises(CheckpointError, match=r"^task\.json: unknown task 'juggling'"):
        load_task(tmp_path)
