"""Encoded bytes to the uint8 pixels that the generator takes.

The pixels are the reference's bit for bit: Pillow decodes, turns by EXIF, converts to RGB and
resizes with its bicubic filter (modelscope `preprocessors/image.py`, `preprocessors/ofa/`).
"""

from __future__ import annotations

import io
import re

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ofa.errors import ImageTooLargeError, InvalidImageError

#: The model card's limits for its online try-out: "10M" and "3000*3000".
MAX_IMAGE_BYTES = 10_485_760
MAX_IMAGE_SIDE = 3000

#: Scans that a JPEG may be built up from; encoders use about ten. Every scan is a pass over all
#: pixels, so a small file of many scans would keep a decoder busy for an hour. libtiff, which
#: decodes JPEG inside TIFF, has the same limit.
MAX_JPEG_SCANS = 100
#: A marker's code: 0xff fills, 0xff00 is a byte of a scan, d0 to d7 restart within one.
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE, _NO_SEGMENT = b"\xda", b"\xd9", b"\x01"

#: What is decoded. Pillow knows more, among them formats that run other programs, that only few
#: decoders read safely, or that take minutes over a file of comments (PPM); a caption service has
#: no use for them.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

#: Fewest pixels on a side of a picture of text; also the height of a document's line.
MIN_TEXT_SIDE = 64
#: The square that a document's four lines fill the width of.
DOCUMENT_SIZE = 480

# MAX_IMAGE_SIDE is checked from the header before a pixel is decoded, but opening alone can take
# memory: a GIF of 43 bytes had Pillow fill its canvas of 4 GB. Pillow's own guard stops that; it
# raises at twice this number and warns at once, so it stays clear of what people really send.
Image.MAX_IMAGE_PIXELS = 50_000_000


def decode_image(image_bytes: bytes) -> Image.Image:
    """Decode one picture: EXIF orientation applied, first frame of an animation, RGB.

    Palette, grey, 16-bit and CMYK pictures are converted as Pillow converts them; alpha is
    dropped without compositing. The reference does the same for a path.

    Raises:
        InvalidImageError: empty, not a picture, or broken.
        ImageTooLargeError: over a limit.
    """
    if not image_bytes:
        raise InvalidImageError("image is empty (0 bytes)")
    if len(image_bytes) > MAX_IMAGE_BYTES:
        raise ImageTooLargeError(
            f"image has {len(image_bytes):,} bytes; the limit is {MAX_IMAGE_BYTES:,}"
        )
    # Decoders meet hostile bytes here and raise whatever they like (OSError, SyntaxError,
    # struct.error, zlib.error, ...): each of them means that the picture is broken.
    try:
        image = Image.open(io.BytesIO(image_bytes), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"image has over 100,000,000 pixels; the limit is {MAX_IMAGE_SIDE} on a side"
        ) from error
    except Exception as error:
        raise InvalidImageError(
            f"image cannot be read; supported formats are {', '.join(IMAGE_FORMATS)}"
        ) from error
    width, height = image.size
    if max(width, height) > MAX_IMAGE_SIDE:
        raise ImageTooLargeError(
            f"image is {width} x {height} pixels; the limit is {MAX_IMAGE_SIDE} on a side"
        )
    if min(width, height) == 0:
        raise InvalidImageError(f"image is {width} x {height} pixels; it has none")
    # No scan is without these two bytes, and counting them takes a tenth of the time.
    if image.format in ("JPEG", "MPO") and image_bytes.count(b"\xff\xda") > MAX_JPEG_SCANS:
        num_scans = _count_scans(image_bytes)
        if num_scans > MAX_JPEG_SCANS:
            raise ImageTooLargeError(
                f"image has {num_scans:,} JPEG scans; the limit is {MAX_JPEG_SCANS}"
            )
    try:
        # Neither copies a picture that stands upright and is RGB, as most are.
        ImageOps.exif_transpose(image, in_place=True)
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:
        raise InvalidImageError(
            f"image is broken or truncated ({image.format}, {width} x {height} pixels)"
        ) from error


def _count_scans(jpeg: bytes) -> int:
    """Scans of a JPEG up to its end; what its segments hold and what follows it does not count."""
    num_scans, at = 0, 2
    while (marker := _MARKER.search(jpeg, at)) and marker[1] != _END_OF_IMAGE:
        num_scans += marker[1] == _START_OF_SCAN
        at = marker.end()
        if marker[1] != _NO_SEGMENT:
            at += int.from_bytes(jpeg[at : at + 2], "big")  # the segment's length
    return num_scans


def resize_square(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Resize to `size` x `size` pixels, whatever the aspect ratio.

    Args:
        image: RGB.
        size: pixels on a side.

    Returns:
        uint8 [3, size, size], red first.
    """
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.stack([np.asarray(band) for band in resized.split()])


def resize_scene(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Resize to fit a square, keep the aspect ratio, repeat the edges around the middle.

    Pictures of text are not to be squeezed (modelscope `preprocessors/ofa/ocr_recognition.py`).
    The shorter side has 64 pixels at least, however long the line.

    Args:
        image: RGB.
        size: pixels on a side, at least 64.

    Returns:
        uint8 [3, size, size], red first.
    """
    width, height = image.size
    if width >= height:
        fitted = (size, max(MIN_TEXT_SIDE, int(size * (height / width))))
    else:
        fitted = (max(MIN_TEXT_SIDE, int(size * (width / height))), size)
    return _pad_with_edges(np.asarray(image.resize(fitted, Image.Resampling.BICUBIC)), size)


def resize_document(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Stretch a long line of text, cut it into four, stack these, repeat the edges above and below.

    Args:
        image: RGB.

    Returns:
        uint8 [3, 480, 480], red first: no other size takes the four lines side by side.
    """
    line = image.resize((4 * DOCUMENT_SIZE, MIN_TEXT_SIDE), Image.Resampling.BICUBIC)
    quarters = np.split(np.asarray(line), 4, axis=1)
    return _pad_with_edges(np.concatenate(quarters), DOCUMENT_SIZE)


def _pad_with_edges(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Pixels [H, W, 3] in the middle of [3, size, size]; odd pixels go below and to the right."""
    height, width, _ = pixels.shape
    before = ((size - height) // 2, (size - width) // 2)
    after = (size - height - before[0], size - width - before[1])
    padded = np.pad(pixels, ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded.transpose(2, 0, 1))
