"""Captions, answers, boxes, labels, texts and pictures from OFA models on Triton, over gRPC.

>>> from ofa_client import OFAClient
>>> with OFAClient("localhost:8001") as client:
...     print(client.caption("apple.jpg").text)

Everything starts at `OFAClient`, or at `AsyncOFAClient` for asyncio.
"""

import logging
from typing import TypeAlias

from ofa_client import _images, _requests
from ofa_client._async_client import AsyncOFAClient
from ofa_client._calls import Attempt, CallInfo
from ofa_client._client import OFAClient
from ofa_client._errors import (
    AuthenticationError,
    CallCancelledError,
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
from ofa_client._fetch import UrlPolicy
from ofa_client._painting import paint_boxes
from ofa_client._results import (
    Answer,
    AnsweringResult,
    Box,
    Caption,
    CaptioningResult,
    DrawingResult,
    DrawnImage,
    GroundingResult,
    Label,
    LabelsResult,
    Result,
    Text,
    TextsResult,
)
from ofa_client._retry import RetryPolicy
from ofa_client._security import TLS
from ofa_client._tasks import SearchOptions

MAX_IMAGE_BYTES = _images.MAX_IMAGE_BYTES
"""The server's limit on an encoded picture; what is over it is refused before it is sent."""

MAX_TEXT_BYTES = _requests.MAX_TEXT_BYTES
"""The server's limit on a text in UTF-8; what is over it is refused before it is sent."""

ImageInput: TypeAlias = _images.ImageInput
"""A path, a URL (http or https), encoded bytes, a file open for reading bytes, a PIL picture, or a
numpy array: uint8 [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGB and an alpha channel, which is
dropped)."""

# A program that sets up no logging hears nothing.
logging.getLogger("ofa_client").addHandler(logging.NullHandler())

__all__ = [
    "MAX_IMAGE_BYTES",
    "MAX_TEXT_BYTES",
    "TLS",
    "Answer",
    "AnsweringResult",
    "AsyncOFAClient",
    "Attempt",
    "AuthenticationError",
    "Box",
    "CallCancelledError",
    "CallInfo",
    "Caption",
    "CaptioningResult",
    "DeadlineExceededError",
    "DrawingResult",
    "DrawnImage",
    "GroundingResult",
    "ImageInput",
    "ImageTooLargeError",
    "InvalidImageError",
    "InvalidOptionError",
    "InvalidRequestError",
    "InvalidTextError",
    "Label",
    "LabelsResult",
    "ModelNotReadyError",
    "OFAClient",
    "OFAClientError",
    "OverloadedError",
    "Result",
    "RetryPolicy",
    "SearchOptions",
    "ServerError",
    "Text",
    "TextsResult",
    "UnavailableError",
    "UrlPolicy",
    "paint_boxes",
]
