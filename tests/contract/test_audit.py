"""`make audit` with the real pip-audit and a vulnerability service of our own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FINDING = {
    "id": "GHSA-test",
    "aliases": ["CVE-2026-0001"],
    "summary": "a test",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "13.0.1"}]}],
        }
    ],
}


class _Service(BaseHTTPRequestHandler):
    """Knows of one vulnerability in one package, as OSV would tell it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = {"vulns": [FINDING]} if asked["package"]["name"] == "pillow" else {}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def audit(folder: Path, service: str, pins: str, findings: str = "") -> tuple[int, str]:
    assert (ROOT / ".venv-ops/bin/pip-audit").is_file(), (
        "pip-audit is missing: run `make ops-tools`"
    )
    (folder / "pins.txt").write_text(pins)
    (folder / "findings.toml").write_text(findings)
    ended = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts/audit.py", "--service", service),
            *("--requirements", folder / "pins.txt", "--findings", folder / "findings.toml"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout


def assessment(expires: str) -> str:
    return f'[[finding]]\nid = "CVE-2026-0001"\nreason = "out of reach"\nexpires = {expires}\n'


def test_what_is_known_to_be_harmless_passes(tmp_path: Path, service: str) -> None:
    code, output = audit(
        tmp_path, service, "pillow==13.0.0\ntqdm==4.70.1\n", assessment("2099-01-01")
    )
    assert code == 0
    assert "assessed: out of reach" in output
    assert "2 packages, 0 findings" in output


@pytest.mark.parametrize("findings", ["", assessment("2026-01-01")], ids=["new", "expired"])
def test_a_finding_fails(tmp_path: Path, service: str, findings: str) -> None:
    code, output = audit(tmp_path, service, "pillow==13.0.0\n", findings)
    assert code == 1
    assert "pillow 13.0.0: " in output
    assert "mended in 13.0.1\n  NOT ASSESSED" in output


def test_without_findings_it_passes(tmp_path: Path, service: str) -> None:
    assert audit(tmp_path, service, "tqdm==4.70.1\n")[0] == 0


def test_a_service_that_is_away_is_said_and_fails_nothing(tmp_path: Path, service: str) -> None:
    away = service.rpartition(":")[0] + ":1"
    code, output = audit(tmp_path, away, "pillow==13.0.0\n")
    assert code == 0
    assert "NOTHING WAS AUDITED" in output


def test_a_tool_that_fails_is_no_service_that_is_away(tmp_path: Path, service: str) -> None:
    assert audit(tmp_path, service, "pillow>=13\n")[0] == 1


def test_every_assessment_has_its_reason_and_an_end() -> None:
    listed = tomllib.loads((ROOT / "scripts/audit_findings.toml").read_text()).get("finding", [])
    for finding in listed:
        assert {*finding} == {"id", "package", "reason", "expires"}
