"""The arguments that tell a command of TLS, a token and metadata.

Whoever is on a machine can read the arguments of its processes, so a secret is never one: a token
comes from a file or from the environment, and metadata may come from files.
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import TypedDict

from ofa_client._errors import AuthenticationError
from ofa_client._security import TLS, Token, bearer

TOKEN_VARIABLE = "OFA_CLIENT_TOKEN"  # noqa: S105 - its name
"""Environment variable that holds a token, for where there is no file."""


class SecuritySettings(TypedDict):
    """Arguments of `OFAClient` and `AsyncOFAClient`."""

    tls: TLS | None
    token: Token | None
    metadata: dict[str, str]


def add_security_arguments(parser: argparse.ArgumentParser, towards: str | None = None) -> None:
    """Add the arguments to a command.

    Args:
        parser: of the command.
        towards: whom they are meant for, where the command has to do with others as well.
    """
    group = parser.add_argument_group("security", towards)
    group.add_argument(
        "--tls", action="store_true", help="encrypt the connection; any of the next four does too"
    )
    group.add_argument(
        "--root-certificates",
        metavar="FILE",
        help="whom to trust, in PEM (default: the roots that come with gRPC)",
    )
    group.add_argument(
        "--certificate-chain", metavar="FILE", help="the client's own certificate, in PEM (mTLS)"
    )
    group.add_argument("--private-key", metavar="FILE", help="of the client's own certificate")
    group.add_argument(
        "--server-name",
        metavar="NAME",
        help="name that the server's certificate must have (default: that of the address)",
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the bearer token, and is read anew for each request (default: the token in "
        f"the environment variable {TOKEN_VARIABLE}, if there is one)",
    )
    group.add_argument(
        "--metadata",
        type=_name_and_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="send this along, such as the header of a proxy; may be given again. A secret stands "
        "in a file and is given as NAME=@FILE",
    )


def security_settings(arguments: argparse.Namespace) -> SecuritySettings:
    """Return what the arguments and the environment say.

    Raises:
        ValueError: the arguments contradict one another, or there is no token in its file.
        OSError: a file of metadata cannot be read.
    """
    tls, token = _tls(arguments), _token(arguments)
    if token is not None and tls is None:
        source = arguments.token_file or TOKEN_VARIABLE
        raise ValueError(
            f"the token of {source} needs --tls: without it, everyone on the way could read it"
        )
    metadata = {name: _content(value) for name, value in arguments.metadata}
    return {"tls": tls, "token": token, "metadata": metadata}


def _tls(arguments: argparse.Namespace) -> TLS | None:
    tls = TLS(
        root_certificates=arguments.root_certificates,
        certificate_chain=arguments.certificate_chain,
        private_key=arguments.private_key,
        server_name=arguments.server_name,
    )
    return tls if arguments.tls or tls != TLS() else None


def _token(arguments: argparse.Namespace) -> Token | None:
    file: Path | None = arguments.token_file
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        _read_token(file)  # is refused here rather than in the first request
    except AuthenticationError as error:
        raise ValueError(error.message) from error
    return functools.partial(_read_token, file)


def _read_token(file: Path) -> str:
    try:
        # What is no ASCII is refused below: an error of decoding would show what it could not.
        token = file.read_text("ascii", errors="replace").strip()
    except OSError as error:
        raise AuthenticationError(f"{file} cannot be read: {error.strerror}") from error
    try:
        bearer(token)
    except ValueError as error:
        raise AuthenticationError(f"{file} must hold a token and nothing else") from error
    if not token:
        raise AuthenticationError(f"{file} is empty")
    return token


def _name_and_value(text: str) -> tuple[str, str]:
    name, is_there, value = text.partition("=")
    if not is_there:
        raise argparse.ArgumentTypeError("must be NAME=VALUE or NAME=@FILE")
    return name, value


def _content(value: str) -> str:
    return Path(value[1:]).read_text("utf-8").strip() if value.startswith("@") else value
