"""Captions, answers, boxes, labels, texts and pictures from OFA models on Triton, over gRPC.

>>> from ofa_client import OFAClient
>>> with OFAClient("localhost:8001") as client:
...     print(client.caption("apple.jpg").text)
"""

from ofa_client._client import OFAClient, SearchOptions
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

__all__ = [
    "MAX_IMAGE_BYTES",
    "MAX_TEXT_BYTES",
    "Answer",
    "AnsweringResult",
    "Box",
    "Caption",
    "CaptioningResult",
    "DeadlineExceededError",
    "DrawingResult",
    "DrawnImage",
    "GroundingResult",
    "ImageInput",
    "InvalidImageError",
    "InvalidOptionError",
    "InvalidRequestError",
    "InvalidTextError",
    "Label",
    "LabelsResult",
    "ModelNotReadyError",
    "OFAClient",
    "OFAClientError",
    "SearchOptions",
    "ServerBusyError",
    "ServerError",
    "Text",
    "TextsResult",
    "UnavailableError",
    "paint_boxes",
]
