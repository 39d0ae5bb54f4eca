import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa_client import Box, InvalidImageError, paint_boxes

RED = (255, 0, 0)
GREY = (100, 100, 100)


def box(x0: float, y0: float, x1: float, y1: float) -> Box:
    return Box(x0, y0, x1, y1, -0.5, (-0.5,) * 4)


def red_edges(painted: Image.Image) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of what is red."""
    rows, columns = np.nonzero((np.asarray(painted) == RED).all(axis=-1))
    return (columns.min(), rows.min(), columns.max(), rows.max())


def test_a_box_is_outlined_where_it_is() -> None:
    picture = Image.new("RGB", (60, 40), GREY)
    painted = paint_boxes(picture, [box(10, 5, 50, 30)])
    assert painted.size == picture.size
    assert red_edges(painted) == (10, 5, 50, 30)
    assert painted.getpixel((9, 4)) == painted.getpixel((51, 31)) == (255, 255, 255)
    assert painted.getpixel((11, 6)) == (255, 255, 255)
    assert painted.getpixel((30, 20)) == painted.getpixel((7, 20)) == GREY
    assert picture.getpixel((10, 5)) == GREY, "the caller's picture was painted on"


def test_every_box_is_painted_and_none_leaves_the_picture_as_it_is() -> None:
    picture = Image.new("RGB", (60, 40), GREY)
    painted = paint_boxes(picture, [box(5, 5, 15, 15), box(30, 20, 50, 35)])
    assert painted.getpixel((5, 10)) == painted.getpixel((30, 30)) == RED
    np.testing.assert_array_equal(np.asarray(paint_boxes(picture, [])), np.asarray(picture))


def test_large_pictures_have_thicker_lines() -> None:
    painted = paint_boxes(Image.new("RGB", (1000, 100), GREY), [box(100, 20, 300, 80)])
    assert [painted.getpixel((x, 50)) for x in range(100, 105)] == [RED] * 5
    assert painted.getpixel((105, 50)) != RED


@pytest.mark.parametrize(
    ("corners", "edges"),
    [
        ((20, 20, 20, 20), (20, 20, 20, 20)),
        ((40, 30, 20, 10), (20, 10, 40, 30)),
        ((-9, 10, 30, 200), (0, 10, 30, 39)),
    ],
    ids=["no pixels", "corners swapped", "beyond the picture"],
)
def test_any_box_can_be_painted(
    corners: tuple[float, float, float, float], edges: tuple[int, int, int, int]
) -> None:
    painted = paint_boxes(Image.new("RGB", (60, 40), GREY), [box(*corners)])
    assert painted.size == (60, 40)
    np.testing.assert_allclose(red_edges(painted), edges, atol=1)  # Pillow adds a pixel to none


def test_the_picture_is_the_one_that_the_server_saw(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (60, 40), GREY).save(path, exif=exif)
    painted = paint_boxes(path, [box(10, 5, 30, 50)])
    assert painted.size == (40, 60)
    assert red_edges(painted) == (10, 5, 30, 50)
    assert not painted.getexif()
    with Image.open(path) as opened:  # a PIL picture is sent as it looks
        assert paint_boxes(opened, []).size == (60, 40)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="image cannot be decoded"):
        paint_boxes(b"not a picture", [])


def test_without_pillow_painting_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'ofa-client\[pillow\]'"):
        paint_boxes(file.getvalue(), [])


def test_a_url_is_fetched_within_the_usual_limits() -> None:
    with pytest.raises(InvalidImageError, match="not public"):
        paint_boxes("http://127.0.0.1:1/picture.jpg", [])
