"""Captions of pictures from an OFA model on Triton, over gRPC.

>>> from ofa_client import OFAClient
>>> with OFAClient("localhost:8001") as client:
...     print(client.caption("apple.jpg").text)
"""

from ofa_client._client import OFAClient
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
from ofa_client._images import MAX_IMAGE_BYTES, ImageInput
from ofa_client._protocol import Caption, CaptioningResult

__all__ = [
    "MAX_IMAGE_BYTES",
    "Caption",
    "CaptioningResult",
    "DeadlineExceededError",
    "ImageInput",
    "InvalidImageError",
    "InvalidOptionError",
    "InvalidRequestError",
    "ModelNotReadyError",
    "OFAClient",
    "OFAClientError",
    "ServerBusyError",
    "ServerError",
    "UnavailableError",
]
