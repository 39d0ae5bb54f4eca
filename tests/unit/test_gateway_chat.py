"""OpenAI's form: how a conversation becomes a call, and the call's result a completion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from ofa_client import InvalidOptionError
from ofa_server.gateway.descriptions import asks_for_description
from tests.unit import fake_gateway
from tests.unit.fake_gateway import FakeCatalogue, FakeClient

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def http(client: FakeClient) -> Iterator[TestClient]:
    catalogue = FakeCatalogue("caption", "caption_zh", "vqa", "ocr", "generate")
    with TestClient(fake_gateway.fake_gateway(client, catalogue)) as http:
        yield http


def said(text: str, *pictures: object, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}, *pictures]}


def complete(http: TestClient, *messages: object, **settings: object) -> Any:
    return http.post("/v1/chat/completions", json={"messages": messages, **settings})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What's in this image?",
        "What is in the image?",
        "what do you see",
        "Describe this picture in detail.",
        "Please describe this image in one short sentence.",
        "Can you describe the picture for me, please?",
        "Write a short caption for this photo.",
        "what does the image describe?",
        "图片描述了什么内容?",
        "请描述一下这张图片。",
        "这张图里有什么",
    ],
)
def test_what_asks_for_a_description_is_captioned(
    http: TestClient, client: FakeClient, text: str
) -> None:
    assert asks_for_description(text)
    answer = complete(http, said(text, PICTURE)).json()
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": "a red apple",
        "refusal": None,
    }
    is_chinese = not text.isascii()
    assert answer["model"] == ("caption_zh" if is_chinese else "caption")
    [(verb, arguments)] = client.calls
    assert verb == "caption"
    assert arguments == {
        "image": b"\0\0\0",
        "num_captions": 1,
        "model": answer["model"],
    }


@pytest.mark.parametrize(
    "text",
    ["what is left of the doughnut?", "how many apples are there", "描述那只猫", "is it red?"],
)
def test_every_other_text_is_a_question(http: TestClient, client: FakeClient, text: str) -> None:
    assert complete(http, said(text, PICTURE), model="ofa").json()["model"] == "vqa"
    verb, arguments = client.calls[0]
    assert (verb, arguments["question"]) == ("answer", text)


def test_a_follow_up_is_about_the_last_picture_before_it(
    http: TestClient, client: FakeClient
) -> None:
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64,////"}}
    messages = [
        {"role": "system", "content": "be brief"},
        said("what is it?", other),
        {"role": "assistant", "content": "an apple"},
        said("what is it?", PICTURE),
        {"role": "assistant", "content": "a pear"},
        {"role": "user", "content": "is it red?"},
    ]
    assert complete(http, *messages).status_code == 200
    assert client.calls[0][1]["image"] == b"\0\0\0"
    assert client.calls[0][1]["question"] == "is it red?"


def test_a_model_that_is_named_is_asked(http: TestClient, client: FakeClient) -> None:
    assert complete(http, said("what is it?", PICTURE), model="vqa").json()["model"] == "vqa"
    assert complete(http, said("", PICTURE), model="caption_zh").json()["model"] == "caption_zh"
    complete(http, said(" any prompt", PICTURE), model="generate")
    complete(http, said(" without a picture"), model="generate")
    assert [arguments.get("prompt") for _, arguments in client.calls[2:]] == [
        " any prompt",
        " without a picture",
    ]
    assert client.calls[-1][1]["image"] is None


@pytest.mark.parametrize(
    ("messages", "settings", "status", "message"),
    [
        ([said("hello")], {}, 400, "no message has a picture"),
        ([said("", PICTURE, PICTURE)], {}, 400, "has 2 pictures; the limit is 1"),
        ([said("", PICTURE), said("an apple", role="assistant")], {}, 400, "must be the user's"),
        ([said("how many?", PICTURE)], {"model": "caption"}, 400, "takes no questions"),
        ([said("", PICTURE)], {"model": "vqa"}, 400, "and there is none"),
        ([said("", PICTURE)], {"model": "ocr"}, 400, "is for ocr"),
        ([said("", PICTURE)], {"model": "gpt"}, 404, "there is no model 'gpt' here"),
        ([], {}, 400, "messages: "),
        ([said("", {"type": "video"})], {}, 400, "messages.0.content.1"),
        ([said("", PICTURE)], {"n": 0}, 400, "n: "),
        ([said("", PICTURE)], {"tools": [{"type": "function"}]}, 400, "tools is not something"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    http: TestClient,
    client: FakeClient,
    messages: list[object],
    settings: dict[str, object],
    status: int,
    message: str,
) -> None:
    response = complete(http, *messages, **settings)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]
    assert not client.calls


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.png", "https://a.b/c.png", "ftp://a/b"])
def test_no_picture_is_fetched(http: TestClient, client: FakeClient, url: str) -> None:
    response = complete(http, said("", {"type": "image_url", "image_url": {"url": url}}))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "invalid_image"
    assert "send a data: URL" in error["message"]
    assert not client.calls


def test_settings_that_steer_a_sampling_are_taken(http: TestClient, client: FakeClient) -> None:
    settings = {"temperature": 0, "top_p": 1, "seed": 3, "response_format": {"type": "text"}}
    assert complete(http, said("", PICTURE), **settings).status_code == 200
    assert "temperature" not in client.calls[0][1]


def test_usage_counts_the_tokens_that_were_generated(http: TestClient) -> None:
    # The best caption has three tokens, the closing one with a log-probability of 0 among them; it
    # cannot be told from a filler where there are other captions.
    usage = complete(http, said("is it red?", PICTURE)).json()["usage"]
    assert usage == {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2}
    usage = complete(http, said("", PICTURE), n=2).json()["usage"]
    assert usage["completion_tokens"] == 4


def test_n_is_how_many_answers_are_wanted(http: TestClient, client: FakeClient) -> None:
    answer = complete(http, said("", PICTURE), n=2).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert client.calls[0][1]["num_captions"] == 2


def test_a_limit_of_tokens_is_the_search_s(http: TestClient, client: FakeClient) -> None:
    answer = complete(http, said("is it red?", PICTURE), max_tokens=1).json()
    assert client.calls[0][1]["max_length"] == 1
    assert answer["choices"][0]["finish_reason"] == "length"
    answer = complete(http, said("is it red?", PICTURE), max_completion_tokens=2).json()
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_limit_above_the_model_s_own_is_the_model_s_own(
    http: TestClient, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: object) -> Any:
        async def answer() -> Any:
            client.calls.append(("caption", arguments))
            if "max_length" in arguments:
                raise InvalidOptionError("max_length is 300; the limit is 16")
            return fake_gateway.CAPTIONS

        return answer()

    monkeypatch.setattr(client, "caption", refuse, raising=False)
    assert complete(http, said("", PICTURE), max_tokens=300).status_code == 200
    assert ["max_length" in arguments for _, arguments in client.calls] == [True, False]


def test_a_stream_has_the_same_answer(http: TestClient) -> None:
    whole = complete(http, said("", PICTURE), n=2).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = complete(http, said("", PICTURE), n=2, **options)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["X-Request-ID"] == "0123"
    *events, end = [event.removeprefix("data: ") for event in response.text.strip().split("\n\n")]
    assert end == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    for choice in whole["choices"]:
        parts = [
            part
            for chunk in chunks
            for part in chunk["choices"]
            if part["index"] == choice["index"]
        ]
        text = "".join(part["delta"].get("content", "") for part in parts)
        assert text == choice["message"]["content"]
        assert [part["finish_reason"] for part in parts] == [None, choice["finish_reason"]]
    assert chunks[-1]["usage"] == whole["usage"]


def test_an_error_comes_before_the_stream(http: TestClient, client: FakeClient) -> None:
    client.error = InvalidOptionError("beam_size is 99")
    response = complete(http, said("", PICTURE), stream=True)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
