"""`ofa serve` for the time of a `with` block: for programs that need a server of their own."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ofa_server.errors import ServerError

#: More than `ofa serve` allows Triton for ending its requests.
_STOP_TIMEOUT_S = 60
_POLL_INTERVAL_S = 0.5
_NUM_LOG_LINES = 15
_PORTS = range(20_000, 32_768)


@contextmanager
def running_server(
    repository: Path, log: Path, on_wait: Callable[[float], None] = lambda _: None
) -> Iterator[str]:
    """Starts a server on free loopback ports, and stops it at the end of the block.

    Args:
        repository: folder of models, as `ofa export` writes it.
        log: file for everything that `ofa serve` and Triton say.
        on_wait: told the seconds since the start, twice a second until the server is ready.

    Yields:
        HOST:PORT of the gRPC port, once the server is ready.

    Raises:
        ServerError: the server has ended before it was ready.
    """
    grpc_port, metrics_port, health_port = free_ports(3)
    command = [
        *(str(Path(sys.executable).with_name("ofa")), "serve", "--repository", str(repository)),
        *("--grpc-port", str(grpc_port), "--http-port", "0"),
        *("--metrics-port", str(metrics_port), "--health-port", str(health_port)),
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as log_file:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_ready(server, log, on_wait)
        yield f"127.0.0.1:{grpc_port}"
    finally:
        server.terminate()
        try:
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_ready(
    server: subprocess.Popen[bytes], log: Path, on_wait: Callable[[float], None]
) -> None:
    start = time.monotonic()
    # No deadline: `ofa serve` has one of its own, and ends when it is over.
    while True:
        has_ended = server.poll() is not None
        lines = log.read_text(errors="replace").splitlines()
        if has_ended:
            last_lines = "\n".join(lines[-_NUM_LOG_LINES:])
            raise ServerError(f"the server did not start; the end of {log}:\n{last_lines}")
        if any(line.startswith("ready: ") for line in lines):
            return
        on_wait(time.monotonic() - start)
        time.sleep(_POLL_INTERVAL_S)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on.

    They are below those that Linux gives to connections: one of these could be taken for a
    connection before the server listens on it.

    Raises:
        ServerError: there are not as many.
    """
    with ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise ServerError(f"there are no {count} free ports")
