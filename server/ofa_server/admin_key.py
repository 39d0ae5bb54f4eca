"""The key to what an operator may ask of Triton, and a client may not."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from ofa_server.errors import ServerError

#: Name of the header that carries the key over HTTP; gRPC's has `triton-grpc-protocol-` before it.
HEADER = "ofa-admin-key"
#: Loading and unloading of models, memory of the server's machine that a client names, files that
#: Triton writes. Inference, health, metadata, statistics and configurations stay open.
_RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
#: What reaches Triton's command line and an HTTP header unchanged; what base64 and hex consist of.
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")


def read_admin_key(file: Path | None) -> str:
    """Reads the key from a file; white space around it does not count.

    Args:
        file: None for a random key, which nobody is told.

    Raises:
        ServerError: the file cannot be read, or holds no key.
    """
    if file is None:
        return secrets.token_urlsafe(32)
    try:
        key = file.read_text("ascii").strip()
    except OSError as error:
        raise ServerError(f"the admin key cannot be read: {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServerError(f"the admin key in {file} is not ASCII") from error
    if _KEY.fullmatch(key) is None:
        raise ServerError(
            f"the admin key in {file} has {len(key)} characters or some that do not do; it takes "
            "16 to 256 letters, digits and . _ ~ + / = - (openssl rand -hex 32 makes one)"
        )
    return key


def restricting_arguments(key: str) -> list[str]:
    """Arguments of Triton that keep all but those who know the key away."""
    restriction = f"{','.join(_RESTRICTED)}:{HEADER}={key}"
    return [f"--grpc-restricted-protocol={restriction}", f"--http-restricted-api={restriction}"]
