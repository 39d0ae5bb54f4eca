"""The command line of Triton."""

from __future__ import annotations

from pathlib import Path

from ofa_server.admin_key import restricting_arguments
from ofa_server.installation import Installation
from ofa_server.model_control import model_control_arguments
from ofa_server.serve_settings import ServeSettings
from ofa_server.tracing import tracing_arguments
from ofa_server.triton_process import EXIT_TIMEOUT_S


def triton_command(
    installation: Installation,
    settings: ServeSettings,
    backends: Path,
    region_prefix: str,
    admin_key: str,
) -> list[str]:
    """What Triton is started with.

    Args:
        installation: which Triton.
        settings: of the server.
        backends: folder of Triton's backends.
        region_prefix: how the names of its stubs' regions in /dev/shm start.
        admin_key: without which it cannot be controlled.
    """
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
