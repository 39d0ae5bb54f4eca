"""Runs Triton over a model repository, on a bare machine or in NVIDIA's image."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from ofa_server.admin_key import read_admin_key
from ofa_server.admission import METRICS_URL
from ofa_server.errors import ServerError
from ofa_server.health import Health, State, health_port
from ofa_server.installation import find_installation
from ofa_server.model_configs import is_ensemble, read_configs
from ofa_server.model_control import POLL, triton_process, versions_at_once
from ofa_server.preflight import (
    check_libraries,
    check_model_files,
    check_numpy,
    check_ports,
    check_response_cache,
    foreign_adapters,
)
from ofa_server.processor import check_processor
from ofa_server.readiness import read_warmup, wait_until_ready
from ofa_server.s3_repository import SCHEME, local_repository
from ofa_server.serve_settings import ServeSettings, add_arguments, settings_from
from ofa_server.shared_memory import needed_shared_memory, own_regions
from ofa_server.stop_signals import StopRequested, ignore_signals, raise_on_next_signal
from ofa_server.threads import thread_variables
from ofa_server.torch_runtime import check_torch
from ofa_server.triton_command import triton_command
from ofa_server.triton_process import BROKEN_EXIT_TIMEOUT_S, EXIT_TIMEOUT_S, Death, TritonProcess

# `ofa_server.cli` asks each verb's module for both, so this one passes its options' on.
__all__ = ["add_arguments", "run", "serve"]


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
            serve(settings_from(arguments, repository))
    except StopRequested:
        print("stopped", flush=True)


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
    check_processor(settings.repository, ensembles)
    if foreign := foreign_adapters(settings.repository, ensembles):
        print(
            f"warning: {', '.join(foreign)}: not as this release exports it; if Triton does not "
            "start, run `ofa export` again",
            flush=True,
        )
    warning = check_torch(installation, settings.repository, ensembles)
    if warning is not None:
        print(f"warning: {warning}", flush=True)
    versions = versions_at_once(settings.repository, configs, settings.model_control)
    needed = needed_shared_memory(configs, versions, stand_in=not installation.has_pytorch)
    with (
        tempfile.TemporaryDirectory(prefix="ofa-serve-") as scratch,
        own_regions(needed) as regions,
    ):
        backends = installation.prepare_backends(Path(scratch))
        print(f"starting Triton with {', '.join(configs)}", flush=True)
        command = triton_command(installation, settings, backends, regions.prefix, admin_key)
        environment = {
            **installation.environment(),
            **thread_variables(os.environ, configs),
            METRICS_URL: f"http://{reachable(settings.host)}:{settings.metrics_port}/metrics",
        }
        grpc_address = f"{reachable(settings.grpc_host)}:{settings.grpc_port}"
        triton = triton_process(settings.model_control)(command, environment, regions.lock_fd)
        try:
            try:
                stubs = wait_until_ready(triton, grpc_address, warmups, settings.start_deadline_s)
                health.state = State.READY
                hosts = dict.fromkeys(ports, settings.host) | {"gRPC": settings.grpc_host}
                addresses = ", ".join(f"{key} {hosts[key]}:{port}" for key, port in ports.items())
                print(f"ready: {', '.join(ensembles)} on {addresses}", flush=True)
                death = _watch(triton, stubs, health, settings.drain_seconds)
            finally:
                # However it ends, nothing shall keep Triton from being stopped in order.
                ignore_signals()
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


def reachable(host: str) -> str:
    """Where this machine finds a server that listens on `host`."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{address}]" if ":" in address else address
