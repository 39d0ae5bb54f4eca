"""The errors of the client.

OFAClientError
├── InvalidRequestError         the request is at fault: sending it again cannot help
│   ├── InvalidImageError       unreadable, not a picture, or over a limit
│   ├── InvalidTextError        not text, not valid Unicode, or over the limit
│   └── InvalidOptionError      unknown, of the wrong type, or out of range
├── ServerBusyError             the server's queue is full: the same request may pass later
├── UnavailableError            nobody answers there, or the server is shutting down
├── ModelNotReadyError          the server answers, but does not have the model (yet, or any more)
├── DeadlineExceededError       no answer within the timeout (also a `TimeoutError`)
└── ServerError                 the server failed, or gave an answer that makes no sense
"""


class OFAClientError(Exception):
    """Base of every error that the client raises on purpose.

    Attributes:
        code: the gRPC status code by name; what the client itself refuses has the code that the
            server would have given.
        message: what was wrong, in one sentence; also `str(error)`.
    """

    code = "UNKNOWN"

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


class InvalidTextError(InvalidRequestError):
    """A text is not one, is not valid Unicode, or is over the limit."""


class InvalidOptionError(InvalidRequestError):
    """An option is unknown, of the wrong type, or out of range."""


class ServerBusyError(OFAClientError):
    """The server's queue is full; the same request may pass later."""

    code = "UNAVAILABLE"


class UnavailableError(OFAClientError):
    """Nobody answers at the address, or the server is shutting down."""

    code = "UNAVAILABLE"


class ModelNotReadyError(OFAClientError):
    """The server answers, but does not have the model: a wrong name, still loading, or unloaded."""

    code = "NOT_FOUND"


class DeadlineExceededError(OFAClientError, TimeoutError):
    """There was no answer within the timeout."""

    code = "DEADLINE_EXCEEDED"


class ServerError(OFAClientError):
    """The server failed, or gave an answer that makes no sense."""

    code = "INTERNAL"
