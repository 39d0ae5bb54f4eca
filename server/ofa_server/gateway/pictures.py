"""The picture of a JSON body: base64, as a data: URL or bare."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from ofa_client import MAX_IMAGE_BYTES
from ofa_server.gateway.errors import ApiError

_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_OTHER_URL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def read_picture(value: object) -> bytes:
    """Returns the bytes of a picture file.

    Args:
        value: the bytes themselves, or base64 of them, which may stand in a data: URL.

    Raises:
        ApiError: it is neither, or is over the limit.
    """
    if isinstance(value, str):
        value = _decode(value)
    if not isinstance(value, bytes):
        raise _invalid("image must be a file, a data: URL or base64")
    if len(value) > MAX_IMAGE_BYTES:
        raise ApiError(
            413,
            "image_too_large",
            f"image is {len(value):,} bytes; the limit is {MAX_IMAGE_BYTES:,}",
            param="image",
        )
    return value


def _decode(text: str) -> bytes:
    data_url = _DATA_URL.match(text)
    # Fetching what a caller names would let the caller see what only this machine may see.
    if data_url is None and _OTHER_URL.match(text):
        raise _invalid("image is a URL, and this server fetches none: send a data: URL with base64")
    try:
        return base64.b64decode(text[data_url.end() if data_url else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("image is not valid base64") from error


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_image", message, param="image")


Picture = Annotated[
    bytes,
    BeforeValidator(read_picture),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A picture file of at most 10,485,760 bytes and 3,000 pixels on a side: "
            "a data: URL with base64 or bare base64 in JSON, a file in a form",
            "contentEncoding": "base64",
        }
    ),
]
