"""Boxes on the picture that they were found in."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ofa_client._errors import InvalidImageError
from ofa_client._fetch import read_picture
from ofa_client._images import ImageInput
from ofa_client._results import Box

if TYPE_CHECKING:
    from PIL import Image

# A red line with white edges is seen on a picture of any colour.
_LINE = "red"
_EDGE = "white"


def paint_boxes(image: ImageInput, boxes: Iterable[Box]) -> Image.Image:
    """Return the picture as the server saw it, with the outlines of the boxes on it.

    Args:
        image: what `OFAClient.ground` was given; not changed. A file is read from where it stands,
            and a URL is fetched again, within the limits of `UrlPolicy()`.
        boxes: in pixels of that picture; what lies outside of it is not painted.

    Returns:
        A PIL picture in RGB, turned as its EXIF asks for.

    Raises:
        InvalidImageError: the picture cannot be read or fetched.
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageOps
    except ImportError as error:
        raise ImportError(
            "painting boxes needs Pillow: pip install 'ofa-client[pillow]'"
        ) from error
    try:
        with Image.open(io.BytesIO(read_picture(image))) as opened:
            painted = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a broken picture
        raise InvalidImageError(f"image cannot be decoded: {error}") from error
    draw = ImageDraw.Draw(painted)
    width = max(1, round(max(painted.size) / 200))
    for box in boxes:
        left, right = sorted((box.x0, box.x1))
        top, bottom = sorted((box.y0, box.y1))
        around = (left - width, top - width, right + width, bottom + width)
        draw.rectangle(around, outline=_EDGE, width=3 * width)
        draw.rectangle((left, top, right, bottom), outline=_LINE, width=width)
    return painted
