"""ofa_client against a real Triton, with plain tritonclient as the yardstick."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image, ImageOps

from ofa_client import (
    AsyncOFAClient,
    CaptioningResult,
    DeadlineExceededError,
    InvalidImageError,
    InvalidOptionError,
    ModelNotReadyError,
    OFAClient,
)
from tests.server.processes import ServeProcess
from tests.server.requests import Answer, caption, encoded, headed_png, picture

#: Generous, for a machine that does other things meanwhile.
TIMEOUT_S = 300
OFA_CLIENT = Path(sys.executable).with_name("ofa-client")


@pytest.fixture
def ofa_client(server: ServeProcess) -> Iterator[OFAClient]:
    with OFAClient(server.grpc_address, timeout=TIMEOUT_S) as connected:
        yield connected


def as_answer(result: CaptioningResult) -> Answer:
    return Answer(
        [caption.text for caption in result.captions],
        [caption.score for caption in result.captions],
        [list(caption.token_log_probs) for caption in result.captions],
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_captions": 3},
        {
            "num_captions": 2,
            "beam_size": 4,
            "max_length": 8,
            "min_length": 2,
            "no_repeat_ngram_size": 2,
            "length_penalty": 0.5,
            "temperature": 1.25,
        },
    ],
    ids=["defaults", "three captions", "all options"],
)
def test_the_answer_is_that_of_plain_tritonclient(
    ofa_client: OFAClient, client: grpcclient.InferenceServerClient, options: dict[str, float]
) -> None:
    image_bytes = encoded(picture(3), "JPEG")
    result = ofa_client.caption(image_bytes, **options)
    assert as_answer(result) == caption(client, image_bytes, **options)
    assert len(result.captions) == options.get("num_captions", 1)
    assert result.text == result.captions[0].text
    assert result.captions[0].score == max(caption.score for caption in result.captions)


def test_a_result_tells_how_it_came_about(server: ServeProcess, ofa_client: OFAClient) -> None:
    call = ofa_client.caption(encoded(picture(3))).call
    assert (call.model, call.model_version) == ("caption", "1")
    assert [(each.server, each.code) for each in call.attempts] == [(server.grpc_address, "OK")]
    assert 0 < call.attempts[0].seconds <= call.seconds


def test_the_asynchronous_client_answers_the_same(
    server: ServeProcess, ofa_client: OFAClient
) -> None:
    pictures = [encoded(picture(seed)) for seed in range(4)]

    async def ask() -> list[CaptioningResult]:
        async with AsyncOFAClient(server.grpc_address, timeout=TIMEOUT_S) as client:
            return [await client.caption(image_bytes) for image_bytes in pictures]

    assert asyncio.run(ask()) == [ofa_client.caption(image_bytes) for image_bytes in pictures]


def test_every_form_of_a_picture_has_the_same_answer(
    ofa_client: OFAClient, client: grpcclient.InferenceServerClient, tmp_path: Path
) -> None:
    image = picture(4)
    image_bytes = encoded(image)
    expected = caption(client, image_bytes)
    assert expected != caption(client, encoded(picture(5))), "the pictures must differ in answer"
    path = tmp_path / "picture.png"
    path.write_bytes(image_bytes)
    for form in (path, str(path), image_bytes, io.BytesIO(image_bytes), image, np.asarray(image)):
        assert as_answer(ofa_client.caption(form)) == expected, type(form)


def test_exif_turns_encoded_pictures_and_not_pil_pictures(ofa_client: OFAClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture(6), "JPEG", exif=exif)
    with Image.open(io.BytesIO(turned)) as image:
        assert ofa_client.caption(turned) == ofa_client.caption(ImageOps.exif_transpose(image))
        assert ofa_client.caption(turned) != ofa_client.caption(image)


@pytest.mark.parametrize(
    ("image_bytes", "message"),
    [
        (b"", "image is empty"),
        (b"not a picture", "image cannot be read"),
        (encoded(picture(0))[:200], "image is broken or truncated"),
        (headed_png(3001, 10), "image is 3001 x 10 pixels; the limit is 3000 on a side"),
    ],
    ids=["empty", "not a picture", "truncated", "too wide"],
)
def test_a_bad_image_is_an_invalid_image(
    ofa_client: OFAClient, image_bytes: bytes, message: str
) -> None:
    with pytest.raises(InvalidImageError) as caught:
        ofa_client.caption(image_bytes)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    "option",
    [{"beam_size": 0}, {"beam_size": 99}, {"num_captions": 6}, {"temperature": float("nan")}],
    ids=str,
)
def test_a_bad_option_is_an_invalid_option(ofa_client: OFAClient, option: dict[str, float]) -> None:
    with pytest.raises(InvalidOptionError, match=f"^{next(iter(option))} is ") as caught:
        ofa_client.caption(encoded(picture(0)), **option)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_an_unknown_model_is_not_ready(server: ServeProcess) -> None:
    with (
        OFAClient(server.grpc_address, model="nothing") as client,
        pytest.raises(ModelNotReadyError, match="unknown model: 'nothing'"),
    ):
        client.caption(encoded(picture(0)))


def test_a_deadline_that_is_too_short_is_exceeded(ofa_client: OFAClient) -> None:
    with pytest.raises(DeadlineExceededError, match=r"did not answer within 0\.001 s"):
        ofa_client.caption(encoded(picture(0)), timeout=0.001)


def test_threads_that_share_a_client_get_their_own_answers(ofa_client: OFAClient) -> None:
    pictures = [encoded(picture(seed)) for seed in range(4)]
    alone = [ofa_client.caption(image_bytes).text for image_bytes in pictures]
    assert len(set(alone)) > 1
    with ThreadPoolExecutor(max_workers=4) as threads:
        together = [result.text for result in threads.map(ofa_client.caption, pictures * 2)]
    assert together == alone * 2


def test_the_command_prints_one_object_a_picture(
    server: ServeProcess, ofa_client: OFAClient, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encoded(picture(7)))
    bad.write_bytes(b"not a picture")
    command = [OFA_CLIENT, "caption", bad, good, "--num-captions", "2", "--json"]
    finished = subprocess.run(
        [*command, "--server", server.grpc_address, "--timeout", str(TIMEOUT_S)],
        check=False,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_S,
    )
    assert (finished.returncode, finished.stderr) == (1, "")
    failed, answered = [json.loads(line) for line in finished.stdout.splitlines()]
    assert failed["image"] == str(bad)
    assert failed["error"]["code"] == "INVALID_ARGUMENT"
    assert failed["error"]["message"].startswith("image cannot be read")
    expected = ofa_client.caption(good, num_captions=2)
    assert answered == {
        "image": str(good),
        "captions": [{"text": each.text, "score": each.score} for each in expected.captions],
    }
