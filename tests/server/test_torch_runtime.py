"""`ofa serve` before a repository whose exporter had a newer PyTorch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import torch

from tests.server.echo_repository import write_echo_repository
from tests.server.processes import OFA, START_DEADLINE_S, ServeProcess


def test_an_older_runtime_is_refused_in_a_sentence(tmp_path: Path) -> None:
    repository = write_echo_repository(tmp_path / "models")
    manifest = {"versions": {"torch": "99.1.0"}}
    (repository / "echo" / "1" / "manifest.json").write_text(json.dumps(manifest))
    ports = ServeProcess(repository, tmp_path / "unused.log").port_arguments
    completed = subprocess.run(
        [OFA, "serve", "--repository", repository, *ports],
        capture_output=True,
        text=True,
        timeout=START_DEADLINE_S,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stderr == (
        "ofa serve: version 1 of echo was exported with torch 99.1.0 and this server runs "
        f"{torch.__version__}; export it with that version, or serve with a newer one\n"
    )
