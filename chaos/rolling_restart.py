"""Does a call fail while two servers are restarted one after the other under load?

First with `ofa_client`, which takes turns between the two and sends a call again elsewhere. Then
with plain gRPC calls, which nobody sends again, through Envoy: it asks the servers' health ports,
and `--drain-seconds` gives it the time to notice.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template

from benchmarks.common import ROOT
from benchmarks.serving import linked
from chaos.figures import Figure, none, reported
from chaos.load import Load, Outcome, failed
from chaos.servers import (
    OUTPUT,
    START_DEADLINE_S,
    STOP_DEADLINE_S,
    ChaosError,
    Server,
    is_listening,
    serving,
    wait_until,
)
from ofa_server.background import free_ports

_ENVOY = ROOT / ".venv-ops" / "bin" / "envoy"
_BALANCER = Path(__file__).with_name("balancer.yaml")
_RATE = 10.0
#: Several of Envoy's looks at the health ports.
_DRAIN_S, _SETTLE_S = 3, 2.0


def run(repository: Path, quick: bool) -> list[Figure]:
    """Restarts two servers of its own."""
    num_rounds = 1 if quick else 3
    with linked(repository, "caption") as own:
        drain = ["--drain-seconds", str(_DRAIN_S)]
        servers = [Server(own, f"rolling-{number}", drain) for number in (1, 2)]
        with serving(*servers):
            addresses = [server.address for server in servers]
            with Load(addresses, rate=_RATE, by="client") as load:
                _restart_in_turn(servers, num_rounds)
                figures = _figures("`ofa_client`", load.finish(), num_rounds)
            with _balancer(servers) as address, Load([address], rate=_RATE) as load:
                seconds = _restart_in_turn(servers, num_rounds)
                figures += _figures("plain calls through Envoy", load.finish(), num_rounds)
    return [*figures, reported("a restart, drain included, takes", seconds, "s")]


def _restart_in_turn(servers: Sequence[Server], num_rounds: int) -> float:
    """Restart servers one after the other, and return the longest that one was not ready."""
    longest = 0.0
    for server in [*servers] * num_rounds:
        time.sleep(_SETTLE_S)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        if status := server.process.wait(STOP_DEADLINE_S):
            raise ChaosError(f"ofa serve has ended with status {status}; see {server.log}")
        server.start()
        server.wait_until_ready()
        longest = max(longest, time.monotonic() - start)
    time.sleep(_SETTLE_S)
    return longest


def _figures(what: str, outcomes: Sequence[Outcome], num_rounds: int) -> list[Figure]:
    failures = failed(outcomes)
    first = f"; the first failure: {failures[0].code} {failures[0].details}" if failures else ""
    note = f"{len(outcomes):,} calls, {2 * num_rounds} restarts{first}"
    return [none(f"{what}: failed calls", len(failures), note)]


@contextmanager
def _balancer(servers: Sequence[Server]) -> Iterator[str]:
    """Runs Envoy in front of two servers; yields its HOST:PORT."""
    if not _ENVOY.exists():
        raise ChaosError("there is no Envoy in .venv-ops; run `make ops-tools`")
    first, second = servers
    [port] = free_ports(1)
    values = {
        "port": port,
        "first": first.grpc_port,
        "first_health": first.health_port,
        "second": second.grpc_port,
        "second_health": second.health_port,
    }
    config = OUTPUT / "balancer.yaml"
    config.write_text(Template(_BALANCER.read_text()).substitute(values))
    command = [str(_ENVOY), "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
    log = OUTPUT / "balancer.log"
    with log.open("wb") as file:
        envoy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_until(
            lambda: is_listening(port) or envoy.poll() is not None, "Envoy", START_DEADLINE_S
        )
        if envoy.poll() is not None:
            raise ChaosError(f"Envoy has ended; see {log}")
        # It takes every server for not ready until it has looked.
        time.sleep(_SETTLE_S)
        yield f"127.0.0.1:{port}"
    finally:
        envoy.terminate()
        envoy.wait(STOP_DEADLINE_S)
