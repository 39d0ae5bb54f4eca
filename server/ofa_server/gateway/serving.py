"""Runs the application on uvicorn, with the client and the catalogue in its event loop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from ofa_client import AsyncOFAClient
from ofa_client._security_arguments import SecuritySettings
from ofa_server.errors import ServerError
from ofa_server.gateway.app import make_app
from ofa_server.gateway.catalogue import Catalogue
from ofa_server.preflight import check_ports

#: Seconds that requests under way have when the gateway is told to stop.
_GRACE_S = 30


@dataclass(frozen=True)
class GatewaySettings:
    """Whom to ask and where to listen.

    Attributes:
        servers: HOST:PORT of each model server's gRPC port, or dns:///HOST:PORT.
        host: address to listen on.
        port: to listen on.
        timeout: seconds for a request, from its first byte to the answer.
        callers_token_file: tokens that callers need one of, None if they need none.
        security: towards the model servers.
    """

    servers: Sequence[str] = ("localhost:8001",)
    host: str = "127.0.0.1"
    port: int = 8080
    timeout: float = 60.0
    callers_token_file: Path | None = None
    security: SecuritySettings = field(
        default_factory=lambda: SecuritySettings(tls=None, token=None, metadata={})
    )


def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT; requests under way are answered before it returns.

    Raises:
        ServerError: the address cannot be listened on, that of the model server is none, or a
            file of certificates or tokens does not do.
    """
    check_ports(settings.host, {"HTTP": settings.port})
    # What routes and client have to say stands among uvicorn's own lines.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s:  %(name)s: %(message)s")
    asyncio.run(_serve(settings))


async def _serve(settings: GatewaySettings) -> None:
    try:
        # Pictures come with requests: nothing is fetched, whatever a request says.
        client = AsyncOFAClient(settings.servers, urls=None, **settings.security)
        listing = Catalogue(settings.servers, settings.security)
    except (ValueError, OSError) as error:
        raise ServerError(str(error)) from error
    async with client, aclosing(listing) as catalogue:
        app = make_app(
            client,
            catalogue,
            timeout=settings.timeout,
            callers_token_file=settings.callers_token_file,
        )
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        # uvicorn raises the signal that stopped it once more behind itself; by then it is obeyed.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        await _Server(config).serve()
    print("stopped", flush=True)


class _Server(uvicorn.Server):
    """Says where the page is."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            print(f"ready: http://{host}:{self.config.port}", flush=True)
