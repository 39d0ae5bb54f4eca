"""Ours answers as ModelScope's pipelines did when `tests/golden/` was recorded."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from ofa.tasks import TASKS
from tests.reference.cases import CASES, CHECKPOINTS, TIES
from tests.reference.compare import check_case
from tests.reference.golden import FOLDER, Answer, Recording
from tests.reference.text_to_image import RECORDING

# Too large for every test run: `make parity PARITY_SIZES=large` compares with them.
SIZES = {"tiny", "small", "base", "bundled"}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.size in SIZES])
def test_answers_as_recorded(name: str, tmp_path: Path) -> None:
    check_case(CASES[name], Recording.load(FOLDER / f"{name}.json"), tmp_path)


def _tell_apart(first: Answer, second: Answer) -> bool:
    """Whether two answers differ by far more than the tolerances, whatever they say."""
    if first.label_log_probs:
        return not np.allclose(first.label_log_probs, second.label_log_probs, rtol=0, atol=0.05)
    if [h.token_ids for h in first.hypotheses] != [h.token_ids for h in second.hypotheses]:
        return True
    scores = [[h.score for h in answer.hypotheses] for answer in (first, second)]
    return not np.allclose(*scores, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", CASES)
def test_recording_bites(name: str) -> None:
    """Another answer to another request, and every request of the case is there."""
    answers = Recording.load(FOLDER / f"{name}.json").answers
    assert answers.keys() == {request.name for request in CASES[name].requests}
    assert all(_tell_apart(*pair) for pair in itertools.combinations(answers.values(), 2))


@pytest.mark.parametrize("name", ["tiny", "base", "defaults", "beam-12", "everything"])
def test_lengths_vary(name: str) -> None:
    answers = Recording.load(FOLDER / f"{name}.json").answers.values()
    lengths = {len(h.token_ids) for answer in answers for h in answer.hypotheses}
    assert len(lengths) >= 4


def test_every_task_is_recorded() -> None:
    """At the small size, in detail; text-to-image has recordings of its own."""
    recorded = {case.task for case in CASES.values() if case.size == "small"}
    assert recorded == TASKS.keys() - {"text-to-image-synthesis"}


def test_no_recording_is_left_over() -> None:
    others = {"tokens", "results", RECORDING.stem}
    assert {path.stem for path in FOLDER.glob("*.json")} == CASES.keys() | others


def test_everything_that_ships_is_recorded() -> None:
    tasks = {path.stem for path in (CHECKPOINTS / "ofa-emoji-tiny_en" / "tasks").glob("*.json")}
    files = {name for name in tasks if not name.endswith("_labels")}
    assert {case.ensemble for case in CASES.values() if case.size == "bundled"} == {
        "caption",
        *files,
    }


def test_ties_are_few_and_none_is_bundled() -> None:
    cases = {f"{name}/{r.name}" for name, case in CASES.items() for r in case.requests}
    assert cases >= TIES
    assert 100 * len(TIES) <= len(cases)
    assert not [tie for tie in TIES if tie.startswith("bundled")]
