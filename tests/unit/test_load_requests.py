"""The pictures of a mix, and what is thought of the answers."""

import io
from pathlib import Path

import pytest
from PIL import Image

from load_tests.calls import ANSWERED, FAILED, OVERLOADED, REFUSED, describe, outcome_of
from load_tests.pictures import make_pictures
from ofa.errors import InvalidImageError as Refusal
from ofa.image import decode_image
from ofa_client import InvalidImageError, OverloadedError, ServerError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, size in enumerate([(400, 300), (300, 500), (64, 64)]):
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"{number}.jpg")
    return tmp_path


def sizes(pictures: list[bytes]) -> list[tuple[int, int]]:
    return [Image.open(io.BytesIO(picture)).size for picture in pictures]


def test_pictures_are_given_small_and_large(folder: Path) -> None:
    assert sizes(make_pictures(folder, "given")) == [(400, 300), (300, 500), (64, 64)]
    assert sizes(make_pictures(folder, "small")) == [(256, 192), (154, 256), (256, 256)]
    assert sizes(make_pictures(folder, "large")) == [(3000, 2250), (1800, 3000), (3000, 3000)]


def test_large_pictures_are_accepted_and_bad_ones_are_not(folder: Path) -> None:
    for picture in make_pictures(folder, "large"):
        decode_image(picture)
    bad = make_pictures(folder, "bad")
    assert len(bad) == 3 + 2
    for picture in bad:
        with pytest.raises(Refusal):
            decode_image(picture)


REFUSED_BY_SERVER = InvalidImageError("not a picture")


def test_a_bad_picture_has_to_be_refused() -> None:
    assert outcome_of(REFUSED_BY_SERVER, is_bad=True) == (REFUSED, None)
    outcome, error = outcome_of(None, is_bad=True)
    assert outcome == FAILED
    assert error is not None
    assert describe(error) == "NotRefusedError: a bad picture was not refused"
    broken = ServerError("broken")
    assert outcome_of(broken, is_bad=True) == (FAILED, broken)


def test_a_good_picture_has_to_be_answered() -> None:
    assert outcome_of(None, is_bad=False) == (ANSWERED, None)
    assert outcome_of(REFUSED_BY_SERVER, is_bad=False) == (FAILED, REFUSED_BY_SERVER)


@pytest.mark.parametrize("is_bad", [False, True])
def test_a_full_queue_is_counted_by_itself(is_bad: bool) -> None:
    error = OverloadedError("Exceeds maximum queue size")
    assert outcome_of(error, is_bad) == (OVERLOADED, error)
