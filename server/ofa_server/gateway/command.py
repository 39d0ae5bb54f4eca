"""Serves HTTP in front of a running Triton: JSON, OpenAI's chat form, and a page to try it out."""

from __future__ import annotations

import argparse
import importlib.util

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
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="for each request (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ServerError: something is not installed, or the address cannot be listened on.
    """
    if importlib.util.find_spec("fastapi") is None:
        raise ServerError("fastapi is not installed; in a checkout: pip install '.[gateway]'")
    from ofa_server.gateway.serving import GatewaySettings, serve

    serve(GatewaySettings(arguments.server, arguments.host, arguments.port, arguments.timeout))
