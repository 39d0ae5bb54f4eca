from pathlib import Path
from typing import Any

import pytest

from ofa.errors import CheckpointError
from ofa.tasks.summarization import SummarizationTask
from tests.unit import tiny
from tests.unit.rows import make_hypotheses, make_request, read_prompt, texts, word_ids


def make_task(folder: Path, **changes: Any) -> SummarizationTask:
    return SummarizationTask(tiny.make_settings(SummarizationTask, **changes), folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Stocks fell 3.5 - again.", "stocks fell 3.5 again."),
        ("the [UNK] of <unk> and [Unk]", "the unk of unk and unk"),
        ("[un-k]", "[un k]"),
        ("an article with {braces} {} %s", "an article with {braces} {} %s"),
    ],
)
def test_the_article_goes_into_the_prompt(tokenizer_folder: Path, text: str, words: str) -> None:
    task = make_task(tokenizer_folder)
    row = task.preprocess(make_request(text=text))
    assert "patch_images" not in row
    # The space at the end is a token of its own.
    assert read_prompt(task, row) == f' " {words} " Summarize the article with a title: '


def test_a_configured_prompt_replaces_the_default(tokenizer_folder: Path) -> None:
    task = make_task(tokenizer_folder, prompt=' what is the summary of article " {} "?')
    row = task.preprocess(make_request(text="A b"))
    assert read_prompt(task, row) == ' what is the summary of article " a b "?'


@pytest.mark.parametrize("prompt", ["{} or {}", "}", "{0}"])
def test_a_prompt_that_cannot_be_filled_in_is_refused(tokenizer_folder: Path, prompt: str) -> None:
    with pytest.raises(CheckpointError, match=r"^prompt '"):
        make_task(tokenizer_folder, prompt=prompt)


def test_a_long_article_loses_words_first_and_the_prompts_end_next(tokenizer_folder: Path) -> None:
    task = make_task(tokenizer_folder, max_source_length=12)
    request = make_request(text=" ".join("abcdefghijklmnop"))
    assert task.prompt(request).startswith(' " a b c d e f g h i j k l " Summarize')
    whole = word_ids(task, task.prompt(request))
    assert task.preprocess(request)["source_ids"].tolist() == [
        *(tiny.BOS, *whole[:12], tiny.EOS),
        *[tiny.PAD] * 2,
    ]


def test_titles_keep_their_marks(tokenizer_folder: Path) -> None:
    task = make_task(tokenizer_folder)
    answer = task.postprocess(make_hypotheses([word_ids(task, " it's off, they've said.")]))
    assert texts(answer, "texts") == ["it's off, they've said."]
