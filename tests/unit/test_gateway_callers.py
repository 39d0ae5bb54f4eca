"""The token that callers of the gateway need, where it asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ofa_server.errors import ServerError
from ofa_server.gateway.tasks import ROUTES
from tests.unit.fake_gateway import FakeClient, fake_gateway

TOKEN = "t0ken-" + "x" * 20
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BODY = {"image": "AAAA"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Tokens for two callers."""
    file = tmp_path / "tokens"
    file.write_text(f"another\n\n  {TOKEN}\n")
    return file


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer t\u00f6ken"},
        {"X-Authorization": f"Bearer {TOKEN}"},
    ],
    ids=str,
)
def test_without_the_token_nothing_is_asked(file: Path, headers: dict[str, str]) -> None:
    client = FakeClient()
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    with TestClient(fake_gateway(client, callers_token_file=file)) as http:
        for path in ("/v1/chat/completions", "/v1/nothing", *(route.path for route in ROUTES)):
            response = http.post(path, json=BODY, headers=encoded)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            error = response.json()["error"]
            assert error["code"] == "invalid_api_key"
            assert TOKEN not in response.text
        assert http.get("/v1/models", headers=encoded).status_code == 401
    assert not client.calls


@pytest.mark.parametrize("token", [TOKEN, "another"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_token_lets_in(file: Path, token: str, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {token}"}
    with TestClient(fake_gateway(callers_token_file=file)) as http:
        assert http.post("/v1/captions", json=BODY, headers=headers).status_code == 200
        assert http.get("/v1/models", headers=headers).status_code == 200


def test_a_second_credential_makes_none(file: Path) -> None:
    both = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer another")]
    with TestClient(fake_gateway(callers_token_file=file)) as http:
        assert http.get("/v1/models", headers=both).status_code == 401


def test_probes_figures_and_the_page_stay_open(file: Path) -> None:
    with TestClient(fake_gateway(callers_token_file=file)) as http:
        for path in ("/healthz", "/readyz", "/metrics", "/", "/openapi.json"):
            assert http.get(path).status_code == 200
        http.get("/v1/models")
        assert 'outcome="invalid_api_key"' in http.get("/metrics").text


def test_tokens_come_and_go_without_a_restart(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(fake_gateway(callers_token_file=file)) as http:
        file.write_text("a new one")
        assert http.get("/v1/models", headers=BEARER).status_code == 401
        new = {"Authorization": "Bearer a-new-one"}
        file.write_text("a-new-one\n")
        assert http.get("/v1/models", headers=new).status_code == 200
        file.unlink()
        assert http.get("/v1/models", headers=new).status_code == 401
    assert "tokens cannot be read: No such file" in caplog.text


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_a_file_without_a_token_is_refused_at_the_start(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ServerError, match=r"tokens (cannot be read|holds no token)"):
        fake_gateway(callers_token_file=file)


def test_a_line_that_no_caller_can_send_is_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# of Alice\ns3cret\n")
    with pytest.raises(ServerError, match=r"tokens holds a line of several words"):
        fake_gateway(callers_token_file=file)
