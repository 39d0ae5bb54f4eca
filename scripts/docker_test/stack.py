"""docker/compose.yaml, run on free ports and without Grafana, which no package here brings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from check import FAILURES, begin, passed
from engine import Engine

from ofa_server.background import free_ports

_OVERRIDE = """\
services:
  server:
    # A neighbourly caller's, if it is set.
    environment: [OMP_NUM_THREADS]
    ports: !override ["127.0.0.1:{server}:8001"]
  gateway:
    ports: !override ["127.0.0.1:{gateway}:8080"]
  prometheus:
    ports: !override ["127.0.0.1:{prometheus}:9090"]
  grafana:
    profiles: [not-run]
"""


@dataclass(frozen=True)
class Stack:
    """The running services.

    Attributes:
        engine: where they run.
        override: what is unlike docker/compose.yaml.
        ports: where each is published on the loopback interface.
    """

    engine: Engine
    override: Path
    ports: dict[str, int]

    def compose(self, *arguments: str) -> str:
        """Runs `docker compose` and returns what it said.

        Raises:
            CheckError: as `check.run`.
        """
        return self.engine.compose(*arguments, overrides=(self.override,))

    def container(self, service: str) -> str:
        """Id of the service's container, running or not."""
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What Docker knows of the service's container."""
        [described] = json.loads(self.engine.docker("inspect", self.container(service)))
        return dict(described)


@contextmanager
def running_stack(engine: Engine, kept: Path) -> Iterator[Stack]:
    """The services for as long as the block; then nothing of them is left.

    Raises:
        CheckError: they do not become healthy; their logs have been printed.
    """
    begin("compose")
    services = ("server", "gateway", "prometheus")
    ports = dict(zip(services, free_ports(len(services)), strict=True))
    override = kept / "override.yaml"
    override.write_text(_OVERRIDE.format(**ports), encoding="utf-8")
    stack = Stack(engine, override, ports)
    # What a run that was cut off has left.
    stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
    try:
        stack.compose("up", "--no-build", "--wait", "--wait-timeout", "300")
        passed("up: every service is healthy")
        yield stack
    except FAILURES:
        print(stack.compose("logs", "--no-color", "--tail", "40"))
        raise
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--timeout", "60")
