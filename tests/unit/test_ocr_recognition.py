import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ofa.errors import CheckpointError
from ofa.image import resize_document, resize_scene
from ofa.tasks.ocr_recognition import OcrRecognitionTask
from tests.unit import tiny
from tests.unit.rows import make_hypotheses, make_png, make_request, read_prompt, texts, word_ids


def make_task(folder: Path, **changes: Any) -> OcrRecognitionTask:
    settings = tiny.make_settings(OcrRecognitionTask, **{"language": "zh", **changes})
    return OcrRecognitionTask(settings, folder)


def test_the_prompt_is_chinese_in_every_language(
    tokenizer_folder: Path, chinese_tokenizer_folder: Path
) -> None:
    chinese = make_task(chinese_tokenizer_folder)
    row = chinese.preprocess(make_request(image=make_png()))
    assert read_prompt(chinese, row) == "图 片 上 的 文 字 是 什 么 ?"
    assert row["source_ids"].size == 12
    english = make_task(tokenizer_folder, language="en")
    row = english.preprocess(make_request(image=make_png()))
    assert read_prompt(english, row) == "图片上的文字是什么?"


@pytest.mark.parametrize(("width", "height"), [(200, 30), (30, 200)])
def test_pictures_of_text_are_not_squeezed(
    chinese_tokenizer_folder: Path, width: int, height: int
) -> None:
    png = make_png(width, height)
    image = Image.open(io.BytesIO(png))
    scene = make_task(chinese_tokenizer_folder, patch_image_size=96)
    pixels = scene.preprocess(make_request(image=png))["patch_images"]
    assert np.array_equal(pixels, resize_scene(image, 96))
    document = make_task(chinese_tokenizer_folder, patch_image_size=480, is_document=True)
    pixels = document.preprocess(make_request(image=png))["patch_images"]
    assert np.array_equal(pixels, resize_document(image))


@pytest.mark.parametrize(
    ("size", "is_document", "message"),
    [
        (63, False, "patch_image_size is 63; ocr-recognition needs 64 or more"),
        (479, True, "patch_image_size is 479; is_document needs 480"),
        (512, True, "patch_image_size is 512; is_document needs 480"),
    ],
)
def test_a_size_that_text_does_not_fit_into_is_refused(
    chinese_tokenizer_folder: Path, size: int, is_document: bool, message: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        make_task(chinese_tokenizer_folder, patch_image_size=size, is_document=is_document)
    assert str(caught.value) == message


def test_texts_are_joined(chinese_tokenizer_folder: Path) -> None:
    task = make_task(chinese_tokenizer_folder)
    answer = task.postprocess(make_hypotheses([word_ids(task, "一只小狗，hello world")]))
    assert texts(answer, "texts") == ["一只小狗，hello world"]
