"""gRPC channels as the client wants them, plain or for asyncio."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import grpc

from ofa_client._exchange import Failure
from ofa_client._security import TLS, make_credentials
from ofa_client._servers import Server

# What a dead address may cost in connecting; gRPC's own 20 s are longer than most timeouts.
_CONNECT_TIMEOUT_MS = 5_000
# Between these intervals gRPC fails a call without a try to connect. Its own, 1 s to 120 s, would
# make most further attempts of a call useless.
_FIRST_RECONNECT_MS = 100
_MAX_RECONNECT_MS = 2_000


class ChannelMaker:
    """Opens one channel to a server.

    Args:
        grpc_module: `grpc` or `grpc.aio`.
        tls: None for a plain connection.
        keep_alive: seconds between pings while calls run; None for none. With any value gRPC also
            sets TCP_USER_TIMEOUT, so that a dead peer is noticed 20 s after the next request.

    Raises:
        OSError: a file of `tls` cannot be read.
    """

    def __init__(self, grpc_module: ModuleType, tls: TLS | None, keep_alive: float | None) -> None:
        self._grpc = grpc_module
        self._credentials = None if tls is None else make_credentials(tls)
        self._options: list[tuple[str, object]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MS),
        ]
        if keep_alive is not None:
            self._options.append(("grpc.keepalive_time_ms", int(keep_alive * 1000)))
        if tls is not None and tls.server_name is not None:
            self._options.append(("grpc.ssl_target_name_override", tls.server_name))

    def open(self, server: Server) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return a channel, which connects at its first call."""
        options = list(self._options)
        if server.authority != server.address:
            options.append(("grpc.default_authority", server.authority))
        if self._credentials is None:
            return self._grpc.insecure_channel(server.address, options=options)
        return self._grpc.secure_channel(server.address, self._credentials, options=options)


def to_failure(error: grpc.RpcError) -> Failure:
    """Return what gRPC says of a failed call."""
    return Failure(error.code().name, error.details() or "", error)
