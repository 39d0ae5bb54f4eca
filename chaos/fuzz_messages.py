"""Requests that no client makes: wrong tensors, options out of range, odd texts, damaged protobuf.

Everything is told by the random numbers that are handed in, so a request can be made again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

import numpy as np
from tritonclient.grpc import service_pb2

from chaos.fuzz_pictures import fuzzed_picture
from ofa.tensors import Tensors, TensorSpec

_DATATYPES = {
    np.object_: "BYTES",
    np.int32: "INT32",
    np.int64: "INT64",
    np.float32: "FP32",
    np.bool_: "BOOL",
}
_ALL_DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES", "BF16", "", "bytes", "COMPLEX"),
)
_SHAPES: tuple[tuple[int, ...], ...] = (
    *((), (1,), (0,), (0, 0), (1, 0), (2, 1), (1, 2), (1, 1, 1), (-1, 1), (1, -1), (-1, -1)),
    *((2**31, 1), (1, 2**31), (2**62, 4), (2**63 - 1, 2**63 - 1), (1 << 40, 1 << 40), (1,) * 300),
)
_INTEGERS = (-(2**31), -1, 0, 1, 2, 3, 5, 16, 17, 100, 1000, 2**31 - 1)
_FLOATS = (
    float("nan"),
    float("inf"),
    -float("inf"),
    -0.0,
    0.0,
    1e-45,
    0.009,
    0.01,
    1.0,
    100.0,
    1e38,
)
#: No slash: what a message repeats of a request shall not look like a path.
_NAMES = (
    "",
    " ",
    "a" * 300,
    "image ",
    "IMAGE",
    "im\0age",
    "..",
    "\u202eegami",
    "\U0001f600",
    "%s%n",
)

_TEXTS = (
    *(
        "what is left of the doughnut?",
        "",
        " ",
        "\n\t\r",
        "?" * 65_536,
        "a" * 65_537,
        "a " * 32_768,
    ),
    *(
        "\0",
        "a\0b",
        "\ufeff",
        "\u202ertl\u202c",
        "e" + "\u0301" * 30_000,
        "\U0001f468\u200d" * 4_000,
    ),
    *("图片描述了什么" * 1_000, "<s></s><pad><mask><code_3><bin_9>" * 200, "\ud7ff\ue000\uffff"),
    *(
        "\u00a0\u2003\u3000",
        "ǅß\u0130ﬀ" * 5_000,
        "&lt;&amp;" * 5_000,
        "\U0001d4b3" * 16_384,
        "\x1b[2J",
    ),
)
_BYTES = (
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"a\x80",
    b"\xf8" * 100,
)


def fuzzed_text(random: Random) -> bytes:
    """Return an odd text, mostly UTF-8."""
    match random.randrange(5):
        case 0:
            return random.choice(_TEXTS).encode()
        case 1:
            return random.choice(_TEXTS).encode()[:2_000] + random.choice(_BYTES)
        case 2:
            return random.randbytes(random.choice((1, 20, 1_000)))
        case 3:
            points = (random.randrange(0x110000) for _ in range(random.choice((1, 30, 3_000))))
            return "".join(map(chr, points)).encode("utf-8", "replace")
        case _:
            words = " ".join(random.choice(_TEXTS)[:50] for _ in range(4)).encode()
            return words[: random.randrange(len(words) + 1)]


def fuzzed_tensors(random: Random, specs: Sequence[TensorSpec], corpus: Sequence[bytes]) -> Tensors:
    """Return a request's tensors, of the right types and shapes and with any content."""
    tensors = {}
    for spec in specs:
        if spec.optional and random.random() < 0.93:
            continue
        tensors[spec.name] = np.array([_value(random, spec, corpus)], spec.dtype)
    return tensors


def _value(random: Random, spec: TensorSpec, corpus: Sequence[bytes]) -> Any:  # noqa: ANN401
    if spec.name == "image":
        return fuzzed_picture(random, corpus) if random.random() < 0.8 else random.choice(corpus)
    if spec.dtype is np.object_:
        return fuzzed_text(random)
    if spec.dtype is np.float32:
        return random.choice(_FLOATS)
    if spec.dtype is np.bool_:
        return random.random() < 0.5
    return random.choice(_INTEGERS)


def make_request(model: str, tensors: Tensors) -> service_pb2.ModelInferRequest:
    """Return the message of a request; the batch dimension is put in front."""
    request = service_pb2.ModelInferRequest(model_name=model, id="fuzz")
    for name, tensor in tensors.items():
        datatype = _DATATYPES[tensor.dtype.type]
        request.inputs.add(name=name, datatype=datatype, shape=[1, *tensor.shape])
        request.raw_input_contents.append(_raw(tensor))
    return request


def _raw(tensor: np.ndarray[Any, Any]) -> bytes:
    if tensor.dtype.type is not np.object_:
        return tensor.tobytes()
    return b"".join(struct.pack("<I", len(each)) + each for each in tensor.flat)


def fuzzed_request(
    random: Random, model: str, specs: Sequence[TensorSpec], corpus: Sequence[bytes]
) -> bytes:
    """Return a message whose tensors are not what the model takes, or that is no message at all."""
    tensors = fuzzed_tensors(random, specs, corpus)
    if "image" in tensors and random.random() < 0.7:
        tensors["image"] = np.array([random.choice(corpus)], np.object_)
    request = make_request(model, tensors)
    for _ in range(random.choice((1, 1, 2, 5))):
        random.choice(_MISTAKES)(random, request)
    data = request.SerializeToString()
    return _damaged(random, data) if random.random() < 0.25 else data


def _damaged(random: Random, data: bytes) -> bytes:
    match random.randrange(4):
        case 0:
            return data[: random.randrange(len(data) + 1)]
        case 1:
            return data + random.randbytes(random.choice((1, 5, 100)))
        case 2:
            return random.randbytes(random.choice((0, 1, 10, 1_000)))
        case _:
            changed = bytearray(data)
            for _ in range(random.choice((1, 4, 30))):
                changed[random.randrange(min(len(data), 300))] = random.randrange(256)
            return bytes(changed)


_Request: TypeAlias = service_pb2.ModelInferRequest


def _other_datatype(random: Random, request: _Request) -> None:
    for tensor in request.inputs[: random.choice((1, 9))]:
        tensor.datatype = random.choice(_ALL_DATATYPES)


def _other_shape(random: Random, request: _Request) -> None:
    for tensor in request.inputs[: random.choice((1, 9))]:
        tensor.shape[:] = random.choice(_SHAPES)


def _other_name(random: Random, request: _Request) -> None:
    if request.inputs:
        random.choice(request.inputs).name = random.choice(_NAMES)


def _missing_input(random: Random, request: _Request) -> None:
    if request.inputs:
        at = random.randrange(len(request.inputs))
        del request.inputs[at]
        if random.random() < 0.7 and at < len(request.raw_input_contents):
            del request.raw_input_contents[at]


def _second_input(random: Random, request: _Request) -> None:
    if request.inputs:
        request.inputs.append(random.choice(request.inputs))
        request.raw_input_contents.append(random.choice((b"", b"\1\0\0\0a", b"\5\0\0\0")))


def _other_contents(random: Random, request: _Request) -> None:
    """Contents that lie about their length, are too few, too many, or not there."""
    if not request.raw_input_contents:
        return
    at = random.randrange(len(request.raw_input_contents))
    raw = request.raw_input_contents[at]
    length = struct.pack("<I", random.choice((0, 1, len(raw), 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFC)))
    request.raw_input_contents[at] = random.choice(
        (b"", raw[:-1], raw + b"\0", raw * 2, length, length + raw[4:], raw[4:], raw + length)
    )


def _typed_contents(random: Random, request: _Request) -> None:
    """Contents as fields of protobuf, beside those that are raw or in their place."""
    if random.random() < 0.7:
        del request.raw_input_contents[:]
    for tensor in request.inputs:
        match random.randrange(6):
            case 0:
                tensor.contents.bytes_contents.extend([b"a"] * random.randrange(3))
            case 1:
                tensor.contents.int_contents.extend(
                    random.choices(_INTEGERS, k=random.randrange(3))
                )
            case 2:
                tensor.contents.fp32_contents.extend(random.choices(_FLOATS, k=random.randrange(3)))
            case 3:
                tensor.contents.bool_contents.append(True)
            case 4:
                tensor.contents.uint64_contents.append(2**64 - 1)
            case _:
                pass


def _parameters(random: Random, request: _Request) -> None:
    """Those that Triton knows, with values that they do not have, and others."""
    name = random.choice(
        (
            *("sequence_id", "sequence_start", "priority", "timeout", "binary_data_size", "a"),
            *("shared_memory_region", "shared_memory_byte_size", "classification", "triton_final"),
            *("triton_enable_empty_final_response", "headers", "content_encoding"),
        )
    )
    holders = [request.parameters, *(tensor.parameters for tensor in request.inputs)]
    parameter = random.choice(holders)[name]
    match random.randrange(5):
        case 0:
            parameter.int64_param = random.choice((-1, 0, 1, 2**63 - 1, -(2**63)))
        case 1:
            parameter.string_param = random.choice(_NAMES)
        case 2:
            parameter.bool_param = True
        case 3:
            parameter.double_param = random.choice(_FLOATS)
        case _:
            parameter.uint64_param = random.choice((0, 1, 10**6, 2**64 - 1))


def _outputs(random: Random, request: _Request) -> None:
    for _ in range(random.choice((1, 2, 1_000))):
        asked = request.outputs.add(name=random.choice(("captions", "scores", *_NAMES)))
        if random.random() < 0.3:
            asked.parameters["classification"].int64_param = random.choice((-1, 0, 3, 2**40))
        if random.random() < 0.2:
            asked.parameters["shared_memory_region"].string_param = "region"


def _other_model(random: Random, request: _Request) -> None:
    if random.random() < 0.5:
        request.model_version = random.choice(("0", "2", "-1", "99999999999999999999", "a", " 1"))
    else:
        request.model_name = random.choice(_NAMES)


def _other_id(random: Random, request: _Request) -> None:
    request.id = random.choice((*_NAMES, "a" * 100_000))


_MISTAKES: tuple[Callable[[Random, _Request], None], ...] = (
    _other_datatype,
    _other_shape,
    _other_name,
    _missing_input,
    _second_input,
    _other_contents,
    _typed_contents,
    _parameters,
    _outputs,
    _other_model,
    _other_id,
)
