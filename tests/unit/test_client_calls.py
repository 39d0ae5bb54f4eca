"""OFAClient over real gRPC, against a server that answers as the test tells it to."""

import dataclasses
import io
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from ofa_client import (
    MAX_IMAGE_BYTES,
    AuthenticationError,
    Caption,
    DeadlineExceededError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidOptionError,
    InvalidRequestError,
    InvalidTextError,
    ModelNotReadyError,
    OFAClient,
    OFAClientError,
    OverloadedError,
    ServerError,
    UnavailableError,
)
from tests.unit.scripted_triton import ScriptedTriton, Tensors, captions_answer


@pytest.fixture
def client(scripted_triton: ScriptedTriton) -> Iterator[OFAClient]:
    with OFAClient(scripted_triton.address, timeout=20) as client:
        yield client


def test_the_answer_becomes_a_typed_result(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    answer = captions_answer(
        ["a red apple", "ein Äpfel 🍎", ""],
        [-0.25, -0.5, -3.0],
        [[-0.25, -0.5], [-0.125, -1.0], [-3.0, 0.0]],
    )
    scripted_triton.answer = lambda *_: answer
    result = client.caption(b"picture")
    assert result.text == "a red apple"
    assert result.captions == (
        Caption("a red apple", -0.25, (-0.25, -0.5)),
        Caption("ein Äpfel 🍎", -0.5, (-0.125, -1.0)),
        Caption("", -3.0, (-3.0, 0.0)),
    )
    assert type(result.captions[0].score) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.captions[0].text = "other"  # type: ignore[misc]


def test_without_options_only_the_image_is_sent(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    client.caption(b"\x00picture\x00")
    (request,) = scripted_triton.requests
    assert request.keys() == {"image"}
    assert scripted_triton.dtypes == [{"image": "BYTES"}]
    assert request["image"].tolist() == [[b"\x00picture\x00"]]
    assert scripted_triton.models == ["caption"]


def test_every_option_is_sent_with_its_type(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    given = {
        "num_captions": 2,
        "beam_size": np.int64(4),
        "max_length": 12,
        "min_length": 0,
        "no_repeat_ngram_size": 3,
        "length_penalty": 1,
        "temperature": 0.5,
    }
    client.caption(b"picture", **given)
    (request,), (dtypes,) = scripted_triton.requests, scripted_triton.dtypes
    assert {name: request[name].tolist() for name in given} == {
        name: [[value]] for name, value in given.items()
    }
    assert [dtypes[name] for name in given] == ["INT32"] * 5 + ["FP32"] * 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_captions": 1.0}, "num_captions must be an integer, not 1.0"),
        ({"beam_size": "5"}, "beam_size must be an integer, not '5'"),
        ({"max_length": True}, "max_length must be an integer, not True"),
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"min_length": 2**31}, "min_length is 2147483648, which does not fit 32 bits"),
        ({"length_penalty": 1e39}, "length_penalty is 1e+39, which does not fit 32 bits"),
    ],
)
def test_options_of_the_wrong_type_are_not_sent(
    client: OFAClient, scripted_triton: ScriptedTriton, option: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        client.caption(b"picture", **option)
    assert (caught.value.code, caught.value.message) == ("INVALID_ARGUMENT", message)
    assert not scripted_triton.requests


def test_the_model_is_the_one_asked_for(scripted_triton: ScriptedTriton) -> None:
    with OFAClient(scripted_triton.address, model="emoji") as client:
        client.caption(b"picture")
    assert scripted_triton.models == ["emoji"]


def test_the_largest_image_passes_and_a_larger_one_is_not_sent(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    client.caption(bytes(MAX_IMAGE_BYTES))
    with pytest.raises(InvalidImageError):
        client.caption(bytes(MAX_IMAGE_BYTES + 1))
    (request,) = scripted_triton.requests
    assert len(request["image"].item()) == MAX_IMAGE_BYTES


STATUSES = [
    ("INVALID_ARGUMENT", "image is 4000 x 200 pixels; the limit is 3000", ImageTooLargeError),
    (
        "INVALID_ARGUMENT",
        "in ensemble 'caption', image has 10,485,761 bytes; the limit is 10,485,760",
        ImageTooLargeError,
    ),
    ("INVALID_ARGUMENT", "image has 101 JPEG scans; the limit is 100", ImageTooLargeError),
    ("INVALID_ARGUMENT", "in ensemble 'caption', image cannot be decoded", InvalidImageError),
    (
        "INVALID_ARGUMENT",
        "in ensemble 'caption', beam_size is 9; the limit is 5",
        InvalidOptionError,
    ),
    (
        "INVALID_ARGUMENT",
        "in ensemble 'caption', num_boxes is 6; allowed are 1 to 5",
        InvalidOptionError,
    ),
    ("INVALID_ARGUMENT", "in ensemble 'caption', text2 is not UTF-8 (byte 3)", InvalidTextError),
    ("INVALID_ARGUMENT", "text is missing; send it beside the image", InvalidTextError),
    (
        "INVALID_ARGUMENT",
        "inference input 'temperature' data-type is 'INT32', but model 'caption' expects 'FP32'",
        InvalidOptionError,
    ),
    (
        "INVALID_ARGUMENT",
        "expected 2 inputs. Got input(s) ['image'], but missing required input(s) ['text']",
        InvalidTextError,
    ),
    ("INVALID_ARGUMENT", "batch-size must be <= 1 for 'caption'", InvalidRequestError),
    ("UNAVAILABLE", "in ensemble 'caption', Exceeds maximum queue size", OverloadedError),
    ("UNAVAILABLE", "[request id: <id_unknown>] Exceeds maximum queue size", OverloadedError),
    ("UNAVAILABLE", "in ensemble 'caption', Request timeout expired", OverloadedError),
    ("RESOURCE_EXHAUSTED", "too many requests", OverloadedError),
    (
        "RESOURCE_EXHAUSTED",
        "CLIENT: Received message larger than max (5242880 vs. 4194304)",
        InvalidRequestError,
    ),
    ("UNAUTHENTICATED", "no token", AuthenticationError),
    ("PERMISSION_DENIED", "not with this token", AuthenticationError),
    ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'", AuthenticationError),
    ("UNAVAILABLE", "Socket closed", UnavailableError),
    ("CANCELLED", "CANCELLED", UnavailableError),
    ("NOT_FOUND", "Request for unknown model: 'caption' is not found", ModelNotReadyError),
    (
        "NOT_FOUND",
        "Request for unknown model: 'caption' has no available versions",
        ModelNotReadyError,
    ),
    ("INTERNAL", "Stub process 'caption_preprocess_0_0' is not healthy.", ServerError),
    ("UNKNOWN", "something else", ServerError),
]


@pytest.mark.parametrize(
    ("code", "details", "expected"), STATUSES, ids=lambda value: str(value)[:50]
)
def test_each_status_has_its_error(
    scripted_triton: ScriptedTriton,
    code: str,
    details: str,
    expected: type[OFAClientError],
) -> None:
    scripted_triton.fail(grpc.StatusCode[code], details)
    with (
        OFAClient(scripted_triton.address, timeout=20, retry=None) as client,
        pytest.raises(OFAClientError) as caught,
    ):
        client.caption(b"picture")
    assert type(caught.value) is expected
    assert caught.value.code == code
    message = details.removeprefix("in ensemble 'caption', ")
    assert caught.value.message.endswith(message.removeprefix("[request id: <id_unknown>] "))
    assert "in ensemble" not in str(caught.value)
    assert "request id" not in str(caught.value)


def test_an_error_survives_pickling(client: OFAClient, scripted_triton: ScriptedTriton) -> None:
    scripted_triton.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
    with pytest.raises(OverloadedError) as caught:
        client.caption(b"picture")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert type(copy) is OverloadedError
    assert (copy.code, copy.message) == (caught.value.code, caught.value.message)


def test_a_silent_server_ends_in_deadline_exceeded(scripted_triton: ScriptedTriton) -> None:
    over = threading.Event()
    answer = captions_answer(["late"], [-1.0], [[-1.0]])

    def wait(*_: object) -> Tensors:
        over.wait(timeout=30)
        return answer

    scripted_triton.answer = wait
    try:
        with OFAClient(scripted_triton.address, timeout=0.3) as client:
            with pytest.raises(
                DeadlineExceededError, match=r"did not answer within 0\.3 s"
            ) as caught:
                client.caption(b"picture")
            with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
                client.caption(b"picture", timeout=0.2)
    finally:
        over.set()
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_reading_the_picture_counts_towards_the_timeout(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    class SlowFile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.05)
            return super().read(size)

    with pytest.raises(DeadlineExceededError):
        client.caption(SlowFile(b"picture"), timeout=0.01)
    assert not scripted_triton.requests


def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = f"{address} is unavailable: "
        with OFAClient(address) as client, pytest.raises(UnavailableError, match=message) as caught:
            client.caption(b"picture")
    assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize(
    "address", ["http://localhost:8000", "localhost", "", ":8001", "dns:///name", "localhost:grpc"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=f"server must be HOST:PORT .*, not '{address}'"):
        OFAClient(address)


def test_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one server"):
        OFAClient([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": None}, "the answer has no 'captions' tensor"),
        ({"token_log_probs": None}, "the answer has no 'token_log_probs' tensor"),
        (
            {"scores": np.zeros((1, 1), np.float32)},
            "do not fit together: .*'scores': 'float32 .1, 1.'",
        ),
        ({"token_log_probs": np.zeros((1, 2), np.float32)}, "do not fit together"),
        ({"captions": np.empty((1, 0), np.object_)}, "do not fit together"),
        ({"captions": np.zeros((1, 2), np.float32)}, "'captions': 'float32 .1, 2.'"),
        ({"scores": np.zeros(2, np.float32)}, "'scores': 'float32 .2.'"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_server_error(
    client: OFAClient,
    scripted_triton: ScriptedTriton,
    change: dict[str, np.ndarray | None],
    message: str,
) -> None:
    answer = captions_answer(["one", "two"], [-1.0, -2.0], [[-1.0], [-2.0]]) | change
    scripted_triton.answer = lambda *_: {
        name: tensor for name, tensor in answer.items() if tensor is not None
    }
    with pytest.raises(ServerError, match=message) as caught:
        client.caption(b"picture")
    assert caught.value.code == "INTERNAL"


def test_threads_share_a_client(client: OFAClient, scripted_triton: ScriptedTriton) -> None:
    scripted_triton.answer = lambda request, _: captions_answer(
        [request["image"].item().decode()], [-1.0], [[-1.0]]
    )
    names = [f"picture {i}" for i in range(200)]
    with ThreadPoolExecutor(max_workers=16) as threads:
        texts = list(threads.map(lambda name: client.caption(name.encode()).text, names))
    assert texts == names
