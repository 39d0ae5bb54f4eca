from pathlib import Path

import numpy as np
import pytest

from ofa.errors import InvalidOptionError
from ofa.tasks.image_classification import ImageClassificationTask
from tests.unit import tiny
from tests.unit.rows import make_png, make_request, read_prompt, texts

LABELS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark")


@pytest.fixture(scope="module")
def task(tokenizer_folder: Path) -> ImageClassificationTask:
    settings = tiny.make_settings(
        ImageClassificationTask,
        search="traverse",
        labels=LABELS,
        defaults=tiny.make_options(num_hypotheses=2),
    )
    return ImageClassificationTask(settings, tokenizer_folder)


def test_the_prompt_is_captionings_and_not_padded(task: ImageClassificationTask) -> None:
    row = task.preprocess(make_request(image=make_png()))
    assert read_prompt(task, row) == " what does the image describe?"
    assert row["source_ids"][-1] == tiny.EOS
    assert row["num_hypotheses"].tolist() == [2]


def test_labels_keep_their_commas(task: ImageClassificationTask) -> None:
    found = {
        "label_log_probs": np.log(np.array([0.1, 0.6, 0.3], np.float32)),
        "num_hypotheses": np.array([2], np.int32),
    }
    answer = task.postprocess(found)
    assert texts(answer, "labels") == ["goldfish, Carassius auratus", "great white shark"]
    assert answer["probabilities"].tolist() == pytest.approx([0.6, 0.3])


@pytest.mark.parametrize("gen_type", ["generation", "traverse"])
@pytest.mark.parametrize("prompt_type", ["none", "prev_output", "src"])
def test_the_decoder_starts_with_a_label_whatever_the_folder_says(
    gen_type: str, prompt_type: str
) -> None:
    assert ImageClassificationTask.decoder_prompt_type(gen_type, prompt_type) == "none"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_labels": 4}, "num_labels is 4; allowed are 1 to 3"),
        ({"num_labels": 0}, "num_labels is 0; allowed are 1 to 3"),
        ({"beam_size": 2}, "unknown option beam_size; known are num_labels"),
    ],
)
def test_a_scorer_of_labels_has_their_number_for_its_only_option(
    task: ImageClassificationTask, option: dict[str, int], message: str
) -> None:
    assert task.preprocess(make_request(image=make_png(), num_labels=3))["num_hypotheses"] == 3
    with pytest.raises(InvalidOptionError) as caught:
        task.preprocess(make_request(image=make_png(), **option))
    assert str(caught.value) == message
