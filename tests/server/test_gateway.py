"""The gateway in front of the checkpoints that ship: what it answers is what the client answers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ofa_client import AnsweringResult, CaptioningResult, GroundingResult, OFAClient, TextsResult
from ofa_server.gateway.gateway import MAX_REQUESTS
from ofa_server.gateway.tasks import ROUTES
from tests.server.gateway_process import GatewayProcess
from tests.server.processes import ServeProcess
from tests.server.requests import headed_png

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
BEAR = SAMPLES / "a_bear.jpg"
REQUESTS: dict[str, list[dict[str, str]]] = json.loads(
    (ROOT / "examples" / "requests.json").read_text("utf-8")
)
PATHS = {route.verb: route.path for route in ROUTES}
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def http(gateway: GatewayProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, timeout=TIMEOUT_S) as http:
        yield http


@pytest.fixture(scope="module")
def client(bundled_server: ServeProcess) -> Iterator[OFAClient]:
    with OFAClient(bundled_server.grpc_address, timeout=TIMEOUT_S) as client:
        yield client


def rows_of(result: Any) -> list[Any]:
    """What the gateway is to say of a result."""
    match result:
        case CaptioningResult(captions=texts) | AnsweringResult(answers=texts):
            return [{"text": each.text, "score": each.score} for each in texts]
        case TextsResult(texts=texts):
            return [{"text": each.text, "score": each.score} for each in texts]
        case GroundingResult(boxes=boxes):
            return [{"box": [box.x0, box.y0, box.x1, box.y1], "score": box.score} for box in boxes]
    return [{"label": each.label, "probability": each.probability} for each in result.labels]


def data_url(picture: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(picture.read_bytes()).decode()


@pytest.mark.parametrize("verb", REQUESTS)
@pytest.mark.parametrize("form", ["json", "multipart"])
def test_every_task_has_the_client_s_answer(
    http: httpx2.Client, client: OFAClient, verb: str, form: str
) -> None:
    asked = dict(REQUESTS[verb][0])
    picture = SAMPLES / asked.pop("image") if "image" in asked else None
    result = getattr(client, verb)(**({"image": picture} if picture else {}), **asked)
    if form == "json":
        answer = http.post(
            PATHS[verb], json={**asked, **({"image": data_url(picture)} if picture else {})}
        )
    else:
        fields = {name: (None, text) for name, text in asked.items()}
        files = {"image": picture.read_bytes()} if picture else {}
        answer = http.post(PATHS[verb], files={**fields, **files})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["model"] == result.call.model
    [rows] = [value for name, value in found.items() if name not in ("model", "seconds")]
    # Floats travel as float32 and are printed in full.
    assert rows == rows_of(result)


def test_options_and_models_travel(http: httpx2.Client, client: OFAClient) -> None:
    fields = {"num_captions": "3", "beam_size": "4", "model": "caption_zh"}
    answer = http.post("/v1/captions", files={"image": BEAR.read_bytes()}, data=fields).json()
    expected = client.caption(BEAR, num_captions=3, beam_size=4, model="caption_zh")
    assert answer["captions"] == rows_of(expected)
    assert answer["model"] == "caption_zh"


def test_the_models_are_those_of_the_repository(
    http: httpx2.Client, bundled_repository: Path
) -> None:
    listed = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
    exported = {
        manifest.parts[-3]: json.loads(manifest.read_text())["language"]
        for manifest in bundled_repository.glob("*/1/manifest.json")
    }
    assert listed.keys() == {*exported, "ofa"}
    for name, language in exported.items():
        assert listed[name]["language"] == language
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("picture", "status", "message"),
    [
        (b"", 400, "image is empty"),
        (b"not a picture", 400, "image cannot be read"),
        (BEAR.read_bytes()[:2000], 400, "image is broken or truncated"),
        (headed_png(3001, 10), 413, "image is 3001 x 10 pixels; the limit is 3000 on a side"),
        (bytes(10_485_761), 413, "image is 10,485,761 bytes; the limit is 10,485,760"),
    ],
    ids=["empty", "no picture", "truncated", "too wide", "too many bytes"],
)
def test_a_bad_picture_is_refused_in_the_server_s_words(
    http: httpx2.Client, picture: bytes, status: int, message: str
) -> None:
    refused = http.post("/v1/captions", files={"image": ("a.png", picture)})
    assert refused.status_code == status
    assert refused.json()["error"]["message"].startswith(message)


def test_a_bad_option_is_refused_in_the_server_s_words(http: httpx2.Client) -> None:
    refused = http.post("/v1/captions", json={"image": data_url(BEAR), "beam_size": 99})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_option")
    assert refused.json()["error"]["message"] == "beam_size is 99; allowed are 1 to 5"


def test_nobody_reaches_the_members_of_an_ensemble(http: httpx2.Client) -> None:
    body = {"image": data_url(BEAR), "model": "caption_generator"}
    assert http.post("/v1/captions", json=body).status_code == 404


@pytest.mark.parametrize(
    ("text", "model", "answer"),
    [
        ("Describe this picture.", "caption", "a bear"),
        ("what is it?", "vqa", "a bear"),
        ("描述一下这张图片", "caption_zh", "图片里有熊"),
    ],
)
def test_the_openai_form_has_the_same_answers(
    http: httpx2.Client, text: str, model: str, answer: str
) -> None:
    picture = {"type": "image_url", "image_url": {"url": data_url(BEAR)}}
    content = [{"type": "text", "text": text}, picture]
    # The limit is far above the model's own, as callers have it.
    body = {"model": "ofa", "messages": [{"role": "user", "content": content}], "max_tokens": 300}
    completion = http.post("/v1/chat/completions", json=body).json()
    assert completion["model"] == model
    [choice] = completion["choices"]
    assert choice["message"]["content"] == answer
    assert completion["usage"]["completion_tokens"] > 1
    with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
        events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == answer


def test_what_was_asked_is_in_the_figures(http: httpx2.Client) -> None:
    http.post("/v1/captions", files={"image": b"not a picture"})
    figures = http.get("/metrics").text
    assert 'requests_total{outcome="invalid_image",route="/v1/captions"}' in figures
    assert 'request_seconds_bucket{le="+Inf",route="/v1/captions"}' in figures


def test_a_crowd_is_answered_or_told_to_come_back(gateway: GatewayProcess) -> None:
    """More requests at once than the gateway holds, and than the server's queues hold."""

    async def ask(http: httpx2.AsyncClient) -> httpx2.Response:
        return await http.post("/v1/captions", files={"image": BEAR.read_bytes()})

    async def crowd() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(
            base_url=gateway.url, timeout=TIMEOUT_S, limits=limits
        ) as http:
            return await asyncio.gather(*(ask(http) for _ in range(2 * MAX_REQUESTS)))

    answers = asyncio.run(crowd())
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["captions"][0]["text"] == "a bear"
        else:
            assert answer.json()["error"]["code"] == "overloaded"
            assert int(answer.headers["Retry-After"]) >= 1
