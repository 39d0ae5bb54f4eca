from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa.errors import CheckpointError
from ofa.tasks.visual_grounding import VisualGroundingTask
from tests.unit import tiny
from tests.unit.rows import make_hypotheses, make_png, make_request, read_prompt, word_ids

SIZE = {"patch_image_size": 512, "max_image_size": 512}


@pytest.fixture(scope="module")
def task(tokenizer_folder: Path) -> VisualGroundingTask:
    settings = tiny.make_settings(VisualGroundingTask, **SIZE)
    return VisualGroundingTask(settings, tokenizer_folder)


def image_size(width: int, height: int) -> dict[str, np.ndarray]:
    return {"image_size": np.array([width, height], np.int32)}


def bin_ids(task: VisualGroundingTask, *bins: int) -> list[int]:
    return [task.tokenizer.first_bin_id + number for number in bins]


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a blue turtle", ' which region does the text " a blue turtle " describe?'),
        ("...The <person>/left", ' which region does the text " the person left " describe?'),
        ("{} {0}", ' which region does the text " {} {0} " describe?'),
    ],
)
def test_the_description_goes_into_the_prompt(
    task: VisualGroundingTask, text: str, prompt: str
) -> None:
    row = task.preprocess(make_request(image=make_png(60, 37), text=text))
    assert read_prompt(task, row) == prompt
    assert row["patch_images"].shape == (3, 512, 512)
    assert row["image_size"].tolist() == [60, 37]


def test_a_chinese_checkpoint_brings_its_own_prompt(chinese_tokenizer_folder: Path) -> None:
    settings = tiny.make_settings(
        VisualGroundingTask, language="zh", prompt='这段文字" {} "是哪个区域？'
    )
    task = VisualGroundingTask(settings, chinese_tokenizer_folder)
    row = task.preprocess(make_request(image=make_png(), text="一只小狗"))
    assert read_prompt(task, row) == '这 段 文 字 " 一 只 小 狗 " 是 哪 个 区 域 ？'


@pytest.mark.parametrize("prompt", ["{} and {}", 'which "{"?', "{text}"])
def test_a_prompt_that_cannot_be_filled_in_is_refused(tokenizer_folder: Path, prompt: str) -> None:
    settings = tiny.make_settings(VisualGroundingTask, prompt=prompt)
    with pytest.raises(CheckpointError, match=r"^prompt '"):
        VisualGroundingTask(settings, tokenizer_folder)


def test_bins_are_thousandths_of_the_picture(task: VisualGroundingTask) -> None:
    hypotheses = make_hypotheses([bin_ids(task, 100, 200, 500, 900)])
    answer = task.postprocess({**hypotheses, **image_size(1024, 768)})
    assert answer["boxes"].round(2).tolist() == pytest.approx(
        np.array([[102.50, 153.75, 512.51, 691.89]], np.float32)
    )
    assert answer["scores"].tolist() == [-0.5]
    assert answer["token_log_probs"].tolist() == [[-0.5] * 4]


@pytest.mark.parametrize(("width", "height"), [(1024, 768), (37, 3000), (1, 1), (511, 333)])
@pytest.mark.parametrize(("patch_image_size", "max_image_size"), [(512, 512), (480, 512)])
def test_boxes_are_the_references_bit_for_bit(
    task: VisualGroundingTask,
    width: int,
    height: int,
    patch_image_size: int,
    max_image_size: int,
    tokenizer_folder: Path,
) -> None:
    settings = replace(
        task.settings, patch_image_size=patch_image_size, max_image_size=max_image_size
    )
    other = VisualGroundingTask(settings, tokenizer_folder)
    bins = torch.arange(1000).reshape(250, 4)
    hypotheses = make_hypotheses([bin_ids(task, *row) for row in bins.tolist()])
    answer = other.postprocess({**hypotheses, **image_size(width, height)})
    # The steps of modelscope's `_visual_grounding_inference`, on tensors as it has them.
    expected = bins / 999 * max_image_size
    expected[:, ::2] /= torch.tensor([patch_image_size / width])
    expected[:, 1::2] /= torch.tensor([patch_image_size / height])
    assert answer["boxes"].dtype == np.float32
    assert np.array_equal(answer["boxes"], expected.numpy())


def test_what_is_no_box_is_left_out(task: VisualGroundingTask) -> None:
    corners = bin_ids(task, 1, 2, 3, 4)
    first_bin = task.tokenizer.first_bin_id
    hypotheses = make_hypotheses(
        [
            corners[:3],
            corners,
            [*corners, first_bin],
            [*corners[:3], first_bin - 1],
            [*corners[:3], *word_ids(task, " a")],
            [*corners[:2], tiny.UNK, corners[3]],
            [first_bin, first_bin, first_bin + 999, first_bin + 999],
            [],
        ]
    )
    answer = task.postprocess({**hypotheses, **image_size(999, 999)})
    assert answer["boxes"].round(3).tolist() == [[1, 2, 3, 4], [0, 0, 999, 999]]
    assert answer["scores"].tolist() == [-1.0, -3.5]


def test_no_box_may_be_found(task: VisualGroundingTask) -> None:
    answer = task.postprocess({**make_hypotheses([word_ids(task, " a")]), **image_size(9, 9)})
    assert answer["boxes"].shape == answer["token_log_probs"].shape == (0, 4)
    assert answer["scores"].shape == (0,)


def test_a_neighbours_wishes_do_not_show(task: VisualGroundingTask) -> None:
    two = [bin_ids(task, 1, 2, 3, 4), bin_ids(task, 5, 6, 7, 8)]
    hypotheses = make_hypotheses(two, count=1)
    answer = task.postprocess({**hypotheses, **image_size(9, 9)})
    assert answer["boxes"].shape == (1, 4)
