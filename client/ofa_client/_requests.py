"""From what a caller gives to the tensors of one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ofa_client._errors import InvalidOptionError, InvalidTextError
from ofa_client._images import ImageInput, to_image_bytes
from ofa_client._tensors import CONTENT_NAMES, OPTION_DTYPES, Tensors

MAX_TEXT_BYTES = 65_536
"""The server's limit on a text in UTF-8; what is over it is refused before it is sent."""

# By the kind of the option's dtype: what is accepted, in words and in types.
_ACCEPTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "b": ("True or False", (bool, np.bool_)),
    "i": ("an integer", (int, np.integer)),
    "f": ("a number", (int, float, np.integer, np.floating)),
}


def build_inputs(required: Mapping[str, object], optional: Mapping[str, object]) -> Tensors:
    """Return the input tensors of one request, each [1, 1].

    Args:
        required: pictures and texts by the name of their tensor.
        optional: more of them, and options; those that are None are left out.

    Raises:
        InvalidImageError: the picture cannot be read or is over its limit.
        InvalidTextError: a text is no text or is over its limit.
        InvalidOptionError: an option is unknown, or a value does not fit its type. Ranges are the
            server's to check, because they belong to the exported model.
        ImportError: a numpy array was given as picture and Pillow is not installed.
    """
    given = {name: value for name, value in optional.items() if value is not None}
    return {name: _to_tensor(name, value) for name, value in {**required, **given}.items()}


def _to_tensor(name: str, value: object) -> npt.NDArray[Any]:
    if name not in CONTENT_NAMES:
        return _option_tensor(name, value)
    content = (
        to_image_bytes(cast("ImageInput", value))
        if name == "image"
        else _to_text_bytes(name, value)
    )
    return np.array([[content]], dtype=np.object_)


def _to_text_bytes(name: str, text: object) -> bytes:
    if not isinstance(text, str):
        raise InvalidTextError(f"{name} must be a str, not {type(text).__name__}")
    try:
        text_bytes = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"{name} is not valid Unicode: it has half a surrogate pair at {error.start}"
        ) from error
    if len(text_bytes) > MAX_TEXT_BYTES:
        raise InvalidTextError(
            f"{name} is {len(text_bytes):,} bytes of UTF-8; the limit is {MAX_TEXT_BYTES:,}"
        )
    return text_bytes


def _option_tensor(name: str, value: object) -> npt.NDArray[Any]:
    if name not in OPTION_DTYPES:
        raise InvalidOptionError(f"unknown option {name}; known are {', '.join(OPTION_DTYPES)}")
    dtype = np.dtype(OPTION_DTYPES[name])
    kind, accepted = _ACCEPTED[dtype.kind]
    is_flag = isinstance(value, (bool, np.bool_))  # bool counts as int to isinstance
    if not isinstance(value, accepted) or is_flag != (dtype.kind == "b"):
        raise InvalidOptionError(f"{name} must be {kind}, not {value!r}")
    bits = 8 * dtype.itemsize
    bound = 2 ** (bits - 1) - 1 if dtype.kind == "i" else float(np.finfo(np.float32).max)
    if abs(cast("float", value)) > bound:
        raise InvalidOptionError(f"{name} is {value}, which does not fit {bits} bits")
    return np.array([[value]], dtype=dtype)
