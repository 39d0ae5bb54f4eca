"""What a request and an answer mean: tensor names, types and shapes, and the server's errors.

Pure functions without input or output, so that every kind of client can share them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ofa_client._errors import (
    DeadlineExceededError,
    InvalidImageError,
    InvalidOptionError,
    InvalidRequestError,
    ModelNotReadyError,
    OFAClientError,
    ServerBusyError,
    ServerError,
    UnavailableError,
)

Tensors: TypeAlias = dict[str, npt.NDArray[Any]]

OPTION_DTYPES: dict[str, type[np.int32 | np.float32]] = {
    "num_captions": np.int32,
    "beam_size": np.int32,
    "max_length": np.int32,
    "min_length": np.int32,
    "no_repeat_ngram_size": np.int32,
    "length_penalty": np.float32,
    "temperature": np.float32,
}


@dataclass(frozen=True)
class Caption:
    """One caption of a picture.

    Attributes:
        text: the caption.
        score: the sum of the tokens' log-probabilities (natural logarithm), divided by their
            number to the power of `length_penalty`. The best caption has the highest.
        token_log_probs: the log-probability of each token, the closing one included. All captions
            of an answer have as many values as the longest has tokens; 0.0 fills the rest.
    """

    text: str
    score: float
    token_log_probs: tuple[float, ...]


@dataclass(frozen=True)
class CaptioningResult:
    """The captions of one picture, best first; there is at least one."""

    captions: tuple[Caption, ...]

    @property
    def text(self) -> str:
        """The best caption."""
        return self.captions[0].text


def build_inputs(image_bytes: bytes, options: Mapping[str, float | None]) -> Tensors:
    """Return the input tensors of one request, each [1, 1]; options that are None are left out.

    Raises:
        InvalidOptionError: a value does not fit the option's type. Ranges are the server's to
            check, because they belong to the exported model.
    """
    inputs: Tensors = {"image": np.array([[image_bytes]], dtype=np.object_)}
    for name, value in options.items():
        if value is not None:
            inputs[name] = _option_tensor(name, value)
    return inputs


def _option_tensor(name: str, value: float) -> npt.NDArray[Any]:
    dtype = OPTION_DTYPES[name]
    is_integer = dtype is np.int32
    accepted = (int, np.integer) if is_integer else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, accepted):
        kind = "an integer" if is_integer else "a number"
        raise InvalidOptionError(f"{name} must be {kind}, not {value!r}")
    bound = np.iinfo(np.int32).max if is_integer else float(np.finfo(np.float32).max)
    if abs(value) > bound:
        raise InvalidOptionError(f"{name} is {value}, which does not fit 32 bits")
    return np.array([[value]], dtype=dtype)


def parse_captions(outputs: Tensors) -> CaptioningResult:
    """Return the result that the output tensors of the captioning ensemble stand for.

    Args:
        outputs: `captions` bytes [1, n], `scores` float32 [1, n] and `token_log_probs` float32
            [1, n, T].

    Raises:
        ServerError: a tensor is missing, or their shapes disagree.
    """
    try:
        texts, scores = outputs["captions"], outputs["scores"]
        token_log_probs = outputs["token_log_probs"]
    except KeyError as error:
        raise ServerError(f"the answer has no {error.args[0]!r} tensor") from error
    shapes = {name: list(tensor.shape) for name, tensor in outputs.items()}
    if (
        texts.ndim != 2
        or texts.shape[0] != 1
        or texts.shape[1] == 0
        or scores.shape != texts.shape
        or token_log_probs.ndim != 3
        or token_log_probs.shape[:2] != texts.shape
    ):
        raise ServerError(f"the answer's tensors do not fit together: {shapes}")
    return CaptioningResult(
        tuple(
            Caption(text.decode("utf-8", "replace"), float(score), tuple(log_probs.tolist()))
            for text, score, log_probs in zip(texts[0], scores[0], token_log_probs[0], strict=True)
        )
    )


def translate_error(code: str, details: str, *, server: str, timeout: float) -> OFAClientError:
    """Return the error that a gRPC status stands for.

    Args:
        code: the status code by name, such as "UNAVAILABLE".
        details: the text that came with it.
        server: the address that was called, for the message.
        timeout: what the whole call was allowed to take, in seconds, for the message.
    """
    # What Triton puts before the message of a member, which alone means something here.
    details = re.sub(r"^(in ensemble '[^']*', )?(\[request id: [^]]*\] )?", "", details)
    match code:
        case "INVALID_ARGUMENT":
            return _request_error(details)
        case "DEADLINE_EXCEEDED":
            return DeadlineExceededError(f"{server} did not answer within {timeout:g} s")
        case "NOT_FOUND":
            return ModelNotReadyError(f"{server}: {details}")
        case "RESOURCE_EXHAUSTED":
            return ServerBusyError(f"{server} is busy: {details}", code)
        case "UNAVAILABLE" if _is_queue_refusal(details):
            return ServerBusyError(f"{server} is busy: {details}")
        # Triton cancels the calls that it still holds when it shuts down.
        case "UNAVAILABLE" | "CANCELLED":
            return UnavailableError(f"{server} is unavailable: {details}", code)
        case _:
            return ServerError(f"{server}: {details}", code)


def _is_queue_refusal(details: str) -> bool:
    # Triton refuses from an overfull queue with the status that gRPC has for a missing server; only
    # the text differs: "Exceeds maximum queue size" and "Request timeout expired" in release 24.10.
    return "maximum queue size" in details or "Request timeout expired" in details


def _request_error(details: str) -> InvalidRequestError:
    words = set(re.findall(r"\w+", details))
    if words & OPTION_DTYPES.keys():
        return InvalidOptionError(details)
    if "image" in words:
        return InvalidImageError(details)
    return InvalidRequestError(details)
