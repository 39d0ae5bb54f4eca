from pathlib import Path

import pytest

from ofa.errors import InvalidTextError
from ofa.tasks.text_classification import TextClassificationTask
from tests.unit import tiny
from tests.unit.rows import make_hypotheses, make_request, read_prompt, texts, word_ids

LABELS = ("maybe", "yes", "no")


@pytest.fixture(scope="module")
def task(tokenizer_folder: Path) -> TextClassificationTask:
    settings = tiny.make_settings(
        TextClassificationTask, labels=LABELS, prompt="never {} mind {", prompt_type="prev_output"
    )
    return TextClassificationTask(settings, tokenizer_folder)


def test_both_sentences_go_into_the_prompt_whatever_the_folder_says(
    task: TextClassificationTask,
) -> None:
    request = make_request(text=" A\tman-eating  SHARK.", text2="{} fish\u3000swim")
    row = task.preprocess(request)
    expected = ' can text1 " a man-eating shark. " imply text2 " {} fish swim "?'
    assert read_prompt(task, row) == expected
    assert row["prefix_length"].tolist() == [len(word_ids(task, expected)) + 1]
    assert "patch_images" not in row


def test_each_sentence_is_cut_on_its_own(tokenizer_folder: Path) -> None:
    settings = tiny.make_settings(TextClassificationTask, labels=LABELS, max_source_length=2)
    task = TextClassificationTask(settings, tokenizer_folder)
    request = make_request(text="a b c", text2="d e f")
    assert task.prompt(request) == ' can text1 " a b " imply text2 " d e "?'


def test_both_sentences_are_needed(task: TextClassificationTask) -> None:
    with pytest.raises(InvalidTextError, match=r"^text2 is missing$"):
        task.preprocess(make_request(text="a"))
    with pytest.raises(InvalidTextError, match=r"^text2 is not UTF-8 \(byte 0\)$"):
        task.preprocess(make_request(text="a", text2=b"\xff"))


def test_the_prefix_is_cut_off(task: TextClassificationTask) -> None:
    row = task.preprocess(make_request(text="a", text2="b"))
    prefix = row["source_ids"][: row["prefix_length"].item()].tolist()
    hypotheses = make_hypotheses([[*prefix, *word_ids(task, " maybe")]])
    answer = task.postprocess({**hypotheses, "prefix_length": row["prefix_length"]})
    assert texts(answer, "labels") == ["maybe"]
