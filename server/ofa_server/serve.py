"""Runs Triton over a model repository, on a bare machine or in NVIDIA's image."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ofa_server.admin_key import read_admin_key, restricting_arguments
from ofa_server.admission import METRICS_URL
from ofa_server.errors import ServerError
from ofa_server.health import Health, State, health_port
from ofa_server.installation import Installation, find_installation
from ofa_server.model_configs import is_ensemble, read_configs
from ofa_server.model_control import (
    NONE,
    POLL,
    model_control_arguments,
    triton_process,
    versions_at_once,
)
from ofa_server.preflight import (
    check_libraries,
    check_model_files,
    check_numpy,
    check_ports,
    check_response_cache,
)
from ofa_server.readiness import read_warmup, wait_until_ready
from ofa_server.s3_repository import SCHEME, local_repository
from ofa_server.shared_memory import check_shared_memory, own_regions
from ofa_server.stop_signals import StopRequested, raise_on_next_signal
from ofa_server.threads import thread_variables
from ofa_server.torch_runtime import check_torch
from ofa_server.tracing import otlp_endpoint, tracing_arguments
from ofa_server.triton_process import BROKEN_EXIT_TIMEOUT_S, EXIT_TIMEOUT_S, Death, TritonProcess


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
        type=_seconds,
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


def _seconds(text: str) -> float:
    seconds = float(text)
    # The last comparison is false for "nan", too.
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def run(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ServerError: Triton cannot be started, or it or one of its Python processes has died.
    """
    if arguments.model_control == POLL and arguments.repository.startswith(SCHEME):
        raise ServerError(
            "--model-control poll looks at a folder, and what lies on S3 is copied once; upload "
            "the version, `ofa switch --offline`, and start servers again"
        )
    raise_on_next_signal()
    try:
        with local_repository(arguments.repository) as repository:
            serve(_settings(arguments, repository))
    except StopRequested:
        print("stopped", flush=True)


def _settings(arguments: argparse.Namespace, repository: Path) -> ServeSettings:
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


def serve(settings: ServeSettings) -> NoReturn:
    """Checks the machine, starts Triton, says when it is ready and watches over it.

    Raises:
        ServerError: as `run`.
    """
    ports = _ports(settings)
    check_ports(settings.host, ports)
    check_ports(settings.grpc_host, {"gRPC": settings.grpc_port})
    health = Health()
    with health_port(health, settings.host, settings.health_port):
        _serve(settings, ports, health)


def _serve(settings: ServeSettings, ports: Mapping[str, int], health: Health) -> NoReturn:
    configs = read_configs(settings.repository)
    ensembles = {name: config for name, config in configs.items() if is_ensemble(config)}
    check_response_cache(settings.response_cache_bytes, ensembles)
    warmups = {name: read_warmup(settings.repository / name, ensembles[name]) for name in ensembles}
    admin_key = read_admin_key(settings.admin_key_file)
    installation = find_installation()
    check_libraries(installation)
    check_numpy(installation)
    check_model_files(settings.repository, configs)
    warning = check_torch(installation, settings.repository, ensembles)
    if warning is not None:
        print(f"warning: {warning}", flush=True)
    versions = versions_at_once(settings.repository, configs, settings.model_control)
    check_shared_memory(configs, versions, stand_in=not installation.has_pytorch)
    with tempfile.TemporaryDirectory(prefix="ofa-serve-") as scratch, own_regions() as regions:
        backends = installation.prepare_backends(Path(scratch))
        print(f"starting Triton with {', '.join(configs)}", flush=True)
        command = _triton_command(installation, settings, backends, regions.prefix, admin_key)
        environment = {
            **installation.environment(),
            **thread_variables(os.environ, configs),
            METRICS_URL: f"http://{_reachable(settings.host)}:{settings.metrics_port}/metrics",
        }
        triton = triton_process(settings.model_control)(command, environment, regions.lock_fd)
        grpc_address = f"{_reachable(settings.grpc_host)}:{settings.grpc_port}"
        try:
            stubs = wait_until_ready(triton, grpc_address, warmups, settings.start_deadline_s)
            health.state = State.READY
            hosts = dict.fromkeys(ports, settings.host) | {"gRPC": settings.grpc_host}
            addresses = ", ".join(f"{key} {hosts[key]}:{port}" for key, port in ports.items())
            print(f"ready: {', '.join(ensembles)} on {addresses}", flush=True)
            death = _watch(triton, stubs, health, settings.drain_seconds)
        except StopRequested:
            health.state = State.STOPPING
            print(f"stopping: requests under way have {EXIT_TIMEOUT_S} s to end", flush=True)
            triton.stop()
            raise
        except BaseException:
            health.state = State.DEAD
            triton.stop()
            raise
        health.state = State.DEAD
        triton.stop(BROKEN_EXIT_TIMEOUT_S)
    if death.instance is None:
        raise ServerError(f"Triton has died (status {triton.exit_status}); see its log")
    raise ServerError(
        f"the Python process of {death.instance} has died, so Triton was stopped; see its log"
    )


def _watch(
    triton: TritonProcess, stubs: Mapping[int, str], health: Health, drain_seconds: float
) -> Death:
    """Waits for a death, or for a signal and the end of the drain that it begins.

    Raises:
        StopRequested: it is time to stop Triton.
    """
    try:
        death = triton.wait_for_death(stubs)
    except StopRequested:
        health.state = State.STOPPING
        if not drain_seconds:
            raise
        raise_on_next_signal()
        print(
            f"draining: not ready any more, answering for {drain_seconds:g} s "
            "or until the next signal",
            flush=True,
        )
        death = triton.wait_for_death(stubs, drain_seconds)
    if death is None:
        raise StopRequested
    return death


def _ports(settings: ServeSettings) -> dict[str, int]:
    """The ports that are listened on, by what they are for."""
    ports = {
        "gRPC": settings.grpc_port,
        "HTTP": settings.http_port,
        "metrics": settings.metrics_port,
        "health": settings.health_port,
    }
    return {purpose: port for purpose, port in ports.items() if port or purpose != "HTTP"}


def _reachable(host: str) -> str:
    """Where this machine finds a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104


def _triton_command(
    installation: Installation,
    settings: ServeSettings,
    backends: Path,
    region_prefix: str,
    admin_key: str,
) -> list[str]:
    command = [
        str(installation.binary),
        f"--model-repository={settings.repository}",
        f"--backend-directory={backends}",
        # Our configurations are complete; completing them would start every stub twice.
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        *_http_arguments(settings),
        f"--grpc-address={settings.grpc_host}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.metrics_port}",
        # Percentiles (and their errors) beside the counters; few, as preprocess reads the page too.
        "--metrics-config=summary_latencies=true",
        "--metrics-config=summary_quantiles=0.5:0.05,0.9:0.01,0.99:0.001",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        *restricting_arguments(admin_key),
        *tracing_arguments(settings.otlp_endpoint),
        *model_control_arguments(settings.model_control),
    ]
    if settings.response_cache_bytes:
        command += [
            f"--cache-directory={installation.caches}",
            f"--cache-config=local,size={settings.response_cache_bytes}",
        ]
    return command


def _http_arguments(settings: ServeSettings) -> list[str]:
    if not settings.http_port:
        return ["--allow-http=false"]
    return [f"--http-address={settings.host}", f"--http-port={settings.http_port}"]
