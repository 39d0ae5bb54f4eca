"""Serves HTTP in front of a running Triton: JSON, OpenAI's chat form, and a page to try it out."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from ofa_client._security_arguments import add_security_arguments, security_settings
from ofa_server.durations import positive_seconds
from ofa_server.errors import ServerError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ofa gateway`."""
    parser.add_argument(
        "--server",
        nargs="+",
        default=["localhost:8001"],
        metavar="HOST:PORT",
        help="gRPC ports of the model servers, which take turns (default: localhost:8001)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8080, metavar="PORT", help="to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=60.0,
        metavar="SECONDS",
        help="for each request (default: %(default)g)",
    )
    parser.add_argument(
        "--callers-token-file",
        type=Path,
        metavar="FILE",
        help="bearer tokens, one a line, of which callers of /v1 need one; read anew for each "
        "request (default: everyone may call)",
    )
    add_security_arguments(parser, "towards the model servers")


def run(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ServerError: something is not installed, the address cannot be listened on, or a file of
            certificates or tokens does not do.
    """
    if importlib.util.find_spec("fastapi") is None:
        raise ServerError("fastapi is not installed; in a checkout: pip install '.[gateway]'")
    from ofa_server.gateway.serving import GatewaySettings, serve

    try:
        security = security_settings(arguments)
    except (ValueError, OSError) as error:
        raise ServerError(str(error)) from error
    serve(
        GatewaySettings(
            arguments.server,
            arguments.host,
            arguments.port,
            arguments.timeout,
            arguments.callers_token_file,
            security,
        )
    )
