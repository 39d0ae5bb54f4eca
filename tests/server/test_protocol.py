"""The public contract of docs/protocol.md, through a real Triton."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import InferenceServerException

from ofa.image import IMAGE_FORMATS, MAX_IMAGE_BYTES, MAX_IMAGE_SIDE
from tests.server.library import answer_of_library
from tests.server.processes import ServeProcess
from tests.server.requests import (
    Answer,
    caption,
    encoded,
    headed_png,
    picture,
    refusal,
    request_inputs,
    tensor,
)

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
IMAGE = encoded(picture(0))


def test_the_example_of_the_page_runs_as_it_stands(
    server: ServeProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PROTOCOL.read_text("utf-8"), re.DOTALL)
    (tmp_path / "picture.jpg").write_bytes(encoded(picture(1), "JPEG"))
    monkeypatch.chdir(tmp_path)
    exec(example.replace("localhost:8001", server.grpc_address), {})  # noqa: S102 - our own page
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)


def expected_answer(checkpoint: Path, image_bytes: bytes, **options: float) -> Answer:
    """The same request through the library alone."""
    answer = answer_of_library(checkpoint, image=image_bytes, **options)
    return Answer(
        [text.decode() for text in answer["captions"]],
        answer["scores"].tolist(),
        answer["token_log_probs"].tolist(),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_captions": 3},
        {"beam_size": 1},
        {"num_captions": 4, "beam_size": 4, "max_length": 7, "min_length": 3, "temperature": 1.5},
        {"no_repeat_ngram_size": 0, "length_penalty": 2.0},
    ],
    ids=str,
)
def test_the_server_says_what_the_library_says(
    client: grpcclient.InferenceServerClient, checkpoint: Path, options: dict[str, float]
) -> None:
    served, expected = (
        caption(client, IMAGE, **options),
        expected_answer(checkpoint, IMAGE, **options),
    )
    assert served.captions == expected.captions
    assert len(served.captions) == options.get("num_captions", 1)
    np.testing.assert_allclose(served.scores, expected.scores, rtol=0, atol=1e-4)
    np.testing.assert_allclose(served.token_log_probs, expected.token_log_probs, rtol=0, atol=1e-4)


def test_pictures_differ(client: grpcclient.InferenceServerClient) -> None:
    assert len({caption(client, encoded(picture(seed))).captions[0] for seed in range(6)}) > 3


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_every_format_of_the_page_is_served(
    client: grpcclient.InferenceServerClient, kind: str
) -> None:
    assert caption(client, encoded(picture(2), kind)).captions[0]


TRUNCATED = encoded(picture(3), "JPEG")[:-200]
BAD_REQUESTS = {
    "not an image": (b"captions, please", {}, "image cannot be read"),
    "empty": (b"", {}, "image is empty"),
    "truncated": (TRUNCATED, {}, "image is broken or truncated"),
    "too many bytes": (
        IMAGE + bytes(MAX_IMAGE_BYTES + 1 - len(IMAGE)),
        {},
        "image has 10,485,761 bytes; the limit is 10,485,760",
    ),
    "too wide": (headed_png(3001, 20), {}, "image is 3001 x 20 pixels; the limit is 3000"),
    "too high": (headed_png(20, 3001), {}, "image is 20 x 3001 pixels; the limit is 3000"),
    "zero size": (headed_png(0, 20), {}, "image"),
    "beam too wide": (IMAGE, {"beam_size": 6}, "beam_size is 6; allowed are 1 to 5"),
    "no beam": (IMAGE, {"beam_size": 0}, "beam_size is 0; allowed are 1 to 5"),
    "more captions than beams": (
        IMAGE,
        {"beam_size": 2, "num_captions": 3},
        "num_captions is 3; allowed are 1 to 2",
    ),
    "too long": (IMAGE, {"max_length": 13}, "max_length is 13; allowed are 1 to 12"),
    "shortest above longest": (
        IMAGE,
        {"max_length": 4, "min_length": 5},
        "min_length is 5; allowed are 0 to 4",
    ),
    "negative n-gram": (IMAGE, {"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1"),
    "not a number": (IMAGE, {"length_penalty": float("nan")}, "length_penalty is nan"),
    "no temperature": (IMAGE, {"temperature": 0.0}, "temperature is 0; allowed are 0.01 to 100"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_with_a_reason(
    client: grpcclient.InferenceServerClient, name: str
) -> None:
    image_bytes, options, reason = BAD_REQUESTS[name]
    assert reason in refusal(client, "caption", request_inputs(image=image_bytes, **options))


def test_the_limits_themselves_are_allowed(client: grpcclient.InferenceServerClient) -> None:
    largest = encoded(Image.new("RGB", (MAX_IMAGE_SIDE, MAX_IMAGE_SIDE), "navy"))
    assert caption(client, largest).captions
    assert caption(client, IMAGE + bytes(MAX_IMAGE_BYTES - len(IMAGE))) == caption(client, IMAGE)


def two_pictures() -> list[grpcclient.InferInput]:
    return [tensor("image", np.array([[IMAGE], [IMAGE]], dtype=np.object_))]


def two_in_a_row() -> list[grpcclient.InferInput]:
    return [tensor("image", np.array([[IMAGE, IMAGE]], dtype=np.object_))]


def unknown_option() -> list[grpcclient.InferInput]:
    return [*request_inputs(image=IMAGE), tensor("beam_width", np.array([[3]], np.int32))]


def option_of_another_type() -> list[grpcclient.InferInput]:
    return [*request_inputs(image=IMAGE), tensor("beam_size", np.array([[3]], np.float32))]


def no_image() -> list[grpcclient.InferInput]:
    return request_inputs(image=IMAGE, beam_size=3)[1:]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (two_pictures, "batch-size must be <= 1"),
        (two_in_a_row, "unexpected shape for input 'image'"),
        (unknown_option, "unexpected inference input 'beam_width'"),
        (option_of_another_type, "'beam_size' data-type is 'FP32', but model 'caption' expects"),
        (no_image, "expected"),
    ],
)
def test_a_malformed_request_is_refused(
    client: grpcclient.InferenceServerClient,
    make: Callable[[], list[grpcclient.InferInput]],
    reason: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("caption", make())
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert reason in caught.value.message()


def test_bad_requests_harm_no_neighbour(
    server: ServeProcess, client: grpcclient.InferenceServerClient
) -> None:
    pictures = [encoded(picture(seed)) for seed in range(4)]
    alone = [caption(client, image_bytes) for image_bytes in pictures]
    bad = list(BAD_REQUESTS.values())

    def good_beside_bad(index: int) -> Answer:
        image_bytes, options, _ = bad[index % len(bad)]
        with grpcclient.InferenceServerClient(server.grpc_address) as own:
            refusal(own, "caption", request_inputs(image=image_bytes, **options))
            return caption(own, pictures[index % len(pictures)])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(good_beside_bad, range(len(bad))))
    for index, answer in enumerate(answers):
        assert answer.captions == alone[index % len(alone)].captions


def test_an_unexpected_error_shows_nothing_of_the_inside(
    client: grpcclient.InferenceServerClient, server: ServeProcess
) -> None:
    """No caption at all is asked of postprocess, which only a caller of the inside can do."""
    inputs = [
        tensor("token_ids", np.zeros((1, 1, 3), np.int64)),
        tensor("hypothesis_scores", np.zeros((1, 1), np.float32)),
        tensor("hypothesis_log_probs", np.zeros((1, 1, 3), np.float32)),
        tensor("num_hypotheses", np.zeros((1, 1), np.int32)),
    ]
    message = refusal(client, "caption_postprocess", inputs, "INTERNAL")
    assert message == "internal error; the server's log says more"
    assert "Traceback (most recent call last)" in server.output


def test_http_answers_with_the_same_status(server: ServeProcess) -> None:
    url = f"http://127.0.0.1:{server.ports[1]}/v2/models/caption/infer"
    body = {"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}]}
    post = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(post, timeout=60)  # noqa: S310 - our own server
    with caught.value as answer:
        assert answer.code == 400
        assert "image cannot be read" in json.load(answer)["error"]
