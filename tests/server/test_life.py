"""The life of a server as probes and clients see it: starting, ready, draining, dead."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from ofa_server.background import free_ports
from tests.server.echo_repository import MODEL, write_echo_repository
from tests.server.processes import (
    START_DEADLINE_S,
    STOP_DEADLINE_S,
    ServeProcess,
    descendants,
    is_alive,
    is_live,
    serving,
    stub_pid,
    wait_until,
)
from tests.server.requests import request_inputs

#: Loads once the file `load` is there, says by the file `asked` that it was asked, and answers
#: once `answer` is there.
HELD_MODEL = MODEL.replace(
    "    def execute(self, requests):\n",
    """\
    def initialize(self, args):
        self.wait_for("load")

    def wait_for(self, name):
        import os, time
        while not os.path.exists(os.path.join("FOLDER", name)):
            time.sleep(0.01)

    def execute(self, requests):
        open("FOLDER/asked", "w").close()
        self.wait_for("answer")
""",
)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[ServeProcess]:
    """A server that has been started and waits for the files `load` and `answer`."""
    model = HELD_MODEL.replace("FOLDER", str(tmp_path))
    repository = write_echo_repository(tmp_path / "repository", model)
    server = ServeProcess(repository, tmp_path / "server.log", arguments=["--drain-seconds", "600"])
    server.start()
    try:
        yield server
    finally:
        # Whatever the test has left undone must not hold up its end.
        (tmp_path / "load").touch()
        (tmp_path / "answer").touch()
        server.process.terminate()
        server.stop()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def echo(client: grpcclient.InferenceServerClient) -> object:
    answer = client.infer("echo", request_inputs(image=b"hello"), client_timeout=60)
    return answer.as_numpy("captions").tolist()


def test_probes_follow_it_from_start_to_stop(held: ServeProcess, tmp_path: Path) -> None:
    wait_until(lambda: listens(held.ports[3]), "health port", START_DEADLINE_S)
    assert held.probe("/live")[0] == 200
    assert held.probe("/ready")[0] == 503
    assert not listens(held.ports[0])  # Triton is loading

    (tmp_path / "load").touch()
    with grpcclient.InferenceServerClient(held.grpc_address) as client:
        wait_until(lambda: is_live(client) and client.is_server_ready(), "Triton", START_DEADLINE_S)
        # Triton is ready; no answer has come back, and the server is as busy as can be.
        assert held.probe("/ready")[0] == 503
        assert held.probe("/live")[0] == 200

        (tmp_path / "answer").touch()
        held.wait_until_ready()
        assert held.probe("/ready") == (
            200,
            '{"status": "ready", "reason": "every model has answered"}\n',
        )

        (tmp_path / "answer").unlink()
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(echo, client)
            held.process.terminate()
            wait_until(lambda: "draining: " in held.output, "drain", STOP_DEADLINE_S)
            status, body = held.probe("/ready")
            assert status == 503
            assert json.loads(body) == {
                "status": "not ready",
                "reason": "the server was told to stop",
            }
            assert held.probe("/live")[0] == 200
            assert client.is_server_ready()
            (tmp_path / "answer").touch()
            assert late.result(60) == [[b"hello"]]
        # One that comes during the drain is answered, too.
        assert echo(client) == [[b"hello"]]

    held.process.send_signal(signal.SIGINT)
    assert held.wait_until_stopped() == 0
    assert [line for line in held.output.splitlines() if line.startswith(("stop", "drain"))] == [
        "draining: not ready any more, answering for 600 s or until the next signal",
        "stopping: requests under way have 30 s to end",
        "stopped",
    ]


def test_a_drain_ends_by_itself(tmp_path: Path) -> None:
    repository = write_echo_repository(tmp_path / "repository")
    with serving(repository, tmp_path / "server.log", ["--drain-seconds", "0.2"]) as server:
        server.process.terminate()
        assert server.wait_until_stopped() == 0
        assert "draining: not ready any more, answering for 0.2 s" in server.output


def test_signals_do_not_cut_the_stop_short(tmp_path: Path) -> None:
    """An impatient operator's Ctrl-C, or Kubernetes' second SIGTERM."""
    model = HELD_MODEL.replace("FOLDER", str(tmp_path))
    repository = write_echo_repository(tmp_path / "repository", model)
    (tmp_path / "load").touch()
    (tmp_path / "answer").touch()
    with (
        serving(repository, tmp_path / "server.log", ["--drain-seconds", "0.2"]) as server,
        grpcclient.InferenceServerClient(server.grpc_address) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        children = descendants(server.process.pid)
        assert echo(client) == [[b"hello"]]
        (tmp_path / "answer").unlink()
        (tmp_path / "asked").unlink()
        late = pool.submit(echo, client)
        wait_until((tmp_path / "asked").exists, "request", START_DEADLINE_S)
        server.process.terminate()
        wait_until(lambda: "stopping: " in server.output, "end of the drain", STOP_DEADLINE_S)
        for number in (signal.SIGTERM, signal.SIGINT):
            server.process.send_signal(number)
        (tmp_path / "answer").touch()
        assert late.result(60) == [[b"hello"]]
        assert server.wait_until_stopped() == 0
        assert server.output.splitlines()[-1] == "stopped"
        assert not [pid for pid in children if is_alive(pid)]


def test_a_death_shows_on_the_probes_also_during_a_drain(tmp_path: Path) -> None:
    repository = write_echo_repository(tmp_path / "repository")
    with serving(repository, tmp_path / "server.log", ["--drain-seconds", "600"]) as server:
        server.process.terminate()
        wait_until(lambda: "draining: " in server.output, "drain", STOP_DEADLINE_S)
        assert server.probe("/live")[0] == 200
        os.kill(stub_pid(server, "echo_member_0_1"), signal.SIGKILL)
        # Triton takes its five seconds to give the dead process's model up.
        wait_until(lambda: server.probe("/live")[0] == 503, "death on /live", 4)
        assert server.probe("/ready")[0] == 503
        assert server.wait_until_stopped() == 1
        assert "the Python process of echo_member_0_1 has died" in server.output


def test_grpc_alone_may_stay_on_loopback(tmp_path: Path) -> None:
    """127.0.0.2 stands for the address that others reach."""
    repository = write_echo_repository(tmp_path / "repository")
    hosts = ["--host", "127.0.0.2", "--grpc-host", "127.0.0.1"]
    with serving(repository, tmp_path / "server.log", hosts) as server:
        grpc_port, *others = server.ports
        assert f"gRPC 127.0.0.1:{grpc_port}, " in server.output
        assert listens(grpc_port)
        assert not listens(grpc_port, "127.0.0.2")
        for port in others:
            assert listens(port, "127.0.0.2")
            assert not listens(port)
        with grpcclient.InferenceServerClient(server.grpc_address) as client:
            assert echo(client) == [[b"hello"]]


def test_without_http_everything_else_works(tmp_path: Path) -> None:
    repository = write_echo_repository(tmp_path / "repository")
    grpc_port, metrics_port, health_port = free_ports(3)
    server = ServeProcess(
        repository, tmp_path / "server.log", [grpc_port, 0, metrics_port, health_port]
    )
    server.start()
    try:
        server.wait_until_ready()
        assert "HTTP" not in next(line for line in server.output.splitlines() if "ready: " in line)
        assert "Started HTTPService" not in server.output
        assert server.probe("/ready")[0] == 200
        assert server.probe("/metrics")[0] == 404
        assert listens(metrics_port)
        with grpcclient.InferenceServerClient(server.grpc_address) as client:
            assert echo(client) == [[b"hello"]]
    finally:
        server.stop()
