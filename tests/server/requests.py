"""Requests to ensembles with plain tritonclient, and pictures to send."""

from __future__ import annotations

import io
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

#: Generous, for a machine that does other things meanwhile.
TIMEOUT_S = 300
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


def ask(
    client: grpcclient.InferenceServerClient, ensemble: str, **values: bytes | float
) -> dict[str, np.ndarray[Any, Any]]:
    """An answer's tensors by name, without their batch dimension."""
    result = client.infer(ensemble, request_inputs(**values), client_timeout=TIMEOUT_S)
    names = [output.name for output in result.get_response().outputs]
    return {name: result.as_numpy(name)[0] for name in names}


def refusal(
    client: grpcclient.InferenceServerClient,
    model: str,
    inputs: list[grpcclient.InferInput],
    status: str = "INVALID_ARGUMENT",
) -> str:
    """The message that a request is refused with; nothing of the inside is in it."""
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, client_timeout=TIMEOUT_S)
    assert caught.value.status() == f"StatusCode.{status}"
    message: str = caught.value.message()
    assert "/" not in message
    assert "Traceback" not in message
    return message


def caption(
    client: grpcclient.InferenceServerClient, image_bytes: bytes, **options: float
) -> Answer:
    answer = ask(client, "caption", image=image_bytes, **options)
    return Answer(
        [text.decode() for text in answer["captions"]],
        answer["scores"].tolist(),
        answer["token_log_probs"].tolist(),
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
