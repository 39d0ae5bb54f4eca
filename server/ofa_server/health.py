"""Whether the server lives and whether it is ready, over plain HTTP on a port of its own.

A thread answers, from what `ofa serve` knows already: no probe reaches Triton, so a server that is
busy answers as quickly as an idle one.
"""

from __future__ import annotations

import enum
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

#: Seconds that a prober may take for its request.
_REQUEST_TIMEOUT_S = 5.0


class State(enum.Enum):
    """Where in its life a server is; the value is the reason that a probe is told."""

    STARTING = "the models are being loaded and tried"
    READY = "every model has answered"
    STOPPING = "the server was told to stop"
    DEAD = "a process of the server has died"


class Health:
    """The state of this server, set by `ofa serve` and read by the probes."""

    def __init__(self) -> None:
        self.state = State.STARTING

    @property
    def is_live(self) -> bool:
        """Whether Triton and all of its Python processes live, as far as they have started."""
        return self.state is not State.DEAD

    @property
    def is_ready(self) -> bool:
        """Whether every ensemble has answered, and nobody has told the server to stop."""
        return self.state is State.READY


@contextmanager
def health_port(health: Health, host: str, port: int) -> Iterator[None]:
    """Answers `GET /live` and `GET /ready` inside the block: 200 or 503, with a line of JSON.

    Args:
        health: what the answers follow from.
        host: address to listen on.
        port: to listen on.

    Raises:
        OSError: the port cannot be listened on.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with _Server(family, address, _handler(health)) as server:
        thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingTCPServer):
    # The HTTP server of the standard library looks its own name up in DNS; this one does not. A
    # prober that keeps silent holds up its own thread only.
    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        family: socket.AddressFamily,
        address: Any,  # noqa: ANN401 - of four elements for IPv6, which typeshed does not expect
        handler: type[BaseHTTPRequestHandler],
    ) -> None:
        self.address_family = family
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a prober has gone away."""


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_S
        server_version, sys_version = "ofa", ""

        def do_GET(self) -> None:
            checks = {"/live": health.is_live, "/ready": health.is_ready}
            if self.path not in checks:
                self._answer(HTTPStatus.NOT_FOUND, "not found", "there are /live and /ready")
            elif checks[self.path]:
                self._answer(HTTPStatus.OK, self.path[1:], health.state.value)
            else:
                status = HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, f"not {self.path[1:]}", health.state.value)

        def _answer(self, code: HTTPStatus, status: str, reason: str) -> None:
            body = json.dumps({"status": status, "reason": reason}).encode() + b"\n"
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing: probes come every few seconds."""

    return Handler
