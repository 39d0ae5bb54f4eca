"""Requests to ensembles with plain tritonclient, and pictures to send."""

from __future__ import annotations

import io
import zlib
from typing import Any, NamedTuple

import numpy as np
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import np_to_triton_dtype

TIMEOUT_S = 60
#: What a request's tensors hold; the others hold an INT32.
DTYPES: dict[str, type[np.generic]] = {
    **dict.fromkeys(("image", "text", "text2"), np.object_),
    **dict.fromkeys(("length_penalty", "temperature"), np.float32),
    "allow_special_tokens": np.bool_,
    "seed": np.int64,
}


class Answer(NamedTuple):
    captions: list[str]
    scores: list[float]
    token_log_probs: list[list[float]]


def tensor(name: str, value: np.ndarray[Any, Any]) -> grpcclient.InferInput:
    made = grpcclient.InferInput(name, value.shape, np_to_triton_dtype(value.dtype))
    made.set_data_from_numpy(value)
    return made


def request_inputs(**values: bytes | float) -> list[grpcclient.InferInput]:
    """A tensor of one value for each argument."""
    return [
        tensor(name, np.array([[value]], DTYPES.get(name, np.int32)))
        for name, value in values.items()
    ]


def caption(
    client: grpcclient.InferenceServerClient, image_bytes: bytes, **options: float
) -> Answer:
    inputs = request_inputs(image=image_bytes, **options)
    result = client.infer("caption", inputs, client_timeout=TIMEOUT_S)
    return Answer(
        [text.decode() for text in result.as_numpy("captions")[0]],
        result.as_numpy("scores")[0].tolist(),
        result.as_numpy("token_log_probs")[0].tolist(),
    )


def picture(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A few coloured boxes: pictures of different seeds get different captions."""
    random = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), random.integers(0, 256, 3), np.uint8)
    for _ in range(4):
        top, left = random.integers(0, height // 2), random.integers(0, width // 2)
        pixels[top : top + height // 2, left : left + width // 2] = random.integers(0, 256, 3)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def headed_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data do not have."""
    small = bytearray(encoded(Image.new("RGB", (1, 1))))
    small[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)
