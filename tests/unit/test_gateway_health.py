"""Probes, the list of models, figures, and what a browser loads."""

from __future__ import annotations

import json
import re

import pytest
from starlette.testclient import TestClient

from ofa_client import OverloadedError
from tests.unit.fake_gateway import FakeCatalogue, FakeClient, fake_gateway


def test_the_gateway_lives_whatever_becomes_of_the_server() -> None:
    catalogue = FakeCatalogue("caption")
    with TestClient(fake_gateway(catalogue=catalogue)) as http:
        assert http.get("/readyz").json() == {"status": "ready"}
        catalogue.ready = False
        response = http.get("/readyz")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert http.get("/healthz").json() == {"status": "live"}


def test_models_are_listed_with_what_they_do() -> None:
    with TestClient(fake_gateway(catalogue=FakeCatalogue("caption", "caption_zh", "ocr"))) as http:
        listed = http.get("/v1/models").json()
        assert listed["object"] == "list"
        assert [
            (model["id"], model["task"], model["language"], model["path"])
            for model in listed["data"]
        ] == [
            ("caption", "caption", "en", "/v1/captions"),
            ("caption_zh", "caption", "zh", "/v1/captions"),
            ("ocr", "ocr", "en", "/v1/readings"),
            ("ofa", "chat", "en", "/v1/chat/completions"),
        ]
        assert http.get("/v1/models/ocr").json() == listed["data"][2]
        assert http.get("/v1/models/nothing").status_code == 404


def test_without_captions_and_answers_there_is_no_chat() -> None:
    with TestClient(fake_gateway(catalogue=FakeCatalogue("ocr"))) as http:
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["ocr"]


def test_requests_are_counted_by_route_and_outcome() -> None:
    client = FakeClient()
    with TestClient(fake_gateway(client)) as http:
        for _ in range(2):
            http.post("/v1/captions", json={"image": "AAAA"})
        client.error = OverloadedError("busy")
        http.post("/v1/captions", json={"image": "AAAA"})
        http.get("/somewhere")
        figures = http.get("/metrics").text
    counts = dict(re.findall(r"^ofa_gateway_requests_total\{(.+)\} (.+)$", figures, re.MULTILINE))
    assert counts == {
        'outcome="ok",route="/v1/captions"': "2.0",
        'outcome="overloaded",route="/v1/captions"': "1.0",
        'outcome="not_found",route="other"': "1.0",
    }
    assert 'ofa_gateway_request_seconds_count{route="/v1/captions"} 3.0' in figures
    assert "ofa_gateway_requests_in_progress 1.0" in figures


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_browser_finds_all_that_it_loads_on_this_server(path: str) -> None:
    with TestClient(fake_gateway()) as http:
        html = http.get(path).text
        loaded = re.findall(r"""<(?:script|link|img)[^>]*?(?:src|href)=["']([^"']+)""", html)
        assert loaded
        for address in loaded:
            assert address.startswith("data:") or http.get(address).status_code == 200


def test_the_page_may_reach_nothing_but_this_server() -> None:
    with TestClient(fake_gateway()) as http:
        policy = http.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


def test_the_openapi_page_describes_both_forms_of_a_body() -> None:
    with TestClient(fake_gateway()) as http:
        paths = http.get("/openapi.json").json()["paths"]
    contents = paths["/v1/answers"]["post"]["requestBody"]["content"]
    assert contents.keys() == {"multipart/form-data", "application/json"}
    for content in contents.values():
        assert set(content["schema"]["required"]) == {"image", "question"}
    chat = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
    assert "$ref" not in json.dumps([contents, chat])
    form = contents["multipart/form-data"]["schema"]["properties"]
    assert form["image"] == {"type": "string", "format": "binary"}
