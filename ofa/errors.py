"""The errors of the library.

OFAError
├── CheckpointError         a checkpoint folder that is incomplete or contradicts itself
└── RequestError            the caller's input cannot be served; the message is meant for them
    ├── InvalidImageError   not a picture, or broken
    │   └── ImageTooLargeError  over a limit
    ├── InvalidTextError    not a text, or over a limit
    └── InvalidOptionError  an unknown generation option, or a value out of range
"""


class OFAError(Exception):
    """Base of every error that this library raises on purpose."""


class CheckpointError(OFAError):
    """A checkpoint folder is incomplete, contradicts itself, or asks for what is not supported."""


class RequestError(OFAError):
    """The caller's input cannot be served; what was wrong, the limit and the value."""


class InvalidImageError(RequestError):
    """The bytes are not a picture that can be decoded, or it is over a limit."""


class ImageTooLargeError(InvalidImageError):
    """The picture is over a limit: of its bytes, its pixels or its scans."""


class InvalidTextError(RequestError):
    """A text is missing, is not UTF-8, or is over a limit."""


class InvalidOptionError(RequestError):
    """A generation option is unknown or out of range."""
