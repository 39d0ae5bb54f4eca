from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa.errors import CheckpointError, InvalidTextError
from ofa.tasks.visual_entailment import VisualEntailmentTask
from tests.unit import tiny
from tests.unit.rows import (
    make_hypotheses,
    make_png,
    make_request,
    read_prompt,
    texts,
    word_ids,
)

LABELS = ("no", "yes", "maybe")


def make_task(folder: Path, **changes: Any) -> VisualEntailmentTask:
    settings = tiny.make_settings(VisualEntailmentTask, **{"labels": LABELS, **changes})
    return VisualEntailmentTask(settings, folder)


@pytest.mark.parametrize(
    ("configured", "prompt"),
    [
        ("", ' does the image describe " two birds "?'),
        (' is "{}" right?', ' is "two birds" right?'),
        (" what is it?", " what is it?"),
    ],
)
def test_one_text_goes_into_the_prompt(
    tokenizer_folder: Path, configured: str, prompt: str
) -> None:
    task = make_task(tokenizer_folder, prompt=configured)
    row = task.preprocess(make_request(image=make_png(), text="Two-birds"))
    assert read_prompt(task, row) == prompt


@pytest.mark.parametrize(
    ("configured", "prompt"),
    [
        ("", ' can image and text1 " at sea " imply text2 " two birds "?'),
        ("{} so {}", "at sea so two birds"),
        # As in the reference, where the statement itself is what the prompt loses.
        (' does the image describe " {} "?', ' does the image describe " at sea "?'),
    ],
)
def test_of_two_texts_the_second_comes_first(
    tokenizer_folder: Path, configured: str, prompt: str
) -> None:
    task = make_task(tokenizer_folder, prompt=configured)
    row = task.preprocess(make_request(image=make_png(), text="Two birds", text2="at/sea"))
    assert read_prompt(task, row) == prompt


def test_a_prompt_for_two_texts_needs_both(tokenizer_folder: Path) -> None:
    task = make_task(tokenizer_folder, prompt="{} so {}")
    with pytest.raises(InvalidTextError, match=r"^text2 is missing; this checkpoint's prompt"):
        task.preprocess(make_request(image=make_png(), text="two birds"))


@pytest.mark.parametrize("prompt", ["{} {} {}", "{", "{text}"])
def test_a_prompt_that_cannot_be_filled_in_is_refused(tokenizer_folder: Path, prompt: str) -> None:
    with pytest.raises(CheckpointError, match=r"^prompt '"):
        make_task(tokenizer_folder, prompt=prompt)


def test_all_labels_have_probabilities_that_sum_to_one(tokenizer_folder: Path) -> None:
    task = make_task(tokenizer_folder, search="traverse", prompt_type="prev_output")
    log_probs = np.log(np.array([0.25, 0.7, 0.05], np.float32))
    found = {"label_log_probs": log_probs, "num_hypotheses": np.array([3], np.int32)}
    answer = task.postprocess(found)
    assert texts(answer, "labels") == ["yes", "no", "maybe"]
    assert answer["probabilities"].tolist() == pytest.approx([0.7, 0.25, 0.05])
    assert answer["probabilities"].dtype == np.float32
    best = task.postprocess({**found, "num_hypotheses": np.array([1], np.int32)})
    assert texts(best, "labels") == ["yes"]


def test_the_prefix_is_cut_off(tokenizer_folder: Path) -> None:
    """Beam search begins with BOS and the prompt's words; only the rest is the label."""
    task = make_task(tokenizer_folder, prompt_type="prev_output")
    row = task.preprocess(make_request(image=make_png(), text="two birds"))
    prefix = row["source_ids"][: row["prefix_length"].item()].tolist()
    assert prefix == [tiny.BOS, *word_ids(task, ' does the image describe " two birds "?')]
    hypotheses = make_hypotheses([[*prefix, *word_ids(task, f" {label}")] for label in LABELS])
    # What was forced has log-probabilities too; they are none of the label's.
    hypotheses["hypothesis_log_probs"][:, : len(prefix)] = -9
    answer = task.postprocess({**hypotheses, "prefix_length": row["prefix_length"]})
    assert texts(answer, "labels") == list(LABELS)
    lengths = [len(word_ids(task, f" {label}")) + 1 for label in LABELS]
    expected = [np.exp(-0.5 * rank * length) for rank, length in enumerate(lengths, 1)]
    assert answer["probabilities"].tolist() == pytest.approx(expected)


def test_without_a_prefix_all_tokens_are_the_label(tokenizer_folder: Path) -> None:
    task = make_task(tokenizer_folder)
    assert "prefix_length" not in task.preprocess(make_request(image=make_png(), text="a"))
    answer = task.postprocess(make_hypotheses([word_ids(task, " yes")], token_log_prob=-0.25))
    assert texts(answer, "labels") == ["yes"]
    length = len(word_ids(task, " yes")) + 1
    assert answer["probabilities"].tolist() == pytest.approx([np.exp(-0.25 * length)])


def test_what_is_no_label_has_no_probability(tokenizer_folder: Path) -> None:
    """Too few hypotheses, and one that ended before its prefix did: forcing is soft."""
    task = make_task(tokenizer_folder, prompt_type="prev_output")
    hypotheses = make_hypotheses([[tiny.BOS, 9, 9, 9, *word_ids(task, " yes")], [9, 9], []])
    answer = task.postprocess({**hypotheses, "prefix_length": np.array([4], np.int32)})
    assert texts(answer, "labels") == ["yes", "", ""]
    assert answer["probabilities"][0] > 0
    assert answer["probabilities"][1:].tolist() == [0, 0]
