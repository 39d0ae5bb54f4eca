"""From what a caller gives to the tensors of one request."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ofa_client._errors import InvalidOptionError, InvalidTextError
from ofa_client._tensors import CONTENT_NAMES, OPTION_DTYPES

MAX_TEXT_BYTES = 65_536

# By the kind of the option's dtype: what is accepted, in words and in types.
_ACCEPTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "b": ("True or False", (bool, np.bool_)),
    "i": ("an integer", (int, np.integer)),
    "f": ("a number", (int, float, np.integer, np.floating)),
}


def make_tensor(name: str, value: object) -> npt.NDArray[Any]:
    """Return one input of a request, [1, 1].

    Args:
        name: of the tensor.
        value: the encoded bytes of a picture, a text, or an option.

    Raises:
        InvalidTextError: a text is no text or is over its limit.
        InvalidOptionError: an option does not fit its type. Ranges are the server's to check,
            because they belong to the exported model.
    """
    if name not in CONTENT_NAMES:
        return _option_tensor(name, value)
    content = value if name == "image" else _to_text_bytes(name, value)
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
