"""`ofa serve` as a child of the tests: started on free ports, watched, always stopped."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from ofa_server.background import free_ports
from ofa_server.installation import find_installation

START_DEADLINE_S = 300
STOP_DEADLINE_S = 60
OFA = Path(sys.executable).with_name("ofa")
OFA_CLIENT = Path(sys.executable).with_name("ofa-client")

LOG_LINES = 60


def end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline_s:g} s"
        time.sleep(0.1)


@dataclass
class ServeProcess:
    """One `ofa serve`; its output and Triton's are in `log`.

    Its ports are those of gRPC, HTTP (0 for none), metrics and health.
    """

    repository: Path | str
    log: Path
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    arguments: Sequence[str] = ()

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(OFA, "serve", "--repository", self.repository),
                    *(*self.port_arguments, *self.arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def port_arguments(self) -> list[str]:
        flags = ("--grpc-port", "--http-port", "--metrics-port", "--health-port")
        pairs = zip(flags, map(str, self.ports), strict=True)
        return [word for pair in pairs for word in pair]

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    def probe(self, path: str) -> tuple[int, str]:
        """Status and body of the health port's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[3], timeout=60)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def is_ready(self) -> bool:
        return any(line.startswith("ready: ") for line in self.output.splitlines())

    def wait_until_ready(self) -> None:
        wait_until(
            lambda: self.is_ready or self.process.poll() is not None, "ready", START_DEADLINE_S
        )
        assert self.process.poll() is None, f"ofa serve has ended:\n{end_of(self.log)}"

    def wait_until_stopped(self) -> int:
        return self.process.wait(STOP_DEADLINE_S)

    def stop(self) -> None:
        stop(self.process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process in order; one that does not end is killed, and that is an error."""
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(repository: Path, log: Path, arguments: Sequence[str] = ()) -> Iterator[ServeProcess]:
    server = ServeProcess(repository, log, arguments=arguments)
    server.start()
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def descendants(pid: int) -> dict[int, list[str]]:
    """Command lines of all processes below a process, zombies left out."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found, generation = dict[int, list[str]](), {pid}
    while generation := {child for child, parent in parents.items() if parent in generation}:
        for child in generation:
            # It may have ended since.
            with suppress(FileNotFoundError, ProcessLookupError):
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
    return found


def stub_pid(server: ServeProcess, instance: str) -> int:
    """The process that runs one instance of a model (`caption_preprocess_0_0`)."""
    [pid] = [pid for pid, command in descendants(server.process.pid).items() if instance in command]
    return pid


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@dataclass
class BareTriton:
    """A tritonserver without `ofa serve`, for models that are no ensemble or do not load."""

    address: str
    metrics_port: int
    log: Path


@contextmanager
def bare_triton(
    repository: Path, scratch: Path, python_bin: Path, arguments: Sequence[str] = ()
) -> Iterator[BareTriton]:
    """Runs Triton over models of which some may fail to load.

    Args:
        repository: folder of models.
        scratch: folder for backends and log.
        python_bin: folder of the `python3` whose packages the models get.
        arguments: of Triton, beside these.
    """
    installation = find_installation()
    environment = installation.environment()
    environment["PATH"] = f"{python_bin}{os.pathsep}{environment['PATH']}"
    (scratch / "backends").mkdir()
    backends = installation.prepare_backends(scratch / "backends")
    grpc_port, http_port, metrics_port = free_ports(3)
    command = [
        installation.binary,
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--disable-auto-complete-config",
        "--exit-on-error=false",
        "--strict-readiness=false",
        *(f"--{kind}-address=127.0.0.1" for kind in ("grpc", "http", "metrics")),
        f"--grpc-port={grpc_port}",
        f"--http-port={http_port}",
        f"--metrics-port={metrics_port}",
        *arguments,
    ]
    triton = BareTriton(f"127.0.0.1:{grpc_port}", metrics_port, scratch / "triton.log")
    with triton.log.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        with grpcclient.InferenceServerClient(triton.address) as client:
            wait_until(
                lambda: process.poll() is not None or is_live(client), "Triton", START_DEADLINE_S
            )
        assert process.poll() is None, f"Triton has ended:\n{end_of(triton.log)}"
        yield triton
    finally:
        stop(process)


def is_live(client: grpcclient.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_live(client_timeout=5))
    except InferenceServerException:
        return False
