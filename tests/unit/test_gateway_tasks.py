"""The routes of the tasks, with a client that is not one: bodies in, JSON out, errors by status."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from ofa_client import (
    MAX_IMAGE_BYTES,
    DeadlineExceededError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidOptionError,
    InvalidRequestError,
    InvalidTextError,
    ModelNotReadyError,
    OFAClientError,
    OverloadedError,
    ServerError,
    UnavailableError,
)
from ofa_server.gateway import bodies, gateway
from ofa_server.gateway.tasks import ROUTES
from tests.unit.fake_gateway import FakeCatalogue, FakeClient, fake_gateway

PNG = b"\x89PNG and so on"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
VALUES: dict[str, Any] = {
    "question": "what?",
    "text": "ein Bär",
    "text2": "一只熊",
    "prompt": " a prompt",
}
ANSWERS: dict[str, Any] = {
    "captions": [{"text": "a red apple", "score": -0.25}, {"text": "an apple", "score": -1.5}],
    "answers": [{"text": "red", "score": -0.125}],
    "boxes": [{"box": [1.0, 2.5, 30.0, 40.0], "score": -0.5}],
    "labels": [{"label": "yes", "probability": 0.75}, {"label": "no", "probability": 0.25}],
    "texts": [{"text": "a text", "score": -0.5}, {"text": "", "score": None}],
    "images": [{"png": base64.b64encode(b"a png").decode(), "score": 0.25, "log_prob": -3.5}],
}


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def http(client: FakeClient) -> Iterator[TestClient]:
    with TestClient(fake_gateway(client), raise_server_exceptions=False) as http:
        yield http


def error_of(response: Any) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


def post_json(http: TestClient, **fields: object) -> Any:
    return http.post("/v1/captions", json={"image": DATA_URL, **fields})


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
@pytest.mark.parametrize("form", ["json", "multipart"])
def test_every_route_hands_its_fields_to_its_verb(
    http: TestClient, client: FakeClient, route: Any, form: str
) -> None:
    names = route.request.model_fields
    texts = {name: value for name, value in VALUES.items() if name in names}
    count = next(name for name in names if name.startswith("num_"))
    options = {count: 2} | ({"temperature": 0.5} if "temperature" in names else {"seed": 7})
    if "allow_special_tokens" in names:
        options["allow_special_tokens"] = True
    if form == "json":
        picture = {"image": DATA_URL} if "image" in names else {}
        response = http.post(route.path, json={**picture, **texts, **options})
    else:
        # Without a file httpx sends another form unless it is told.
        fields = {name: (None, str(value)) for name, value in {**texts, **options}.items()}
        files = {"image": ("a.png", PNG)} if "image" in names else {}
        response = http.post(route.path, files={**fields, **files})
    assert response.status_code == 200, response.text
    picture = {"image": PNG} if "image" in names else {}
    [(verb, arguments)] = client.calls
    assert verb == route.verb
    defaults = {"allow_special_tokens", "seed"} - options.keys()
    assert {name: value for name, value in arguments.items() if name not in defaults} == {
        **picture,
        **texts,
        **options,
        "model": route.task,
    }
    assert response.headers["X-Request-ID"] == "0123"
    answer = response.json()
    assert answer.pop("model") == route.task
    assert answer.pop("seconds") >= 0
    [(name, items)] = answer.items()
    assert items == ANSWERS[name]


def test_a_picture_may_come_as_bare_base64(http: TestClient, client: FakeClient) -> None:
    assert post_json(http, image=base64.b64encode(PNG).decode()).status_code == 200
    assert client.calls[0][1]["image"] == PNG


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"image": "https://a.b/c.png"}, "invalid_image", "fetches none"),
        ({"image": "file:///etc/passwd"}, "invalid_image", "fetches none"),
        ({"image": "data:image/png,abc"}, "invalid_image", "fetches none"),
        ({"image": "not base64"}, "invalid_image", "not valid base64"),
        ({"image": "bäh"}, "invalid_image", "not valid base64"),
        ({"image": 3}, "invalid_image", "must be a file"),
        ({"num_captoins": 3}, "invalid_request", "unknown field num_captoins"),
        ({"num_captions": "many"}, "invalid_request", "num_captions: "),
        ({"temperature": "nan"}, "invalid_request", "temperature: "),
        ({"model": "vqa"}, "invalid_request", "is for vqa, not for caption"),
    ],
    ids=str,
)
def test_an_unfit_field_is_refused_before_anybody_is_asked(
    http: TestClient, client: FakeClient, fields: dict[str, object], code: str, message: str
) -> None:
    status, found, sentence = error_of(post_json(http, **fields))
    assert (status, found) == (400, code)
    assert message in sentence
    assert not client.calls


def test_a_missing_field_is_named(http: TestClient) -> None:
    assert error_of(http.post("/v1/captions", json={}))[2] == "image is missing"
    response = http.post("/v1/answers", files={"image": PNG})
    assert error_of(response) == (400, "invalid_request", "question is missing")


def test_what_is_no_body_is_refused(http: TestClient) -> None:
    headers = {"content-type": "application/json"}
    broken = http.post("/v1/captions", content=b"{", headers=headers)
    assert error_of(broken)[:2] == (400, "invalid_request")
    assert error_of(broken)[2].startswith("the body is not JSON: ")
    raw = http.post("/v1/captions", content=PNG, headers={"content-type": "image/png"})
    assert error_of(raw)[:2] == (415, "unsupported_media_type")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    garbled = http.post("/v1/captions", content=b"no form", headers=headers)
    assert error_of(garbled)[:2] == (400, "invalid_request")


def test_a_field_that_is_there_twice_is_refused(http: TestClient) -> None:
    response = http.post(
        "/v1/answers",
        files=[("image", PNG), ("question", (None, "a")), ("question", (None, "b"))],
    )
    assert error_of(response) == (400, "invalid_request", "question is there twice")


def test_a_picture_of_the_limit_passes_and_one_byte_more_does_not(
    http: TestClient, client: FakeClient
) -> None:
    for send in (
        lambda picture: http.post("/v1/captions", files={"image": picture}),
        lambda picture: post_json(http, image=base64.b64encode(picture).decode()),
    ):
        assert send(bytes(MAX_IMAGE_BYTES)).status_code == 200
        assert error_of(send(bytes(MAX_IMAGE_BYTES + 1))) == (
            413,
            "image_too_large",
            "image is 10,485,761 bytes; the limit is 10,485,760",
        )
    assert len(client.calls) == 2


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_is_not_read_beyond_its_limit(announced: bool) -> None:
    limit = bodies.MAX_BODY_BYTES
    headers = {"content-length": str(limit + 1)} if announced else {}
    chunks = [bytes(1_000_000)] * (limit // 1_000_000 + 10)
    answer, num_left = asyncio.run(post_chunks(chunks, headers))
    assert answer[0]["status"] == 413
    assert b"body_too_large" in answer[1]["body"]
    assert num_left == (len(chunks) if announced else 9)


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    answer, _ = asyncio.run(post_chunks([b"{"], {}, timeout=0.05, ends=False))
    assert answer[0]["status"] == 408
    assert b"the body did not come within" in answer[1]["body"]


async def post_chunks(
    chunks: list[bytes], headers: dict[str, str], *, timeout: float = 60, ends: bool = True
) -> tuple[list[Message], int]:
    """Sends a body piece by piece; returns the answer, and how many pieces were not asked for."""
    left = list(chunks)
    sent: list[Message] = []

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return {
            "type": "http.request",
            "body": left.pop(),
            "more_body": bool(left) or not ends,
        }

    async def send(message: Message) -> None:
        sent.append(message)

    await fake_gateway(timeout=timeout)(scope_of("/v1/captions", headers), receive, send)
    return sent, len(left)


def scope_of(path: str, headers: dict[str, str]) -> Scope:
    everything = {"content-type": "application/json", **headers}
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in everything.items()],
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidImageError("image is empty"), 400, "invalid_image"),
        (ImageTooLargeError("image is 3001 x 1 pixels"), 413, "image_too_large"),
        (InvalidTextError("text is too long"), 400, "invalid_text"),
        (InvalidOptionError("beam_size is 99"), 400, "invalid_option"),
        (InvalidRequestError("something"), 400, "invalid_request"),
        (OverloadedError("10.0.0.1:8001 is busy"), 429, "overloaded"),
        (UnavailableError("10.0.0.1:8001: refused"), 503, "unavailable"),
        (ModelNotReadyError("10.0.0.1:8001: unknown"), 503, "model_not_ready"),
        (DeadlineExceededError("10.0.0.1:8001 was slow"), 504, "deadline_exceeded"),
        (ServerError("Traceback in /opt/model.py"), 502, "server_error"),
        (RuntimeError("a bug in /opt/gateway.py"), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_has_its_status_and_tells_nothing_of_the_inside(
    http: TestClient, client: FakeClient, error: Exception, status: int, code: str
) -> None:
    client.error = error
    response = post_json(http)
    assert error_of(response)[:2] == (status, code)
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    told = error_of(response)[2]
    if status < 429:
        assert isinstance(error, OFAClientError)
        assert told == error.message
    else:
        assert "10.0.0.1" not in told
        assert "/opt" not in told


def test_what_the_model_server_said_is_logged(
    http: TestClient, client: FakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.error = ServerError("10.0.0.1:8001: the stub is not healthy")
    client.error.request_id = "0123"
    with caplog.at_level(logging.WARNING):
        assert post_json(http).headers["X-Request-ID"] == "0123"
    assert "0123: server_error: 10.0.0.1:8001: the stub is not healthy" in caplog.text


def test_the_client_s_estimate_says_when_to_try_again(http: TestClient, client: FakeClient) -> None:
    client.error = OverloadedError("busy")
    client.error.retry_after = 2.4
    assert post_json(http).headers["Retry-After"] == "3"


def test_the_timeout_is_what_is_left_of_the_request_s(client: FakeClient) -> None:
    with TestClient(fake_gateway(client, timeout=5)) as http:
        post_json(http)
    assert 0 < client.timeouts[0] < 5


def test_a_model_of_one_s_own_choice_is_asked(http: TestClient, client: FakeClient) -> None:
    post_json(http, model="caption_zh")
    assert client.calls[0][1]["model"] == "caption_zh"
    unknown = post_json(http, model="caption_generator")
    assert error_of(unknown)[:2] == (404, "model_not_found")
    assert "caption, caption_zh" in error_of(unknown)[2]


def test_a_task_that_no_model_is_ready_for_is_not_asked(client: FakeClient) -> None:
    with TestClient(fake_gateway(client, FakeCatalogue("vqa"))) as http:
        response = post_json(http)
    assert error_of(response) == (503, "model_not_ready", "no model for caption is ready")
    assert response.headers["Retry-After"]
    assert not client.calls


def test_a_caller_who_goes_away_takes_the_call_along(client: FakeClient) -> None:
    client.waits = True
    arrived: list[Message] = [{"type": "http.request", "body": b'{"image": "AAAA"}'}]

    async def receive() -> Message:
        if arrived:
            return arrived.pop()
        await client.called.wait()
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    app = fake_gateway(client)
    asyncio.run(asyncio.wait_for(app(scope_of("/v1/captions", {}), receive, send), 10))
    assert client.num_cancelled == 1
    assert sent[0]["status"] == 499
    with TestClient(app) as http:
        figures = http.get("/metrics").text
    assert 'requests_total{outcome="cancelled",route="/v1/captions"} 1.0' in figures


def test_one_request_too_many_is_refused_before_it_is_read(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_REQUESTS", 2)
    client.waits = True

    async def scenario() -> list[Message]:
        app = fake_gateway(client)
        waiting = [asyncio.create_task(one_call(app, asyncio.Event())) for _ in range(2)]
        while len(client.calls) < 2:
            await asyncio.sleep(0)
        refused = await one_call(app, asyncio.Event())
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        client.waits = False
        assert (await one_call(app, asyncio.Event()))[0]["status"] == 200
        return refused

    async def one_call(app: Any, gone: asyncio.Event) -> list[Message]:
        body = [b'{"image": "AAAA"}']
        sent: list[Message] = []

        async def receive() -> Message:
            if not body:
                await gone.wait()
            return {"type": "http.request", "body": body.pop()}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope_of("/v1/captions", {}), receive, send)
        return sent

    refused = asyncio.run(asyncio.wait_for(scenario(), 10))
    assert refused[0]["status"] == 429
    assert (b"retry-after", b"1") in refused[0]["headers"]
    assert len(client.calls) == 3


def test_an_unknown_path_and_method_have_the_same_form_of_error(http: TestClient) -> None:
    assert error_of(http.post("/v1/nothing"))[:2] == (404, "not_found")
    assert error_of(http.get("/v1/captions"))[:2] == (405, "method_not_allowed")
