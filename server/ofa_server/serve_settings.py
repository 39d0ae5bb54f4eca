"""What `ofa serve` is told: its options, and what they are called inside."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ofa_server.durations import seconds
from ofa_server.model_control import NONE, POLL
from ofa_server.tracing import otlp_endpoint


@dataclass(frozen=True)
class ServeSettings:
    """What to serve and where.

    Attributes:
        repository: folder of models.
        host: address that the ports listen on.
        grpc_host: address that the gRPC port listens on: loopback where a proxy on this machine
            asks for credentials, and probes and metrics come from elsewhere.
        grpc_port: for clients.
        http_port: for clients without gRPC; 0 for none.
        metrics_port: for Prometheus.
        health_port: for probes.
        drain_seconds: how long requests are still served after the signal to stop, while probes
            are told that the server is not ready any more.
        admin_key_file: holds the key without which Triton's models, shared memory, traces and log
            cannot be controlled; None for one that nobody knows.
        model_control: "poll" where versions come and go while it runs, else "none".
        response_cache_bytes: memory for answers that are given again to the same request, 0 for
            none.
        otlp_endpoint: where Triton's traces go, None for nowhere.
        start_deadline_s: seconds until the last warm-up answer must have come back. Loading the
            largest checkpoint from a slow disk is a matter of minutes.
    """

    repository: Path
    host: str = "127.0.0.1"
    grpc_host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    health_port: int = 8003
    drain_seconds: float = 0.0
    admin_key_file: Path | None = None
    model_control: str = NONE
    response_cache_bytes: int = 0
    otlp_endpoint: str | None = None
    start_deadline_s: float = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ofa serve`."""
    parser.add_argument(
        "--repository",
        required=True,
        metavar="DIR",
        help="folder of models, or s3://[http://HOST:PORT/]BUCKET/PREFIX, which is copied first",
    )
    parser.add_argument("--host", default=ServeSettings.host)
    parser.add_argument(
        "--grpc-host",
        metavar="HOST",
        help="for the gRPC port alone, such as 127.0.0.1 behind a proxy (default: that of --host)",
    )
    parser.add_argument("--grpc-port", type=int, default=ServeSettings.grpc_port, metavar="PORT")
    parser.add_argument(
        "--http-port",
        type=int,
        default=ServeSettings.http_port,
        metavar="PORT",
        help="for clients without gRPC; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics-port", type=int, default=ServeSettings.metrics_port, metavar="PORT"
    )
    parser.add_argument(
        "--health-port",
        type=int,
        default=ServeSettings.health_port,
        metavar="PORT",
        help="for probes: GET /live and GET /ready (default: %(default)s)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=seconds,
        default=ServeSettings.drain_seconds,
        metavar="N",
        help="after SIGTERM, be not ready and go on answering for so long (default: %(default)g)",
    )
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help="holds the key to control of models, shared memory, traces and log (default: nobody "
        "has one)",
    )
    parser.add_argument(
        "--model-control",
        choices=[NONE, POLL],
        default=ServeSettings.model_control,
        help="poll: load versions of checkpoints that come, unload those that go, and answer with "
        "the one that `ofa switch` names (default: %(default)s)",
    )
    parser.add_argument(
        "--response-cache-bytes",
        type=int,
        default=ServeSettings.response_cache_bytes,
        metavar="N",
        help="memory for answers that are given again, without being computed, to a request that "
        "is the same byte for byte (default: none)",
    )
    parser.add_argument(
        "--otlp-endpoint",
        type=otlp_endpoint,
        metavar="URL",
        help="collector that traces are sent to by OTLP over HTTP, http://HOST:4318/v1/traces "
        "(default: none)",
    )


def settings_from(arguments: argparse.Namespace, repository: Path) -> ServeSettings:
    """The settings of a command line; the repository is the local one."""
    return ServeSettings(
        repository=repository,
        host=arguments.host,
        grpc_host=arguments.grpc_host or arguments.host,
        grpc_port=arguments.grpc_port,
        http_port=arguments.http_port,
        metrics_port=arguments.metrics_port,
        health_port=arguments.health_port,
        drain_seconds=arguments.drain_seconds,
        admin_key_file=arguments.admin_key_file,
        model_control=arguments.model_control,
        response_cache_bytes=arguments.response_cache_bytes,
        otlp_endpoint=arguments.otlp_endpoint,
    )
