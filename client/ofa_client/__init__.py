"""Captions, answers, boxes, labels, texts and pictures from OFA models on Triton, over gRPC.

>>> from ofa_client import OFAClient
>>> with OFAClient("localhost:8001") as client:
...     print(client.caption("apple.jpg").text)
"""

import logging

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
from ofa_client._images import MAX_IMAGE_BYTES, ImageInput
from ofa_client._painting import paint_boxes
from ofa_client._requests import MAX_TEXT_BYTES
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
    Text,
    TextsResult,
)
from ofa_client._retry import RetryPolicy
from ofa_client._security import TLS
from ofa_client._tasks import SearchOptions

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
    "RetryPolicy",
    "SearchOptions",
    "ServerError",
    "Text",
    "TextsResult",
    "UnavailableError",
    "UrlPolicy",
    "paint_boxes",
]
