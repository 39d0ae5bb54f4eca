"""`ofa gateway` as a process, in front of a Triton that answers when the test lets it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx2
import pytest
from tritonclient.grpc import service_pb2

from ofa_server.background import free_ports
from tests.server.gateway_process import GatewayProcess, gateway_serving
from tests.server.processes import OFA, STOP_DEADLINE_S, wait_until
from tests.unit.listing_triton import CAPTION, ListingTriton, running
from tests.unit.scripted_triton import captions_answer, make_response

BODY = json.dumps({"image": "AAAA"}).encode()
TIMEOUT_S = 60


class PatientTriton(ListingTriton):
    """Says when it is asked for a caption, and answers when it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = {"caption": CAPTION}
        self.asked, self.may_go_on, self.cancelled = (threading.Event() for _ in range(3))

    def ModelInfer(  # noqa: N802 - the name is the protocol's
        self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        context.add_callback(self.cancelled.set)
        self.asked.set()
        self.may_go_on.wait(TIMEOUT_S)
        return make_response(captions_answer(["a red apple"], [-0.5], [[-0.5]]), request.id)


@pytest.fixture
def triton() -> Iterator[PatientTriton]:
    triton = PatientTriton()
    with running(triton):
        yield triton
        triton.may_go_on.set()


@pytest.fixture
def gateway(triton: PatientTriton, tmp_path: Path) -> Iterator[GatewayProcess]:
    with gateway_serving(triton.address, tmp_path / "gateway.log") as gateway:
        yield gateway


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_request_under_way_is_answered_before_the_gateway_stops(
    gateway: GatewayProcess, triton: PatientTriton
) -> None:
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(
            httpx2.post,
            f"{gateway.url}/v1/captions",
            content=BODY,
            headers={"content-type": "application/json"},
            timeout=TIMEOUT_S,
        )
        assert triton.asked.wait(TIMEOUT_S)
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(gateway.port), "closed port", TIMEOUT_S)
        assert gateway.process.poll() is None
        triton.may_go_on.set()
        assert answer.result().json()["captions"] == [{"text": "a red apple", "score": -0.5}]
    assert gateway.process.wait(STOP_DEADLINE_S) == 0
    assert gateway.output.endswith("stopped\n")


def test_a_caller_who_hangs_up_takes_the_call_to_the_server_along(
    gateway: GatewayProcess, triton: PatientTriton
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        head = f"POST /v1/captions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BODY)}\r\n"
        caller.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + BODY)
        assert triton.asked.wait(TIMEOUT_S)
        assert not triton.cancelled.is_set()
    # Well before the request's own deadline, which would end the call as well.
    assert triton.cancelled.wait(TIMEOUT_S / 4)
    assert httpx2.get(f"{gateway.url}/healthz").status_code == 200


def test_a_refused_body_is_not_read_to_its_end(gateway: GatewayProcess) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        connection.sendall(
            b"POST /v1/captions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000000000\r\n\r\n{"
        )
        with connection.makefile("rb") as answer:
            assert b" 413 " in answer.readline()
            assert answer.read().endswith(b"}")  # which ends when the gateway hangs up


def test_without_a_server_the_gateway_lives_and_is_not_ready(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with gateway_serving(address, tmp_path / "gateway.log") as gateway:
        assert httpx2.get(f"{gateway.url}/healthz").status_code == 200
        for response in (
            httpx2.get(f"{gateway.url}/readyz", timeout=TIMEOUT_S),
            httpx2.get(f"{gateway.url}/v1/models", timeout=TIMEOUT_S),
            httpx2.post(f"{gateway.url}/v1/captions", files={"image": b"?"}, timeout=TIMEOUT_S),
        ):
            assert response.status_code == 503
            assert response.headers["Retry-After"]
            assert address not in response.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "{taken}"], "the HTTP port {taken} on 127.0.0.1 cannot be used"),
        (["--server", "http://localhost:8001"], "server must be HOST:PORT"),
        (["--token-file", "/dev/null"], "/dev/null is empty"),
        (["--root-certificates", "nothing"], "[Errno 2] No such file or directory: 'nothing'"),
        (["--callers-token-file", "nothing"], "nothing cannot be read: No such file"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(arguments: list[str], message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [OFA, "gateway", *(each.format(taken=port) for each in arguments)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"ofa gateway: {message.format(taken=port)}")
