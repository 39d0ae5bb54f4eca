"""Debian's Prometheus, scraping a server of the tests every second."""

from __future__ import annotations

import http
import http.client
import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ofa_server.background import free_ports
from tests.server.processes import end_of, stop, wait_until

START_DEADLINE_S = 60


class QueryError(Exception):
    """Prometheus does not take a query."""


@dataclass
class Prometheus:
    port: int
    log: Path

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression has now.

        Raises:
            QueryError: it cannot be parsed or evaluated.
        """
        status, body = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        if status != http.HTTPStatus.OK:
            raise QueryError(f"{expression}\n{body}")
        result: list[dict[str, Any]] = json.loads(body)["data"]["result"]
        return result

    @property
    def is_ready(self) -> bool:
        with suppress(OSError):
            return self._get("/-/ready")[0] == http.HTTPStatus.OK
        return False

    def _get(self, path: str) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@contextmanager
def prometheus_scraping(
    metrics_port: int, rules: Path, folder: Path, job: str = "ofa-triton"
) -> Iterator[Prometheus]:
    """Runs Prometheus with a file of rules over one server's metrics.

    Skips the test where there is no Prometheus.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is missing: apt-get install prometheus")
    [port] = free_ports(1)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    prometheus = Prometheus(port, folder / "prometheus.log")
    with prometheus.log.open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: prometheus.is_ready or process.poll() is not None,
            "Prometheus",
            START_DEADLINE_S,
        )
        assert process.poll() is None, f"Prometheus has ended:\n{end_of(prometheus.log)}"
        yield prometheus
    finally:
        stop(process)
