"""Runs Triton over a model repository, on a bare machine or in NVIDIA's image."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import (
    InferenceServerException,
    deserialize_bytes_tensor,
    np_to_triton_dtype,
)

from ofa_server.errors import ServerError
from ofa_server.installation import Installation, find_installation
from ofa_server.model_configs import ModelConfig, is_ensemble, numpy_dtype, read_configs
from ofa_server.preflight import (
    check_libraries,
    check_numpy,
    check_ports,
    check_response_cache,
)
from ofa_server.shared_memory import check_shared_memory, own_regions
from ofa_server.threads import thread_variables
from ofa_server.triton_process import BROKEN_EXIT_TIMEOUT_S, EXIT_TIMEOUT_S, TritonProcess
from ofa_server.warmup import read_warmup_files

_POLL_INTERVAL_S = 0.1


@dataclass(frozen=True)
class ServeSettings:
    """What to serve and where.

    Attributes:
        repository: folder of models.
        host: address that all three ports listen on.
        grpc_port: for clients.
        http_port: for health probes and clients without gRPC.
        metrics_port: for Prometheus.
        response_cache_bytes: memory for answers that are given again to the same request, 0 for
            none.
        start_deadline_s: seconds until the last warm-up answer must have come back. Loading the
            largest checkpoint from a slow disk is a matter of minutes.
    """

    repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    response_cache_bytes: int = 0
    start_deadline_s: float = 600.0


class _StopRequested(BaseException):
    """SIGTERM or SIGINT; not an Exception, so that nothing on the way takes it for an error."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ofa serve`."""
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR")
    parser.add_argument("--host", default=ServeSettings.host)
    parser.add_argument("--grpc-port", type=int, default=ServeSettings.grpc_port, metavar="PORT")
    parser.add_argument("--http-port", type=int, default=ServeSettings.http_port, metavar="PORT")
    parser.add_argument(
        "--metrics-port", type=int, default=ServeSettings.metrics_port, metavar="PORT"
    )
    parser.add_argument(
        "--response-cache-bytes",
        type=int,
        default=ServeSettings.response_cache_bytes,
        metavar="N",
        help="memory for answers that are given again, without being computed, to a request that "
        "is the same byte for byte (default: none)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ServerError: Triton cannot be started, or it or one of its Python processes has died.
    """
    settings = ServeSettings(
        repository=arguments.repository.resolve(),
        host=arguments.host,
        grpc_port=arguments.grpc_port,
        http_port=arguments.http_port,
        metrics_port=arguments.metrics_port,
        response_cache_bytes=arguments.response_cache_bytes,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request_stop)
    try:
        serve(settings)
    except _StopRequested:
        print("stopped", flush=True)


def serve(settings: ServeSettings) -> NoReturn:
    """Checks the machine, starts Triton, says when it is ready and watches over it.

    Raises:
        ServerError: as `run`.
    """
    configs = read_configs(settings.repository)
    ensembles = {name: config for name, config in configs.items() if is_ensemble(config)}
    check_response_cache(settings.response_cache_bytes, ensembles)
    warmups = {
        name: _read_warmup(settings.repository / name, ensembles[name]) for name in ensembles
    }
    installation = find_installation()
    check_libraries(installation)
    check_numpy(installation)
    check_shared_memory(configs, stand_in=not installation.has_pytorch)
    ports = {
        "gRPC": settings.grpc_port,
        "HTTP": settings.http_port,
        "metrics": settings.metrics_port,
    }
    check_ports(settings.host, ports)
    with tempfile.TemporaryDirectory(prefix="ofa-serve-") as scratch, own_regions() as regions:
        backends = installation.prepare_backends(Path(scratch))
        print(f"starting Triton with {', '.join(configs)}", flush=True)
        command = _triton_command(installation, settings, backends, regions.prefix)
        environment = installation.environment() | thread_variables(os.environ, configs)
        triton = TritonProcess(command, environment, regions.lock_fd)
        try:
            stubs = _wait_until_ready(triton, settings, warmups)
            addresses = ", ".join(f"{key} {settings.host}:{port}" for key, port in ports.items())
            print(f"ready: {', '.join(ensembles)} on {addresses}", flush=True)
            dead = triton.wait_for_death(stubs)
        except BaseException:
            triton.stop()
            raise
        triton.stop(BROKEN_EXIT_TIMEOUT_S)
    if dead is None:
        raise ServerError(f"Triton has died (status {triton.exit_status}); see its log")
    raise ServerError(f"the Python process of {dead} has died, so Triton was stopped; see its log")


def _triton_command(
    installation: Installation, settings: ServeSettings, backends: Path, region_prefix: str
) -> list[str]:
    command = [
        str(installation.binary),
        f"--model-repository={settings.repository}",
        f"--backend-directory={backends}",
        # Our configurations are complete; completing them would start every stub twice.
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        f"--http-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.metrics_port}",
        # Percentiles beside the counters, for the dashboard and the alerts.
        "--metrics-config=summary_latencies=true",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
    ]
    if settings.response_cache_bytes:
        command += [
            f"--cache-directory={installation.caches}",
            f"--cache-config=local,size={settings.response_cache_bytes}",
        ]
    return command


def _wait_until_ready(
    triton: TritonProcess,
    settings: ServeSettings,
    warmups: Mapping[str, list[grpcclient.InferInput]],
) -> dict[str, int]:
    """Waits for every model, then for an answer of every ensemble.

    Returns:
        Process ids of the stubs by model instance.
    """
    deadline = time.monotonic() + settings.start_deadline_s
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    # A proxy that the environment names is not meant for our own server.
    no_proxy = [("grpc.enable_http_proxy", 0)]
    with grpcclient.InferenceServerClient(
        f"{host}:{settings.grpc_port}", channel_args=no_proxy
    ) as client:
        while not _is_ready(client):
            if triton.exit_status is not None:
                raise ServerError(
                    f"Triton ended with status {triton.exit_status} before it was ready; "
                    "see its log"
                )
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Triton was not ready within {settings.start_deadline_s:g} s; see its log"
                )
            time.sleep(_POLL_INTERVAL_S)
        stubs = triton.stubs()
        for name, inputs in warmups.items():
            try:
                client.infer(name, inputs, client_timeout=max(1.0, deadline - time.monotonic()))
            except InferenceServerException as error:
                reason = error.message().splitlines()[0]
                raise ServerError(f"the warm-up of {name} failed: {reason}") from error
    return stubs


def _is_ready(client: grpcclient.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready(client_timeout=1.0))
    except InferenceServerException:
        return False


def _read_warmup(model: Path, config: ModelConfig) -> list[grpcclient.InferInput]:
    """The request that an ensemble is tried with."""
    dtypes = {tensor.name: numpy_dtype(tensor.data_type) for tensor in config.input}
    dims = {tensor.name: list(tensor.dims) for tensor in config.input}
    inputs = []
    for name, raw in read_warmup_files(model).items():
        if name not in dtypes:
            raise ServerError(f"{model.name} has a warm-up for {name}, which is none of its inputs")
        is_text = dtypes[name] == np.object_
        values = deserialize_bytes_tensor(raw) if is_text else np.frombuffer(raw, dtypes[name])
        tensor = values.reshape([1, *dims[name]])
        inputs.append(grpcclient.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype)))
        inputs[-1].set_data_from_numpy(tensor)
    if not inputs:
        raise ServerError(f"{model} has no warm-up to try it with; run `ofa export` again")
    return inputs


def _request_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise _StopRequested
