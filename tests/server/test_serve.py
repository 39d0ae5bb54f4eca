"""`ofa serve` as a process: it starts only what can run, watches it, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from ofa_server.background import free_ports
from tests.server.echo_repository import write_echo_repository
from tests.server.processes import (
    OFA,
    START_DEADLINE_S,
    STOP_DEADLINE_S,
    ServeProcess,
    descendants,
    is_alive,
    serving,
    stop,
    stub_pid,
    wait_until,
)
from tests.server.requests import caption, encoded, picture, request_inputs

IMAGE = encoded(picture(0))


@pytest.fixture
def echo_repository(tmp_path: Path) -> Path:
    return write_echo_repository(tmp_path / "repository")


def shared_memory_of(server: ServeProcess) -> set[Path]:
    """What the processes below `ofa serve` have open in /dev/shm."""
    opened = set()
    for pid in descendants(server.process.pid):
        targets = [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()]
        opened |= {target for target in targets if target.parent == Path("/dev/shm")}
    return opened


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    echo_repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with serving(echo_repository, tmp_path / "server.log") as server:
        children = descendants(server.process.pid)
        regions = shared_memory_of(server)
        assert len(children) == 3  # Triton and two stubs
        assert len(regions) == 3  # a region for each stub, and the lock
        server.process.send_signal(number)
        assert server.wait_until_stopped() == 0
        assert server.output.splitlines()[-1] == "stopped"
        assert not [pid for pid in children if is_alive(pid)]
        assert not [region for region in regions if region.exists()]


def test_every_ensemble_of_a_repository_is_served(echo_repository: Path, tmp_path: Path) -> None:
    write_echo_repository(echo_repository, name="second")
    with serving(echo_repository, tmp_path / "server.log") as server:
        assert "ready: echo, second on gRPC 127.0.0.1:" in server.output
        with grpcclient.InferenceServerClient(server.grpc_address) as client:
            for name in ("echo", "second"):
                answer = client.infer(name, request_inputs(image=b"hello"), client_timeout=60)
                assert answer.as_numpy("captions").tolist() == [[b"hello"]]


def test_a_signal_ends_a_start_too(echo_repository: Path, tmp_path: Path) -> None:
    slow = "import time\ntime.sleep(20)\n"
    (echo_repository / "echo_member" / "1" / "model.py").write_text(slow)
    server = ServeProcess(echo_repository, tmp_path / "server.log")
    server.start()
    try:
        wait_until(lambda: len(descendants(server.process.pid)) == 3, "stubs", START_DEADLINE_S)
        server.process.terminate()
        assert server.wait_until_stopped() == 0
        assert not server.is_ready
    finally:
        server.stop()


def test_a_process_whose_name_is_no_text_is_no_obstacle(
    echo_repository: Path, tmp_path: Path
) -> None:
    """The kernel cuts names after 15 bytes, here in the midst of a character."""
    program = tmp_path / "aaaaaaaaaaaaa汉"
    program.symlink_to(shutil.which("sleep") or "")
    other = subprocess.Popen([program, str(START_DEADLINE_S)])
    try:
        stat = Path(f"/proc/{other.pid}/stat")
        wait_until(lambda: b"aaaaaaaaaaaaa" in stat.read_bytes(), "its name", STOP_DEADLINE_S)
        with pytest.raises(UnicodeDecodeError):
            stat.read_text("utf-8")
        with serving(echo_repository, tmp_path / "server.log") as server:
            assert server.is_ready
    finally:
        stop(other)


@pytest.mark.parametrize("instance", ["echo_member_0_0", "echo_member_0_1"])
def test_a_dead_stub_ends_it_with_a_sentence(
    echo_repository: Path, tmp_path: Path, instance: str
) -> None:
    with serving(echo_repository, tmp_path / "server.log") as server:
        children = descendants(server.process.pid)
        os.kill(stub_pid(server, instance), signal.SIGKILL)
        assert server.wait_until_stopped() == 1
        assert f"ofa serve: the Python process of {instance} has died" in server.output
        assert not [pid for pid in children if is_alive(pid)]


def test_a_dead_generator_ends_it_with_a_sentence(repository: Path, tmp_path: Path) -> None:
    with serving(repository, tmp_path / "server.log") as server:
        os.kill(stub_pid(server, "caption_generator_0_0"), signal.SIGKILL)
        assert server.wait_until_stopped() == 1
        assert "ofa serve: the Python process of caption_generator_0_0 has died" in server.output


def test_a_dead_triton_ends_it_with_a_sentence(echo_repository: Path, tmp_path: Path) -> None:
    with serving(echo_repository, tmp_path / "server.log") as server:
        children = descendants(server.process.pid)
        [triton] = [pid for pid, command in children.items() if "tritonserver" in command[0]]
        os.kill(triton, signal.SIGKILL)
        assert server.wait_until_stopped() == 1
        assert "ofa serve: Triton has died (status -9)" in server.output
        assert not [pid for pid in children if is_alive(pid)]


def test_a_killed_watcher_takes_triton_along(echo_repository: Path, tmp_path: Path) -> None:
    with serving(echo_repository, tmp_path / "server.log") as server:
        children = descendants(server.process.pid)
        regions = shared_memory_of(server)
        server.process.kill()
        server.process.wait()
        wait_until(
            lambda: not any(is_alive(pid) for pid in children), "end of Triton", STOP_DEADLINE_S
        )
    # Nobody was left to remove the lock; the next start does.
    assert any(region.exists() for region in regions)
    with serving(echo_repository, tmp_path / "second.log"):
        assert not [region for region in regions if region.exists()]


def test_overload_and_late_requests_are_no_death(
    server: ServeProcess, client: grpcclient.InferenceServerClient
) -> None:
    def send(number: int) -> str:
        timeout_us = 1 if number % 10 == 0 else None
        try:
            client.infer("caption", request_inputs(image=IMAGE), timeout=timeout_us)
        except InferenceServerException as error:
            return f"{error.status()} {error.message()}"
        return "answered"

    with ThreadPoolExecutor(200) as pool:
        outcomes = list(pool.map(send, range(200)))
    assert any("StatusCode.UNAVAILABLE" in o and "maximum queue size" in o for o in outcomes)
    assert any("StatusCode.UNAVAILABLE" in o and "timeout expired" in o for o in outcomes)
    assert "answered" in outcomes
    assert server.process.poll() is None
    assert caption(client, IMAGE).captions[0]


def failed_start(repository: Path, *arguments: str, **environment: str) -> str:
    """The one sentence that a start ends with."""
    completed = subprocess.run(
        [OFA, "serve", "--repository", repository, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=START_DEADLINE_S,
        check=False,
    )
    assert completed.returncode == 1
    last = completed.stderr.splitlines()[-1]
    assert last.startswith("ofa serve: ")
    return last


def test_a_second_server_on_the_same_ports_is_refused(
    server: ServeProcess, echo_repository: Path
) -> None:
    assert failed_start(echo_repository, *server.port_arguments) == (
        f"ofa serve: the gRPC port {server.ports[0]} on 127.0.0.1 cannot be used: "
        "Address already in use"
    )


def test_a_model_that_cannot_be_loaded_is_reported(repository: Path, tmp_path: Path) -> None:
    broken = tmp_path / "repository"
    shutil.copytree(repository, broken)
    (broken / "caption_preprocess" / "1" / "vocab.json").unlink()
    server = ServeProcess(broken, tmp_path / "server.log")
    server.start()
    try:
        assert server.wait_until_stopped() == 1
        assert "ofa serve: Triton ended with status 1 before it was ready" in server.output
        assert "vocab.json is missing" in server.output
    finally:
        server.stop()


def test_a_damaged_network_is_reported_and_not_served(repository: Path, tmp_path: Path) -> None:
    broken = tmp_path / "repository"
    shutil.copytree(repository, broken)
    with (broken / "caption_generator" / "1" / "model.pt").open("r+b") as file:
        # In the middle there are weights, which would be loaded without a word.
        file.seek(0, os.SEEK_END)
        file.seek(file.tell() // 2)
        file.write(bytes(range(64)))
    ports = ServeProcess(broken, tmp_path / "unused.log").port_arguments
    assert "model.pt is damaged" in failed_start(broken, *ports)


def test_a_failed_warm_up_is_reported(tmp_path: Path) -> None:
    failing = (
        "class TritonPythonModel:\n    def execute(self, requests):\n        raise ValueError\n"
    )
    repository = write_echo_repository(tmp_path / "repository", failing)
    ports = ServeProcess(repository, tmp_path / "unused.log").port_arguments
    assert failed_start(repository, *ports).startswith("ofa serve: the warm-up of echo failed: ")


def test_a_missing_libpython_is_reported_and_not_waited_for(
    echo_repository: Path, tmp_path: Path
) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\nprintf '\\tlibpython3.11.so.1.0 => not found\\n'\n")
    ldd.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ports = ServeProcess(echo_repository, tmp_path / "unused.log").port_arguments
    assert "libpython3.11.so.1.0, not found" in failed_start(echo_repository, *ports, PATH=path)


def test_it_gives_up_at_its_deadline(echo_repository: Path) -> None:
    names = ("grpc_port", "http_port", "metrics_port", "health_port")
    ports = dict(zip(names, free_ports(4), strict=True))
    program = (
        "from pathlib import Path\n"
        "from ofa_server.serve import serve\n"
        "from ofa_server.serve_settings import ServeSettings\n"
        f"serve(ServeSettings(Path({str(echo_repository)!r}), start_deadline_s=0.1, **{ports}))\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=START_DEADLINE_S,
        check=False,
    )
    assert "ServerError: Triton was not ready within 0.1 s" in completed.stderr
