"""The Envoy that ships, as a child of the tests: in front of a Triton, with secrets made up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from ofa_server.background import free_ports
from tests.server.processes import (
    START_DEADLINE_S,
    end_of,
    stop,
    wait_until,
)
from tests.unit.certificates import Authority

ROOT = Path(__file__).parents[2]
ENVOY = ROOT / ".venv-ops" / "bin" / "envoy"
CONFIGURATION = ROOT / "kubernetes" / "ofa-triton" / "files" / "envoy.yaml"
TOKEN = "t0ken-" + "x" * 20
SECOND_TOKEN = "t0ken-" + "y" * 20
#: The status of a server that serves, in protobuf.
SERVING = b"\x08\x01"


@dataclass
class EnvoyProcess:
    """One Envoy.

    Attributes:
        upstream_port: of the Triton behind it.
        folder: what it finds under /etc/envoy, and its log.
        servers: the authority of its own certificate.
        clients: the authority of certificates that it lets in.
    """

    upstream_port: int
    folder: Path
    servers: Authority = field(default_factory=Authority)
    clients: Authority = field(default_factory=Authority)
    port: int = field(default_factory=lambda: free_ports(1)[0])

    def start(self) -> None:
        own = self.servers.certify("localhost")
        for name, content in {
            "tls/tls.crt": own.chain,
            "tls/tls.key": own.key,
            "clients/ca.crt": self.clients.root,
            "clients/tokens": f"{TOKEN}\n\n  {SECOND_TOKEN}\n".encode(),
            "envoy.yaml": self._configuration().encode(),
        }.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        options = ["--concurrency", "1", "--disable-hot-restart"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [ENVOY, "-c", self.folder / "envoy.yaml", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _configuration(self) -> str:
        """The one that ships but for its files' places, its ports, and whom it listens to."""
        text = CONFIGURATION.read_text()
        for shipped, here in {
            "/etc/envoy/": f"{self.folder}/",
            "address: 0.0.0.0, port_value: 8443": f"address: 127.0.0.1, port_value: {self.port}",
            "port_value: 8001": f"port_value: {self.upstream_port}",
        }.items():
            assert shipped in text
            text = text.replace(shipped, here)
        return text

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "envoy.log"

    @property
    def tokens(self) -> Path:
        return self.folder / "clients" / "tokens"

    @contextmanager
    def channel(self, *, alone: bool = False) -> Iterator[grpc.Channel]:
        """An encrypted channel of somebody whom it does not know; with a connection `alone`."""
        trusted = grpc.ssl_channel_credentials(self.servers.root)
        options = [("grpc.use_local_subchannel_pool", int(alone))]
        with grpc.secure_channel(self.address, trusted, options) as channel:
            yield channel

    def is_serving(self) -> bool:
        """Whether it answers, and Triton behind it."""
        with self.channel() as channel:
            try:
                check = channel.unary_unary("/grpc.health.v1.Health/Check")
                return bool(check(b"", timeout=5) == SERVING)
            except grpc.RpcError:
                return False

    def stop(self) -> None:
        stop(self.process)


@contextmanager
def envoy_in_front_of(upstream_port: int, folder: Path) -> Iterator[EnvoyProcess]:
    envoy = EnvoyProcess(upstream_port, folder)
    envoy.start()
    try:
        wait_until(
            lambda: envoy.is_serving() or envoy.process.poll() is not None,
            "Envoy",
            START_DEADLINE_S,
        )
        assert envoy.process.poll() is None, f"Envoy has ended:\n{end_of(envoy.log)}"
        yield envoy
    finally:
        envoy.stop()
