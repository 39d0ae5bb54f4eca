"""From every form of picture that a caller may hold to the encoded bytes that leave.

Encoded pictures (paths, files, bytes) go as they are, and the server applies their EXIF turn. PIL
pictures and numpy arrays are taken as they look, which is how the reference treats a PIL picture:
converted to RGB (alpha is dropped, not blended) and sent as PNG without EXIF.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from ofa_client._errors import ImageTooLargeError, InvalidImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_IMAGE_BYTES = 10_485_760

MAX_IMAGE_SIDE = 3_000
"""The server's limit on a side in pixels; a picture over it is refused before it is encoded."""

# 1 is the fastest of zlib's levels that compress: for a 640 x 480 photo 20 ms and 0.58 MB, where
# Pillow's default of 6 takes 46 ms for 0.51 MB.
_PNG_COMPRESS_LEVEL = 1


class BinaryFile(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""


ImageInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile "
    "| npt.NDArray[np.uint8] | Image.Image"
)
ImageT = TypeVar("ImageT", bound=ImageInput)


def to_image_bytes(image: ImageInput) -> bytes:
    """Return the picture as encoded bytes.

    Raises:
        InvalidImageError: it cannot be read, or is of a form not listed in `ImageInput`.
        ImageTooLargeError: it is over `MAX_IMAGE_BYTES`, or a PIL picture or an array is over
            `MAX_IMAGE_SIDE`.
        ImportError: a numpy array was given and Pillow is not installed.
    """
    if isinstance(image, (str, os.PathLike)):
        return _read_path(Path(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _checked(bytes(image))
    if isinstance(image, np.ndarray):
        return _encode_png(_array_to_pil(image))
    if _is_pil(image):
        return _encode_png(image)
    if hasattr(image, "read"):
        try:
            return _read_file(image)
        except (OSError, ValueError) as error:  # the latter from one that is closed
            raise InvalidImageError(f"image cannot be read: {error}") from error
    raise InvalidImageError(
        "image must be a path, bytes, a binary file, a PIL picture or a numpy array, "
        f"not {type(image).__name__}"
    )


def _read_path(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _read_file(file)
    except OSError as error:
        raise InvalidImageError(f"image {str(path)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a name with a zero byte
        raise InvalidImageError(f"image {str(path)!r} cannot be read: {error}") from error


def _read_file(file: BinaryFile) -> bytes:
    chunks: list[bytes] = []
    num_left = MAX_IMAGE_BYTES + 1
    # A pipe, a socket or a file of somebody's own may give less than it is asked for.
    while num_left > 0:
        chunk = file.read(num_left)
        if not isinstance(chunk, bytes):
            raise InvalidImageError("image is a file open as text; open it with mode 'rb'")
        if not chunk:
            break
        chunks.append(chunk)
        num_left -= len(chunk)
    return _checked(b"".join(chunks))


def _checked(image_bytes: bytes, form: str = "image") -> bytes:
    if len(image_bytes) > MAX_IMAGE_BYTES:
        raise ImageTooLargeError(f"{form} is over {MAX_IMAGE_BYTES:,} bytes, the server's limit")
    return image_bytes


def _is_pil(image: object) -> TypeGuard[Image.Image]:
    # Who holds a PIL picture has imported Pillow already, so there is no need to import it here.
    pil_image = sys.modules.get("PIL.Image")
    return pil_image is not None and isinstance(image, pil_image.Image)


def _array_to_pil(array: npt.NDArray[np.uint8]) -> Image.Image:
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not is_picture:
        raise InvalidImageError(
            "image array must be uint8 [H, W], [H, W, 3] or [H, W, 4], "
            f"not {array.dtype} {list(array.shape)}"
        )
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "numpy arrays are sent as PNG, which needs Pillow: pip install 'ofa-client[pillow]'"
        ) from error
    if 0 in array.shape:
        return Image.new("RGB", (array.shape[1], array.shape[0]))
    return Image.fromarray(array)


def _encode_png(image: Image.Image) -> bytes:
    width, height = image.size
    if width == 0 or height == 0:
        raise InvalidImageError(f"image is {width} x {height} pixels")
    if max(width, height) > MAX_IMAGE_SIDE:
        raise ImageTooLargeError(
            f"image is {width} x {height} pixels; the limit is {MAX_IMAGE_SIDE} on a side"
        )
    file = io.BytesIO()
    try:
        pixels = image.convert("RGB")  # a copy: the caller's picture keeps its info
        pixels.info = {}  # no EXIF, and no colour profile, which nobody would look at
        pixels.save(file, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a broken picture
        raise InvalidImageError(f"image cannot be decoded: {error}") from error
    return _checked(file.getvalue(), "image encoded as PNG")
