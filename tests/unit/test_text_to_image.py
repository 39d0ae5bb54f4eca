"""The task that draws: prompt, options and pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.clip_tokenizer import CONTEXT_LENGTH
from ofa.errors import InvalidOptionError, InvalidTextError
from ofa.options import OptionLimits
from ofa.tasks import load_task
from ofa.tasks.text_to_image import TextToImageTask
from tests.unit import tiny, tiny_drawing
from tests.unit.rows import make_request, read_prompt
from tests.unit.tiny import make_options

START, END = tiny_drawing.NUM_CLIP_TOKENS - 2, tiny_drawing.NUM_CLIP_TOKENS - 1


@pytest.fixture
def task(tokenizer_folder: Path, tmp_path: Path) -> TextToImageTask:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    tiny_drawing.write_clip_vocabulary(tmp_path)
    settings = tiny.make_settings(
        TextToImageTask,
        search="sampling",
        prompt="never read",
        max_source_length=3,
        defaults=make_options(num_hypotheses=2, beam_size=2),
        limits=OptionLimits(4, 8),
    )
    return TextToImageTask(settings, tmp_path)


def test_a_caption_is_cleaned_and_put_behind_the_prompt(task: TextToImageTask) -> None:
    row = task.preprocess(make_request(text=" A  small DOG,\tand {}\n"))
    assert read_prompt(task, row) == "what is the complete image? caption: a small dog, and {}"
    assert len(row["source_ids"]) % 8 == 0


def test_a_prompt_has_at_most_64_tokens(task: TextToImageTask) -> None:
    row = task.preprocess(make_request(text="a " * 70))
    words = task.tokenizer.encode("what is the complete image? caption: " + "a " * 63 + "a", 64)
    assert row["source_ids"].tolist()[: len(words)] == words
    assert len(words) == 66


def test_clip_reads_the_caption_alone(task: TextToImageTask) -> None:
    ids = task.preprocess(make_request(text="A red\u00a0 DOG's cat"))["clip_ids"]
    by_name = {merge.replace(" ", ""): 512 + i for i, merge in enumerate(tiny_drawing.CLIP_MERGES)}
    words = [by_name[f"{word}</w>"] for word in ("red", "dog", "'s", "cat")]
    letter = ids.tolist()[1]
    assert 256 <= letter < 512  # a letter that is a word
    assert ids.tolist()[:7] == [START, letter, *words, END]
    assert ids.tolist()[7:] == [0] * (CONTEXT_LENGTH - 7)


def test_a_caption_too_long_for_clip_is_refused(task: TextToImageTask) -> None:
    fits = task.preprocess(make_request(text="cat " * 75))["clip_ids"]
    assert fits[-1] == END
    with pytest.raises(InvalidTextError, match="76 tokens for CLIP; the limit is 75"):
        task.preprocess(make_request(text="cat " * 76))


def test_special_tokens_in_a_caption_stay_text(task: TextToImageTask) -> None:
    row = task.preprocess(make_request(text="<|endoftext|> </s> <code_1>"))
    assert row["clip_ids"].tolist().count(END) == 1
    assert row["source_ids"].tolist().count(tiny.EOS) == 1
    assert row["source_ids"].max() < task.tokenizer.first_code_id


def test_seed_and_number_default_to_the_folders(task: TextToImageTask) -> None:
    row = task.preprocess(make_request(text="a"))
    assert (row["seed"].tolist(), row["num_hypotheses"].tolist()) == ([0], [2])
    row = task.preprocess(make_request(text="a", seed=-(2**63), num_images=4))
    assert (row["seed"].tolist(), row["num_hypotheses"].tolist()) == ([-(2**63)], [4])


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_out_of_range_is_refused(task: TextToImageTask, count: int) -> None:
    with pytest.raises(InvalidOptionError, match=f"num_images is {count}; allowed are 1 to 4"):
        task.preprocess(make_request(text="a", num_images=count))


def test_an_unknown_option_is_refused(task: TextToImageTask) -> None:
    with pytest.raises(InvalidOptionError, match="unknown option beam_size"):
        task.preprocess(make_request(text="a", beam_size=1))


def test_a_missing_caption_is_refused(task: TextToImageTask) -> None:
    with pytest.raises(InvalidTextError, match="text is missing"):
        task.preprocess(make_request(seed=1))


def test_pictures_arrive_as_png(task: TextToImageTask) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 24), dtype=np.uint8)
    scores = np.array([0.3, 0.2, -np.inf], np.float32)
    answer = task.postprocess(
        {
            "pixels": pixels,
            "image_scores": scores,
            "image_log_probs": scores - 1,
            "num_hypotheses": np.array([2], np.int32),
        }
    )
    assert [len(tensor) for tensor in answer.values()] == [2, 2, 2]
    for png, expected in zip(answer["images"], pixels[:2], strict=True):
        image = Image.open(io.BytesIO(png))
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), expected.transpose(1, 2, 0))
    assert np.array_equal(answer["scores"], scores[:2])
    assert np.array_equal(answer["log_probs"], scores[:2] - 1)


def test_rows_have_the_announced_tensors(task: TextToImageTask) -> None:
    row = task.preprocess(task.example_request())
    specs = {spec.name: spec for spec in task.tensors.generator_inputs + task.tensors.kept}
    assert row.keys() == specs.keys()
    for name, tensor in row.items():
        assert tensor.dtype == specs[name].dtype
        assert all(
            dim in (-1, size) for dim, size in zip(specs[name].dims, tensor.shape, strict=True)
        )


def test_a_saved_task_is_the_same_task(task: TextToImageTask, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    task.save(folder)
    request = make_request(text="a red cat", seed=3)
    before, after = task.preprocess(request), load_task(folder).preprocess(request)
    assert {name: tensor.tolist() for name, tensor in before.items()} == {
        name: tensor.tolist() for name, tensor in after.items()
    }
