"""From a gRPC status to the error that it stands for."""

from __future__ import annotations

import re

from ofa_client._errors import (
    DeadlineExceededError,
    InvalidImageError,
    InvalidOptionError,
    InvalidRequestError,
    InvalidTextError,
    ModelNotReadyError,
    OFAClientError,
    ServerBusyError,
    ServerError,
    UnavailableError,
)
from ofa_client._tensors import CONTENT_NAMES, OPTION_DTYPES


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
    # Triton and the library name the input that is at fault before they name any other, except
    # where Triton first lists the inputs that it got.
    at_fault = re.sub(r"Got input\(s\) \[[^]]*\], but ", "", details)
    for word in re.findall(r"\w+", at_fault):
        if word in OPTION_DTYPES:
            return InvalidOptionError(details)
        if word in CONTENT_NAMES:
            return InvalidImageError(details) if word == "image" else InvalidTextError(details)
    return InvalidRequestError(details)
