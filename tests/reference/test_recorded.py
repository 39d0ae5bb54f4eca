"""Ours answers as ModelScope's pipeline did when `tests/golden/` was recorded."""

from pathlib import Path

import pytest

from tests.reference.cases import CASES, TIES
from tests.reference.compare import check_case
from tests.reference.golden import FOLDER, Recording

# Too large for every test run: `make parity PARITY_SIZES=large` compares with it.
TOO_LARGE = {"large"}


@pytest.mark.parametrize("name", [name for name in CASES if name not in TOO_LARGE])
def test_answers_as_recorded(name: str, tmp_path: Path) -> None:
    check_case(CASES[name], Recording.load(FOLDER / f"{name}.json"), tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_recording_bites(name: str) -> None:
    """Another caption for another picture, and every picture of the case is there."""
    answers = Recording.load(FOLDER / f"{name}.json").answers
    assert answers.keys() == set(CASES[name].pictures)
    captions = [tuple(answer.captions) for answer in answers.values()]
    assert len(set(captions)) == len(captions)


@pytest.mark.parametrize("name", ["tiny", "base", "defaults", "beam-12", "everything"])
def test_lengths_vary(name: str) -> None:
    answers = Recording.load(FOLDER / f"{name}.json").answers.values()
    lengths = {len(h.token_ids) for answer in answers for h in answer.hypotheses}
    assert len(lengths) >= 4


def test_ties_are_few_and_none_is_bundled() -> None:
    cases = {f"{name}/{picture}" for name, case in CASES.items() for picture in case.pictures}
    assert cases >= TIES
    assert 100 * len(TIES) <= len(cases)
    assert not [tie for tie in TIES if tie.startswith("bundled/")]
