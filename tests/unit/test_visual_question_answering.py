from pathlib import Path

import numpy as np
import pytest

from ofa.errors import InvalidOptionError
from ofa.tasks.visual_question_answering import VisualQuestionAnsweringTask
from tests.unit import tiny
from tests.unit.rows import (
    make_hypotheses,
    make_png,
    make_request,
    read_prompt,
    texts,
    word_ids,
)

LABELS = ("no", "yes", "on the left", "two")


@pytest.fixture(scope="module")
def task(tokenizer_folder: Path) -> VisualQuestionAnsweringTask:
    settings = tiny.make_settings(VisualQuestionAnsweringTask)
    return VisualQuestionAnsweringTask(settings, tokenizer_folder)


@pytest.fixture(scope="module")
def ranking(tokenizer_folder: Path) -> VisualQuestionAnsweringTask:
    settings = tiny.make_settings(VisualQuestionAnsweringTask, search="traverse", labels=LABELS)
    return VisualQuestionAnsweringTask(settings, tokenizer_folder)


@pytest.mark.parametrize(
    ("question", "prompt"),
    [
        ("what is grown on the plant?", " what is grown on the plant?"),
        ("What is GROWN on the plant", " what is grown on the plant?"),
        ("*is this black/white?  ", " is this black white?"),
        ("is it red? or blue", " is it red? or blue?"),
        ("is it red?!", " is it red?!?"),
        ("where is <person>?", " where is <person>?"),
        ("", " ?"),
    ],
)
def test_the_question_is_the_prompt(
    task: VisualQuestionAnsweringTask, question: str, prompt: str
) -> None:
    row = task.preprocess(make_request(image=make_png(), text=question))
    assert read_prompt(task, row) == prompt
    assert np.array_equal(row["patch_images"], tiny.make_pictures(1)[0].numpy())


def test_a_cut_question_gets_its_mark_back(tokenizer_folder: Path) -> None:
    """Words are counted before the mark is looked for, tokens after it."""
    settings = tiny.make_settings(VisualQuestionAnsweringTask, max_source_length=3)
    task = VisualQuestionAnsweringTask(settings, tokenizer_folder)
    request = make_request(image=make_png(), text="a b c d e f?")
    assert task.prompt(request) == " a b c?"
    row = task.preprocess(request)
    assert row["source_ids"].tolist()[:5] == [tiny.BOS, *word_ids(task, " a b c?")[:3], tiny.EOS]


def test_a_configured_prompt_is_ignored_as_by_the_reference(tokenizer_folder: Path) -> None:
    settings = tiny.make_settings(VisualQuestionAnsweringTask, prompt="never {} mind {")
    task = VisualQuestionAnsweringTask(settings, tokenizer_folder)
    assert task.prompt(make_request(text="why?")) == " why?"


def test_answers_keep_their_marks(task: VisualQuestionAnsweringTask) -> None:
    hypotheses = make_hypotheses([word_ids(task, " it's red."), word_ids(task, " blue")])
    answer = task.postprocess(hypotheses)
    assert texts(answer, "answers") == ["it's red.", "blue"]
    assert answer["scores"].tolist() == [-0.5, -1.0]
    assert np.array_equal(answer["token_log_probs"], hypotheses["hypothesis_log_probs"])


def test_chinese_answers_lose_the_spaces_between_tokens(chinese_tokenizer_folder: Path) -> None:
    settings = tiny.make_settings(VisualQuestionAnsweringTask, language="zh")
    task = VisualQuestionAnsweringTask(settings, chinese_tokenizer_folder)
    text = "一只小狗 iphone 13 pro，hello world。"
    answer = task.postprocess(make_hypotheses([word_ids(task, text)]))
    assert texts(answer, "answers") == ["一只小狗iphone 13 pro，hello world。"]


def test_all_answers_are_ranked(ranking: VisualQuestionAnsweringTask) -> None:
    log_probs = np.log(np.array([0.2, 0.1, 0.6, 0.1], np.float32))
    found = {"label_log_probs": log_probs, "num_hypotheses": np.array([4], np.int32)}
    answer = ranking.postprocess(found)
    # The second and the fourth are equal: their order is the file's.
    assert texts(answer, "answers") == ["on the left", "no", "yes", "two"]
    assert np.array_equal(answer["scores"], log_probs[[2, 0, 1, 3]])
    best = ranking.postprocess({**found, "num_hypotheses": np.array([1], np.int32)})
    assert texts(best, "answers") == ["on the left"]


def test_a_request_for_a_ranking_has_one_option(ranking: VisualQuestionAnsweringTask) -> None:
    question = make_request(image=make_png(), text="where is it?")
    row = ranking.preprocess({**question, **make_request(num_answers=4)})
    assert row["num_hypotheses"].tolist() == [4]
    with pytest.raises(InvalidOptionError, match=r"^num_answers is 5; allowed are 1 to 4$"):
        ranking.preprocess({**question, **make_request(num_answers=5)})
