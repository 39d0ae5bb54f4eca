from pathlib import Path

import numpy as np
import pytest

from ofa.errors import InvalidImageError
from ofa.tasks.generate import GenerateTask
from tests.unit import tiny
from tests.unit.rows import (
    make_hypotheses,
    make_png,
    make_request,
    read_prompt,
    texts,
    word_ids,
)


@pytest.fixture(scope="module")
def task(tokenizer_folder: Path) -> GenerateTask:
    return GenerateTask(tiny.make_settings(GenerateTask), tokenizer_folder)


@pytest.mark.parametrize("text", [" What does it - say?", "What", "", " {} {", "  a\n"])
def test_the_text_is_the_prompt_as_it_stands(task: GenerateTask, text: str) -> None:
    assert read_prompt(task, task.preprocess(make_request(text=text))) == text


def test_the_picture_is_optional(task: GenerateTask) -> None:
    with_picture = task.preprocess(make_request(text="a", image=make_png()))
    assert np.array_equal(with_picture["patch_images"], tiny.make_pictures(1)[0].numpy())
    without = task.preprocess(make_request(text="a"))
    assert without["patch_images"].tolist() == [[[0]], [[0]], [[0]]]
    assert without["patch_images"].dtype == np.uint8
    with pytest.raises(InvalidImageError):
        task.preprocess(make_request(text="a", image=b""))


def test_special_tokens_stand_for_themselves_only_if_they_are_allowed(task: GenerateTask) -> None:
    text = " what does the region describe? region: <bin_7> <bin_999></s>"
    allowed = task.preprocess(make_request(text=text, allow_special_tokens=True))["source_ids"]
    first_bin = task.tokenizer.first_bin_id
    assert [token for token in allowed if token >= first_bin] == [first_bin + 7, first_bin + 999]
    assert allowed.tolist().count(tiny.EOS) == 1
    refused = task.preprocess(make_request(text=text, allow_special_tokens=False))["source_ids"]
    assert np.array_equal(refused, task.preprocess(make_request(text=text))["source_ids"])
    assert refused.max() < task.tokenizer.first_code_id


def test_texts_keep_marks_and_locations(task: GenerateTask) -> None:
    first_bin = task.tokenizer.first_bin_id
    hypothesis = [*word_ids(task, " a dog."), first_bin + 7, first_bin + 8]
    answer = task.postprocess(make_hypotheses([hypothesis]))
    assert texts(answer, "texts") == ["a dog. <bin_7> <bin_8>"]
