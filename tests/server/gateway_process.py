"""`ofa gateway` as a child of the tests: started on a free port, always stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ofa_server.background import free_ports
from tests.server.processes import (
    OFA,
    START_DEADLINE_S,
    end_of,
    stop,
    wait_until,
)


@dataclass
class GatewayProcess:
    """One `ofa gateway`; its output is in `log`."""

    server: str
    log: Path
    arguments: Sequence[str] = ()
    port: int = field(default_factory=lambda: free_ports(1)[0])

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(OFA, "gateway", "--server", self.server, "--port", str(self.port)),
                    *self.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        wait_until(
            lambda: f"ready: {self.url}" in self.output or self.process.poll() is not None,
            "gateway",
            START_DEADLINE_S,
        )
        assert self.process.poll() is None, f"ofa gateway has ended:\n{end_of(self.log)}"

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        stop(self.process)


@contextmanager
def gateway_serving(
    server: str, log: Path, arguments: Sequence[str] = ()
) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(server, log, arguments)
    gateway.start()
    try:
        gateway.wait_until_ready()
        yield gateway
    finally:
        gateway.stop()
