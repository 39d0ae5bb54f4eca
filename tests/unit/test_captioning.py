import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.errors import CheckpointError, InvalidImageError, InvalidOptionError
from ofa.options import OptionLimits
from ofa.tasks import TaskSettings, load_task
from ofa.tasks.captioning import CaptioningTask
from ofa.tensors import Tensors
from tests.unit import tiny
from tests.unit.tiny import BOS, EOS, PAD, UNK

SETTINGS = TaskSettings(
    task="image-captioning",
    language="en",
    search="beam",
    prompt=" what does the image describe?",
    prompt_type="none",
    labels=(),
    patch_image_size=64,
    max_image_size=512,
    is_document=False,
    max_source_length=256,
    defaults=tiny.make_options(num_hypotheses=2),
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


def request(image_bytes: bytes, **options: float) -> Tensors:
    tensors = {name: np.array([value]) for name, value in options.items()}
    return {"image": np.array([image_bytes], np.object_), **tensors}


def test_preprocess_makes_one_row(task: CaptioningTask, image_bytes: bytes) -> None:
    row = task.preprocess(request(image_bytes, beam_size=4, temperature=0.5, num_captions=3))
    # The picture has the model's size already, so no pixel changes.
    assert np.array_equal(row["patch_images"], tiny.make_pictures(1)[0].numpy())
    text = task.tokenizer.encode(SETTINGS.prompt, 99)
    assert row["source_ids"].tolist() == text
    assert (text[0], text[-1]) == (BOS, EOS)
    options = replace(SETTINGS.defaults, beam_size=4, temperature=0.5, num_hypotheses=3)
    assert {name: row[name].tolist() for name in asdict(options)} == {
        name: [value] for name, value in asdict(options).items()
    }


def test_a_row_and_an_answer_have_the_announced_tensors(
    task: CaptioningTask, image_bytes: bytes
) -> None:
    announced = task.tensors
    row = task.preprocess(request(image_bytes))
    assert set(row) == {spec.name for spec in (*announced.generator_inputs, *announced.kept)}
    answer = task.postprocess(found(answer_ids(task, " a dog")))
    for tensors, specs in ((row, announced.generator_inputs), (answer, announced.answer)):
        for name, dtype, dims, _ in specs:
            assert tensors[name].dtype == dtype
            assert tensors[name].ndim == len(dims)


def test_a_long_prompt_is_cut(tokenizer_folder: Path, image_bytes: bytes) -> None:
    short = CaptioningTask(replace(SETTINGS, max_source_length=2), tokenizer_folder)
    assert short.preprocess(request(image_bytes))["source_ids"].size == 4


def test_preprocess_refuses_what_cannot_be_served(task: CaptioningTask, image_bytes: bytes) -> None:
    with pytest.raises(InvalidImageError):
        task.preprocess(request(b"not a picture"))
    with pytest.raises(InvalidOptionError):
        task.preprocess(request(image_bytes, beam_size=6))
    with pytest.raises(InvalidOptionError, match="num_captions is 6; allowed are 1 to 3"):
        task.preprocess(request(image_bytes, num_captions=6))


def test_the_example_request_is_one_that_can_be_served(task: CaptioningTask) -> None:
    assert task.preprocess(task.example_request())["patch_images"].std() > 10


def found(
    token_ids: np.ndarray,
    scores: np.ndarray | None = None,
    log_probs: np.ndarray | None = None,
    count: int | None = None,
) -> Tensors:
    """What the generator and preprocess hand to postprocess; zeros where nothing is said."""
    zeros = np.zeros(token_ids.shape, np.float32)
    return {
        "token_ids": token_ids,
        "hypothesis_scores": np.zeros(len(token_ids), np.float32) if scores is None else scores,
        "hypothesis_log_probs": zeros if log_probs is None else log_probs,
        "num_hypotheses": np.array([len(token_ids) if count is None else count], np.int32),
    }


def captions(answer: Tensors) -> list[str]:
    return [text.decode() for text in answer["captions"]]


def answer_ids(task: CaptioningTask, *texts: str, length: int = 32) -> np.ndarray:
    rows = [[*task.tokenizer.encode(text, 999)[1:-1], EOS] for text in texts]
    return np.array([row + [PAD] * (length - len(row)) for row in rows])


def test_postprocess_gives_texts_scores_and_log_probs(task: CaptioningTask) -> None:
    token_ids = answer_ids(task, " a small dog", " two cats in the snow")
    scores = np.array([-0.5, -0.7], np.float32)
    log_probs = np.where(token_ids == PAD, 0, -0.1 * token_ids).astype(np.float32)
    answer = task.postprocess(found(token_ids, scores, log_probs))
    assert captions(answer) == ["a small dog", "two cats in the snow"]
    assert answer["scores"].tolist() == scores.tolist()
    longest = (token_ids != PAD).sum(1).max()
    assert answer["token_log_probs"].shape == (2, longest)
    assert np.array_equal(answer["token_log_probs"], log_probs[:, :longest])


def test_a_neighbours_wishes_do_not_show(task: CaptioningTask) -> None:
    """The generator's answer is as wide and long as the batch's largest row needs."""
    token_ids = answer_ids(task, " a small dog", " two cats in the snow")
    scores = np.array([-0.5, -np.inf], np.float32)
    log_probs = np.zeros(token_ids.shape, np.float32)
    answer = task.postprocess(found(token_ids, scores, log_probs, count=1))
    assert captions(answer) == ["a small dog"]
    assert answer["scores"].tolist() == [-0.5]
    assert answer["token_log_probs"].shape == (1, (token_ids[0] != PAD).sum())


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
    answer = task.postprocess(found(token_ids))
    assert captions(answer) == [caption]


def test_special_tokens_vanish_and_bins_lose_their_brackets(task: CaptioningTask) -> None:
    word = task.tokenizer.encode(" dog", 9)[1:-1]
    token_ids = np.array([[BOS, UNK, *word, task.tokenizer.first_bin_id + 7, EOS, PAD]])
    answer = task.postprocess(found(token_ids))
    assert captions(answer) == ["dog bin7"]


def test_hypotheses_that_were_not_found_are_empty_texts(task: CaptioningTask) -> None:
    token_ids = answer_ids(task, " a dog", length=8)
    token_ids = np.vstack([token_ids, np.full_like(token_ids, PAD)])
    scores = np.array([-1, -np.inf], np.float32)
    answer = task.postprocess(found(token_ids, scores))
    assert captions(answer) == ["a dog", ""]
    assert answer["scores"][1] == -np.inf


def test_an_answer_without_any_token_is_empty(task: CaptioningTask) -> None:
    answer = task.postprocess(found(np.zeros((1, 0), np.int64), np.full(1, -np.inf, np.float32)))
    assert captions(answer) == [""]
    assert answer["token_log_probs"].shape == (1, 0)


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
    for name, value in loaded.preprocess(request(image_bytes)).items():
        assert np.array_equal(value, task.preprocess(request(image_bytes))[name])


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
