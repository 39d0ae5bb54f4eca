"""The errors of the client.

OFAClientError
├── InvalidRequestError         the request is at fault: sending it again cannot help
│   ├── InvalidImageError       unreadable, not a picture, or over a limit
│   │   └── ImageTooLargeError  over a limit on bytes, pixels or scans
│   ├── InvalidTextError        not text, not valid Unicode, or over the limit
│   └── InvalidOptionError      unknown, of the wrong type, or out of range
├── OverloadedError             the server's queue is full: the same request may pass later
├── UnavailableError            nobody answers there, or the server is shutting down
├── ModelNotReadyError          the server answers, but does not have the model (yet, or any more)
├── AuthenticationError         the server wants other credentials, or refuses these
├── DeadlineExceededError       no answer within the timeout (also a `TimeoutError`)
├── CallCancelledError          the client was closed before or while the call ran
└── ServerError                 the server failed, or gave an answer that makes no sense
"""

from __future__ import annotations

from ofa_client._calls import Attempt


class OFAClientError(Exception):
    """Base of every error that the client raises on purpose.

    `__cause__` is what it was made of: gRPC's error, or that of the file or the connection.

    Attributes:
        code: the gRPC status code by name; what the client itself refuses has the code that the
            server would have given.
        message: what was wrong, in one sentence; also `str(error)`.
        request_id: of the call, as in `CallInfo`; empty outside of a call.
        attempts: every request that was sent, in order; empty if none was.
    """

    code = "UNKNOWN"
    request_id = ""
    attempts: tuple[Attempt, ...] = ()

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidRequestError(OFAClientError):
    """The request is at fault; sending it again cannot help."""

    code = "INVALID_ARGUMENT"


class InvalidImageError(InvalidRequestError):
    """The image cannot be read, is not a picture, or is over a limit."""


class ImageTooLargeError(InvalidImageError):
    """The image is over a limit: of its bytes, its pixels or its scans."""


class InvalidTextError(InvalidRequestError):
    """A text is not one, is not valid Unicode, or is over the limit."""


class InvalidOptionError(InvalidRequestError):
    """An option is unknown, of the wrong type, or out of range."""


class OverloadedError(OFAClientError):
    """The server's queue is full; the same request may pass later.

    Attributes:
        retry_after: seconds to leave the server alone. Triton does not say, so this is the
            client's estimate: the longest that it would have waited itself before another attempt.
    """

    code = "UNAVAILABLE"
    retry_after = 0.0


class UnavailableError(OFAClientError):
    """Nobody answers at the address, or the server is shutting down."""

    code = "UNAVAILABLE"


class ModelNotReadyError(OFAClientError):
    """The server answers, but does not have the model: a wrong name, still loading, or unloaded."""

    code = "NOT_FOUND"


class AuthenticationError(OFAClientError):
    """The server wants other credentials, refuses these, or does not prove its own name.

    Or the client's function for a token has raised.
    """

    code = "UNAUTHENTICATED"


class DeadlineExceededError(OFAClientError, TimeoutError):
    """There was no answer within the timeout."""

    code = "DEADLINE_EXCEEDED"


class CallCancelledError(OFAClientError):
    """The client was closed before the call, or while it ran."""

    code = "CANCELLED"


class ServerError(OFAClientError):
    """The server failed, or gave an answer that makes no sense."""

    code = "INTERNAL"
