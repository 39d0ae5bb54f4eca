"""What is sent: requests of one kind or several, encoded beforehand."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2

from benchmarks.pictures import SAMPLES, list_pictures

#: Of a picture that the server still takes.
_LARGEST_SIDE = 3000
_SEED = 2026
#: Of `long_captions`, for an export that allows it.
WIDE_BEAM = 20


@dataclass(frozen=True)
class Prepared:
    """A request that only has to be sent.

    Attributes:
        message: a ModelInferRequest, serialized.
        picture: that it holds; empty for none.
        expected: gRPC's status that it must end with.
        cancel_after_s: when the client loses its patience; None for never.
    """

    message: bytes
    picture: bytes = b""
    expected: str = "OK"
    cancel_after_s: float | None = None


def _prepare(
    model: str,
    picture: bytes = b"",
    text: str = "",
    expected: str = "OK",
    cancel_after_s: float | None = None,
    **options: int,
) -> Prepared:
    request = service_pb2.ModelInferRequest(model_name=model)

    def add(name: str, dtype: str, raw: bytes) -> None:
        request.inputs.add(name=name, datatype=dtype, shape=[1, 1])
        request.raw_input_contents.append(raw)

    # Triton's form of a BYTES tensor: every element behind its length.
    for name, content in (("image", picture), ("text", text.encode())):
        if content:
            add(name, "BYTES", struct.pack("<I", len(content)) + content)
    for name, value in options.items():
        add(name, "INT32", struct.pack("<i", value))
    return Prepared(request.SerializeToString(), picture, expected, cancel_after_s)


def _samples() -> list[bytes]:
    return [file.read_bytes() for file in list_pictures(SAMPLES)]


def captions() -> list[Prepared]:
    """Captions of the sample pictures, as the checkpoint gives them by default."""
    return [_prepare("caption", picture) for picture in _samples()]


def long_captions() -> list[Prepared]:
    """Captions that cost the generator much."""
    options = {"min_length": 16, "max_length": 16, "beam_size": WIDE_BEAM}
    return [_prepare("caption", each, **options) for each in _samples()]


def mixed() -> list[Prepared]:
    """Captions, answers and titles; large and bad pictures; clients that leave."""
    samples = _samples()
    rng = np.random.default_rng(_SEED)
    noise = rng.integers(0, 256, (_LARGEST_SIDE // 8, _LARGEST_SIDE // 8, 3), np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).resize((_LARGEST_SIDE, _LARGEST_SIDE)).save(large, "JPEG", quality=85)
    refused = "INVALID_ARGUMENT"
    requests = [
        *(_prepare("caption", picture) for picture in samples),
        *(_prepare("vqa", picture, "what is in the picture?") for picture in samples),
        *(_prepare("summarization", text=f"a bear eats {number} apples") for number in range(4)),
        *(_prepare("caption", picture, cancel_after_s=0.01) for picture in samples[:4]),
        _prepare("caption", large.getvalue()),
        _prepare("vqa", large.getvalue(), "what is in the picture?"),
        _prepare("caption", samples[0][: len(samples[0]) // 2], expected=refused),
        _prepare("caption", b"no picture at all", expected=refused),
        _prepare("caption", samples[0], beam_size=1000, expected=refused),
        _prepare("nothing", samples[0], expected="NOT_FOUND"),
    ]
    order = rng.permutation(len(requests))
    return [requests[number] for number in order]


#: By the name that `chaos.load` knows.
MIXES: dict[str, Callable[[], Sequence[Prepared]]] = {
    "captions": captions,
    "long_captions": long_captions,
    "mixed": mixed,
}
