"""The load test as `make load` runs it, for a moment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.server.processes import ServeProcess
from tests.server.requests import encoded, picture

RUN = Path(__file__).parents[2] / "load_tests" / "run.py"


def run_load(server: str, pictures: Path) -> subprocess.CompletedProcess[str]:
    settings = ["--users", "4", "--seconds", "2", "--timeout", "300", "--pictures", str(pictures)]
    return subprocess.run(
        [sys.executable, RUN, "--server", server, *settings],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def test_locust_and_triton_count_the_same_requests(server: ServeProcess, tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(encoded(picture(seed)))
    finished = run_load(server.grpc_address, tmp_path)
    assert finished.returncode == 0, finished.stdout
    [by_locust] = re.findall(r"^gRPC +caption +(\d+) +0\(0", finished.stdout, re.MULTILINE)
    by_triton = re.findall(r"^(caption\w*) +(\d+) +0 ", finished.stdout, re.MULTILINE)
    assert int(by_locust) >= 4
    assert dict(by_triton) == dict.fromkeys(
        ["caption", "caption_preprocess", "caption_generator", "caption_postprocess"], by_locust
    )


def test_a_failed_request_fails_the_run(server: ServeProcess, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    finished = run_load(server.grpc_address, tmp_path)
    assert finished.returncode == 1, finished.stdout
    assert "InvalidImageError('image cannot be read" in finished.stdout


def test_a_server_that_is_not_there_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(encoded(picture(0)))
    finished = run_load("127.0.0.1:1", tmp_path)
    assert finished.returncode == 1, finished.stdout
    assert "127.0.0.1:1 does not answer" in finished.stdout
