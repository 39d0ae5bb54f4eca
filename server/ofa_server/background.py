"""`ofa serve` for the time of a `with` block: for programs that need a server of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ofa_server.errors import ServerError

#: More than `ofa serve` allows Triton for ending its requests.
_STOP_TIMEOUT_S = 60


@contextmanager
def running_server(repository: Path, log: Path) -> Iterator[str]:
    """Starts a server on free loopback ports, and stops it at the end of the block.

    Args:
        repository: folder of models, as `ofa export` writes it.
        log: file for everything that Triton and `ofa serve` say.

    Yields:
        HOST:PORT of the gRPC port, once the server is ready.

    Raises:
        ServerError: the server has ended before it was ready.
    """
    grpc_port, http_port, metrics_port = _free_ports(3)
    command = [
        *(str(Path(sys.executable).with_name("ofa")), "serve", "--repository", str(repository)),
        *("--grpc-port", str(grpc_port), "--http-port", str(http_port)),
        *("--metrics-port", str(metrics_port)),
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as log_file:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log_file, text=True
        )
    try:
        _wait_until_ready(server, log)
        yield f"127.0.0.1:{grpc_port}"
    finally:
        server.terminate()
        try:
            server.communicate(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def _wait_until_ready(server: subprocess.Popen[str], log: Path) -> None:
    # `ofa serve` has a deadline of its own for becoming ready, and its output ends with it.
    for line in server.stdout or ():
        if line.startswith("ready"):
            return
    last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ServerError(f"the server did not start; the end of {log}:\n{last_lines}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
