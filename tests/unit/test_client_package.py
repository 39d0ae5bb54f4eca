"""What an installed ofa_client brings to its user."""

import subprocess
import sys
from pathlib import Path

import pytest

USER_CODE = """\
import asyncio
from pathlib import Path

import numpy as np
from PIL import Image

from ofa_client import (
    TLS,
    AsyncOFAClient,
    Attempt,
    Box,
    Caption,
    Label,
    OFAClient,
    OFAClientError,
    OverloadedError,
    RetryPolicy,
    UrlPolicy,
)


def best(client: OFAClient, path: Path) -> str:
    try:
        result = client.caption(path, num_captions=3, timeout=2.5)
    except OverloadedError as error:
        return f"again in {error.retry_after + 1}"
    except OFAClientError as error:
        return error.code + error.request_id + error.attempts[-1].server
    captions: tuple[Caption, ...] = result.captions
    log_probs: tuple[float, ...] = captions[0].token_log_probs
    return f"{result.text} {captions[0].score + sum(log_probs)}"


with OFAClient("localhost:8001") as client, open("apple.jpg", "rb") as file:
    best(client, Path("apple.jpg"))
    client.caption(file)
    client.caption(Image.new("RGB", (2, 2)))
    client.caption(np.zeros((2, 2, 3), dtype=np.uint8))
    answer: str = client.answer("apple.jpg", "what is it?", beam_size=3).text
    box: Box | None = client.ground("apple.jpg", "the apple", num_boxes=2).box
    labels: tuple[Label, ...] = client.entail("apple.jpg", "an apple", model="mine").labels
    client.generate("a prompt", Path("apple.jpg"), allow_special_tokens=True)
    png: bytes = client.draw("an apple", seed=3).png
    version: str = client.caption("https://example.com/apple.jpg").call.model_version


def count(attempt: Attempt) -> None:
    print(attempt.seconds + (attempt.retry_in or 0.0))


async def best_of(paths: list[Path]) -> list[str]:
    async with AsyncOFAClient(
        ["a:8001", "b:8001"],
        retry=RetryPolicy(max_attempts=3),
        tls=TLS(root_certificates="ca.pem"),
        token=lambda: "token",
        metadata={"x-team": "vision"},
        urls=UrlPolicy(timeout=3),
        on_attempt=count,
    ) as client:
        results = await asyncio.gather(*(client.caption(path, beam_size=3) for path in paths))
        return [result.text for result in results]
"""


def mypy_strict(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the code as a project of its own, which sees ofa_client as an installed package."""
    (folder / "user_code.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ".cache", "user_code.py"]
    return subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_a_users_code_passes_mypy_strict(tmp_path: Path) -> None:
    checked = mypy_strict(USER_CODE, tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    wrong = (
        USER_CODE.replace("num_captions=3", "num_captions='3'")
        .replace(".score", ".rank")
        .replace("beam_size", "beam")
    )
    checked = mypy_strict(wrong, tmp_path)
    assert '"num_captions" to "caption" of "OFAClient" has incompatible type' in checked.stdout
    assert '"Caption" has no attribute "rank"' in checked.stdout
    assert 'Unexpected keyword argument "beam" for "answer" of "OFAClient"' in checked.stdout


@pytest.mark.parametrize("module", ["torch", "ofa", "PIL"])
def test_importing_the_client_does_not_import(module: str) -> None:
    code = f"import sys, ofa_client; sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
