"""The pictures of a mix, all made of those in one folder.

- `given`: the files as they are.
- `small`: 256 pixels on the longer side.
- `large`: 3,000 pixels on the longer side, which is the server's limit.
- `bad`: what a server has to refuse: half a file, a file that is no picture, and one whose header
  claims more pixels than the limit.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

KINDS = ("given", "small", "large", "bad")

_SIDES = {"small": 256, "large": 3000}
#: Those that take Pillow to make.
SCALED = frozenset(_SIDES)
#: Large ones take long to make and much memory.
_MAX_SCALED = 8
_JPEG_QUALITY = 85


def make_pictures(folder: Path, kind: str) -> list[bytes]:
    """Encoded pictures of a kind, in an order that depends on the folder alone.

    Raises:
        ImportError: they have to be scaled, and Pillow is not installed.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    given = [file.read_bytes() for file in files]
    if kind in _SIDES:
        return [_scaled(picture, _SIDES[kind]) for picture in given[:_MAX_SCALED]]
    return _spoil(given) if kind == "bad" else given


def _scaled(picture: bytes, side: int) -> bytes:
    # Only these kinds need it.
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        scale = side / max(image.size)
        width, height = (max(1, min(side, round(scale * length))) for length in image.size)
        scaled = image.convert("RGB").resize((width, height))
    file = io.BytesIO()
    scaled.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _spoil(given: Sequence[bytes]) -> list[bytes]:
    halves = [picture[: len(picture) // 2] for picture in given[:_MAX_SCALED]]
    return [*halves, b"This is not a picture.", _png_header(100_000, 100_000)]


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    length, checksum = (13).to_bytes(4, "big"), zlib.crc32(chunk).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + length + chunk + checksum
