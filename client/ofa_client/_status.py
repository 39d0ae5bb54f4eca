"""From a gRPC status to the error that it stands for, and to what may help against it."""

from __future__ import annotations

import enum
import re

from ofa_client._errors import (
    AuthenticationError,
    DeadlineExceededError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidOptionError,
    InvalidRequestError,
    InvalidTextError,
    ModelNotReadyError,
    OFAClientError,
    OverloadedError,
    ServerError,
    UnavailableError,
)
from ofa_client._tensors import CONTENT_NAMES, OPTION_DTYPES


class Remedy(enum.Enum):
    """What may help against a failure; the server is left alone for a while with the last two."""

    NONE = "the request would fail again"
    LATER = "the server is busy: another one, or the same one later"
    SOON = "the server is away: another one, or the same one when it is back"
    ELSEWHERE = "the server is broken: another one, and never the same"


def find_remedy(error: OFAClientError) -> Remedy:
    """Return what may help against an error that a gRPC status stands for.

    Every task may be asked again: none changes anything on the server.
    """
    match error:
        case OverloadedError():
            return Remedy.LATER
        # Triton cancels the calls that it still holds when it shuts down.
        case UnavailableError():
            return Remedy.SOON
        # It takes its models down one by one and answers until the last is gone. A model that it
        # never had is "not found".
        case ModelNotReadyError() if "no available versions" in error.message:
            return Remedy.SOON
        # Triton does not start a model's process again that has died.
        case ServerError() if error.code == "INTERNAL" and re.search(
            "Stub process .* is not healthy", error.message
        ):
            return Remedy.ELSEWHERE
        case _:
            return Remedy.NONE


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
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return AuthenticationError(f"{server} refuses: {details}", code)
        case "RESOURCE_EXHAUSTED" if _is_limit_on_messages(details):
            return InvalidRequestError(f"{server} refuses: {details}", code)
        case "RESOURCE_EXHAUSTED":
            return OverloadedError(f"{server} is busy: {details}", code)
        case "UNAVAILABLE" if _is_queue_refusal(details):
            return OverloadedError(f"{server} is busy: {details}")
        case "UNAVAILABLE" if _is_refusal_of_credentials(details):
            return AuthenticationError(f"{server} refuses: {details}", code)
        case "UNAVAILABLE" | "CANCELLED":
            return UnavailableError(f"{server} is unavailable: {details}", code)
        case _:
            return ServerError(f"{server}: {details}", code)


def _is_limit_on_messages(details: str) -> bool:
    # What gRPC says of a message over a limit, such as that of a proxy, in place of a full queue.
    return "larger than max" in details


def _is_queue_refusal(details: str) -> bool:
    # Triton refuses from an overfull queue with the status that gRPC has for a missing server; only
    # the text differs: "Exceeds maximum queue size" and "Request timeout expired" in release 24.10.
    return "maximum queue size" in details or "Request timeout expired" in details


def _is_refusal_of_credentials(details: str) -> bool:
    # A call that Triton restricts to those who know a header has that status too, and so has a
    # server's certificate that is not trusted (the first of the last three) or of another name.
    return any(
        text in details
        for text in (
            "This protocol is restricted",
            "CERTIFICATE_VERIFY_FAILED",
            "Hostname Verification Check failed",
            "is not in peer certificate",
        )
    )


def _request_error(details: str) -> InvalidRequestError:
    # Triton and the library name the input that is at fault before they name any other, except
    # where Triton first lists the inputs that it got.
    at_fault = re.sub(r"Got input\(s\) \[[^]]*\], but ", "", details)
    for word in re.findall(r"\w+", at_fault):
        if word in OPTION_DTYPES:
            return InvalidOptionError(details)
        if word == "image":
            is_size = re.search(r"(bytes|pixels|scans); the limit is", details)
            return ImageTooLargeError(details) if is_size else InvalidImageError(details)
        if word in CONTENT_NAMES:
            return InvalidTextError(details)
    return InvalidRequestError(details)
