"""What an installed ofa_client brings to its user."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
USER_CODE = """\
import asyncio
from collections.abc import AsyncIterator
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
from ofa_client.modelscope import OutputKeys, Tasks, pipeline


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
    for path, many in client.caption_many([Path("apple.jpg")], 4, num_captions=2):
        failed: str = f"{path.name} {many.code}" if isinstance(many, OFAClientError) else many.text
    version: str = client.caption("https://example.com/apple.jpg").call.model_version
found = pipeline(Tasks.visual_grounding, server="localhost:8001")(("apple.jpg", "the apple"))
boxes: list[list[float]] = found[OutputKeys.BOXES]


async def stream(client: AsyncOFAClient, pictures: AsyncIterator[bytes]) -> None:
    async for picture, result in client.caption_many(pictures, ordered=False):
        if not isinstance(result, OFAClientError):
            print(len(picture), result.text)


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


@pytest.fixture(scope="module")
def examples_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples, so that mypy reads the packages once."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize(
    "name",
    ["caption_folder.py", "caption_folder_async.py", "from_modelscope.py", "several_servers.py"],
)
def test_an_example_passes_mypy_strict(name: str, examples_folder: Path) -> None:
    checked = mypy_strict((EXAMPLES / name).read_text("utf-8"), examples_folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("module", ["torch", "ofa", "PIL"])
def test_importing_the_client_does_not_import(module: str) -> None:
    code = f"import sys, ofa_client; sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
