"""How the client proves who it is, and asks the server to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc

Pem: TypeAlias = str | os.PathLike[str] | bytes
Token: TypeAlias = str | Callable[[], str]


@dataclass(frozen=True)
class TLS:
    """Encrypted connections, each file in PEM: a path, or the bytes of its content.

    Attributes:
        root_certificates: whom to trust; by default the roots that come with gRPC.
        certificate_chain: the client's own certificate, where the server asks for one (mTLS).
        private_key: of the client's own certificate.
        server_name: name that the server's certificate must have, if not that of the address.
    """

    root_certificates: Pem | None = None
    certificate_chain: Pem | None = field(default=None, repr=False)
    private_key: Pem | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("certificate_chain and private_key need each other")


def make_credentials(tls: TLS) -> Any:  # noqa: ANN401 - gRPC has no types
    """Return gRPC's channel credentials.

    Raises:
        OSError: a file cannot be read.
    """
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.root_certificates),
        private_key=_read(tls.private_key),
        certificate_chain=_read(tls.certificate_chain),
    )


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()


def check_metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs as gRPC takes them, with names in lower case.

    Raises:
        ValueError: a name or a value is not what gRPC sends. The message has no value in it.
    """
    for name, value in metadata.items():
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"the metadata {name!r} must be printable ASCII")
        is_name = name.isascii() and re.sub("[-_.]", "", name).isalnum()
        if not is_name or name.lower().endswith("-bin"):  # whose values are bytes
            raise ValueError(f"metadata cannot be called {name!r}")
    return tuple((name.lower(), value) for name, value in metadata.items())


def bearer(token: Token) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries the token."""
    value = token() if callable(token) else token
    return check_metadata({"authorization": f"Bearer {value}"})
