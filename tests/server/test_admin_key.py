"""What controls a server needs the key; what clients do needs none."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.server.echo_repository import write_echo_repository
from tests.server.processes import ServeProcess, serving
from tests.server.requests import request_inputs

KEY = "c2VjcmV0+c2Vj/cmV0LQ=="
GRPC_HEADER, HTTP_HEADER = "triton-grpc-protocol-ofa-admin-key", "ofa-admin-key"

#: What is restricted, by gRPC and by HTTP.
CALLS = (
    "get_model_repository_index",
    "get_system_shared_memory_status",
    "get_cuda_shared_memory_status",
    "get_trace_settings",
    "get_log_settings",
)
PAGES = (
    ("POST", "repository/index"),
    ("POST", "repository/models/echo/load"),
    ("POST", "repository/models/echo/unload"),
    ("GET", "systemsharedmemory/status"),
    ("GET", "cudasharedmemory/status"),
    ("GET", "trace/setting"),
    ("GET", "logging"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("admin_key")
    (folder / "key").write_text(f"{KEY}\n")
    repository = write_echo_repository(folder / "repository")
    arguments = ["--admin-key-file", str(folder / "key")]
    with serving(repository, folder / "server.log", arguments) as running:
        yield running


@pytest.fixture
def client(server: ServeProcess) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(server.grpc_address) as connected:
        yield connected


def status(server: ServeProcess, method: str, page: str, headers: dict[str, str]) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.ports[1]}/v2/{page}", headers=headers, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("headers", [{}, {GRPC_HEADER: KEY + "="}, {HTTP_HEADER: KEY}])
@pytest.mark.parametrize("call", CALLS)
def test_grpc_without_the_right_key_is_refused(
    client: grpcclient.InferenceServerClient, call: str, headers: dict[str, str]
) -> None:
    with pytest.raises(InferenceServerException, match="This protocol is restricted"):
        getattr(client, call)(headers=headers)


@pytest.mark.parametrize("call", CALLS)
def test_grpc_with_the_key_is_answered(client: grpcclient.InferenceServerClient, call: str) -> None:
    getattr(client, call)(headers={GRPC_HEADER: KEY})


@pytest.mark.parametrize(("method", "page"), PAGES)
def test_http_needs_the_key(server: ServeProcess, method: str, page: str) -> None:
    assert status(server, method, page, {}) == 403
    assert status(server, method, page, {HTTP_HEADER: KEY + "="}) == 403
    assert status(server, method, page, {HTTP_HEADER: KEY}) != 403


def test_clients_need_none(server: ServeProcess, client: grpcclient.InferenceServerClient) -> None:
    answer = client.infer("echo", request_inputs(image=b"hello"), client_timeout=60)
    assert answer.as_numpy("captions").tolist() == [[b"hello"]]
    assert client.is_server_ready()
    assert client.get_model_metadata("echo").name == "echo"
    assert client.get_model_config("echo").config.name == "echo"
    listed = [model.name for model in client.get_inference_statistics().model_stats]
    assert listed == ["echo", "echo_member"]
    for page in ("health/ready", "models/echo", "models/echo/config", "models/stats"):
        assert status(server, "GET", page, {}) == 200


def test_the_key_is_in_no_log(server: ServeProcess) -> None:
    assert KEY not in server.output


def test_without_a_key_file_the_door_is_closed(tmp_path: Path) -> None:
    repository = write_echo_repository(tmp_path / "repository")
    with (
        serving(repository, tmp_path / "server.log") as server,
        grpcclient.InferenceServerClient(server.grpc_address) as client,
    ):
        for key in ("", KEY):
            with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                client.get_model_repository_index(headers={GRPC_HEADER: key})
        assert status(server, "POST", "repository/index", {HTTP_HEADER: ""}) == 403
