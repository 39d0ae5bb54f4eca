"""The examples of the client, each as a user runs it."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.unit.scripted_triton import EVERY_ANSWER, ScriptedTriton, Tensors, scripted_server

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, the bytes of which nobody looks into, and something else."""
    for name in ("a.jpg", "b.png", "notes.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def run_example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["caption_folder.py", "caption_folder_async.py"])
def test_a_folder_is_captioned(name: str, folder: Path, scripted_triton: ScriptedTriton) -> None:
    def refuse_b(request: Tensors, context: grpc.ServicerContext) -> Tensors:
        if request["image"].item() == b"b.png":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "image is not a picture")
        return EVERY_ANSWER

    scripted_triton.answer = refuse_b
    finished = run_example(name, folder, "--server", scripted_triton.address)
    assert sorted(finished.stdout.splitlines()) == [
        "a.jpg: a red apple",
        "b.png: failed: image is not a picture",
    ]


def test_a_program_for_modelscope_asks_a_server(
    folder: Path, scripted_triton: ScriptedTriton
) -> None:
    scripted_triton.answer = lambda *_: EVERY_ANSWER
    server = ["--server", scripted_triton.address]
    finished = run_example("from_modelscope.py", folder / "a.jpg", *server)
    assert finished.stdout.splitlines() == [
        "['a red apple']",
        "['two']",
        "the duck [[1.5, 2.0, 30.0, 40.0]]",
        "the parrot [[1.5, 2.0, 30.0, 40.0]]",
    ]


def test_what_one_server_cannot_answer_goes_to_another(
    folder: Path, scripted_triton: ScriptedTriton
) -> None:
    scripted_triton.answer = lambda *_: EVERY_ANSWER
    with scripted_server() as stopping:
        stopping.fail(grpc.StatusCode.UNAVAILABLE, "Server is stopping")
        servers = [stopping.address, scripted_triton.address]
        finished = run_example("several_servers.py", folder, *servers)
    first, second, *counts = finished.stdout.splitlines()
    assert first == f"a.jpg: a red apple  ({scripted_triton.address})"
    assert second == f"b.png: a red apple  ({scripted_triton.address})"
    by_status = dict(line.split(": ") for line in counts)
    assert by_status.pop(f"{scripted_triton.address} OK").startswith("2 attempts, ")
    [(status, count)] = by_status.items()
    assert status == f"{stopping.address} UNAVAILABLE"
    assert count.startswith(f"{len(stopping.requests)} attempts, ")
    told = finished.stderr.splitlines()
    assert len(told) == len(stopping.requests) > 0
    for line in told:
        assert line == (f"{stopping.address}: UNAVAILABLE: Server is stopping; attempt 2 in 0.00 s")
