"""Two checkpoints under one name: loaded, switched, rolled back and removed under load."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from ofa.tensors import Tensors
from tests.reference.checkpoints import RECIPES, Calibration, write_checkpoint
from tests.server.echo_repository import MODEL, write_echo_repository
from tests.server.gateway_process import gateway_serving
from tests.server.library import answer_of_library
from tests.server.processes import (
    OFA,
    START_DEADLINE_S,
    STOP_DEADLINE_S,
    ServeProcess,
    descendants,
    serving,
    wait_until,
)
from tests.server.requests import TIMEOUT_S, encoded, picture, request_inputs

PICTURES = [encoded(picture(seed)) for seed in range(4)]
POLL = ("--model-control", "poll")


class Said(NamedTuple):
    """An answer as far as it tells who gave it."""

    captions: tuple[str, ...]
    scores: tuple[float, ...]

    @classmethod
    def of(cls, answer: Tensors) -> Said:
        captions = tuple(text.decode() for text in answer["captions"])
        # What was exported rounds otherwise than the eager network.
        return cls(captions, tuple(round(float(score), 2) for score in answer["scores"]))


@pytest.fixture(scope="session")
def second_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Differs from the first in every member: in options, in weights and in words."""
    folder = tmp_path_factory.mktemp("second") / "second"
    recipe = replace(RECIPES["small"], seed=7)
    settings = {
        "patch_image_size": 96,
        "prompt": " what is in the image?",
        "num_return_sequences": 2,
        "beam_search": {"beam_size": 5, "max_len_b": 12},
    }
    write_checkpoint(folder, recipe, Calibration.load(RECIPES["small"]), settings)
    file = folder / "vocab.json"
    ids = json.loads(file.read_text("utf-8"))
    words = [word for word in ids if not word.startswith("<")]
    numbers = [ids[word] for word in words]
    file.write_text(json.dumps(ids | dict(zip(words, numbers[1:] + numbers[:1], strict=True))))
    return folder


def ofa(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OFA, *arguments], capture_output=True, text=True, timeout=START_DEADLINE_S, check=False
    )


def succeed(*arguments: str | Path) -> None:
    completed = ofa(*arguments)
    assert completed.returncode == 0, completed.stderr


def refusal(*arguments: str | Path) -> str:
    completed = ofa(*arguments)
    assert completed.returncode == 1
    [sentence] = completed.stderr.splitlines()
    return sentence


def ask(client: grpcclient.InferenceServerClient, image: bytes) -> tuple[str, Said]:
    """The version that answers, and what it says."""
    result = client.infer("caption", request_inputs(image=image), client_timeout=TIMEOUT_S)
    answer = {name: result.as_numpy(name)[0] for name in ("captions", "scores")}
    return result.get_response().model_version, Said.of(answer)


class Load:
    """Clients that never pause, and all that they were told."""

    def __init__(self, address: str) -> None:
        self.answers: list[tuple[int, str, Said]] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(address, n)) for n in range(3)]

    def _run(self, address: str, number: int) -> None:
        with grpcclient.InferenceServerClient(address) as client:
            while not self._stop.is_set():
                number = (number + 1) % len(PICTURES)
                try:
                    self.answers.append((number, *ask(client, PICTURES[number])))
                except InferenceServerException as error:
                    self.failures.append(f"{error.status()} {error.message()}")

    def wait_for_answers(self, count: int) -> None:
        end = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= end or bool(self.failures), "answers", TIMEOUT_S)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def gateway_captions(url: str) -> list[str]:
    body = {"image": base64.b64encode(PICTURES[0]).decode()}
    answer = httpx2.post(f"{url}/v1/captions", json=body, timeout=TIMEOUT_S)
    return [caption["text"] for caption in answer.raise_for_status().json()["captions"]]


def has_version(client: grpcclient.InferenceServerClient, model: str, version: int) -> bool:
    return bool(client.is_model_ready(model, str(version), client_timeout=TIMEOUT_S))


def generators(server: ServeProcess) -> list[int]:
    """Processes of the generator's versions."""
    commands = descendants(server.process.pid)
    return [pid for pid, command in commands.items() if "caption_generator_0_0" in command]


def test_versions_change_under_load_without_a_failed_call_or_a_mixed_answer(
    checkpoint: Path, second_checkpoint: Path, repository: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(repository, models)
    expected = {
        version: [Said.of(answer_of_library(folder, image=image)) for image in PICTURES]
        for version, folder in (("1", checkpoint), ("2", second_checkpoint))
    }
    assert not set(expected["1"]) & set(expected["2"])
    at = ("--repository", models)
    with serving(models, tmp_path / "server.log", POLL) as server:
        load = Load(server.grpc_address)
        asked = ("--server", server.grpc_address)
        client = grpcclient.InferenceServerClient(server.grpc_address)
        with (
            client,
            gateway_serving(server.grpc_address, tmp_path / "gateway.log") as gateway,
            load.running(),
        ):
            load.wait_for_answers(20)
            succeed("export", second_checkpoint, *at, "--precision", "float32", "--version", "2")
            # Waits until the server has it.
            succeed("switch", "caption", "2", *at, *asked)
            assert ask(client, PICTURES[0]) == ("2", expected["2"][0])
            assert gateway_captions(gateway.url) == list(expected["2"][0].captions)
            load.wait_for_answers(20)
            succeed("switch", "caption", "1", *at, *asked)
            assert ask(client, PICTURES[0]) == ("1", expected["1"][0])
            assert gateway_captions(gateway.url) == list(expected["1"][0].captions)
            load.wait_for_answers(20)
            succeed("switch", "caption", "2", *at, *asked)
            succeed("remove", "caption", "1", *at)
            wait_until(lambda: len(generators(server)) == 1, "removal", STOP_DEADLINE_S)
            assert not has_version(client, "caption_generator", 1)
            load.wait_for_answers(20)
        assert not load.failures
        wrong = [answer for answer in load.answers if answer[2] != expected[answer[1]][answer[0]]]
        assert not wrong
        versions = [version for _, version, _ in load.answers]
        assert {*versions} == {"1", "2"}
        assert server.probe("/ready")[0] == 200
        # Stubs have come and gone; one that lives is watched all the same.
        os.kill(*generators(server), signal.SIGKILL)
        assert server.wait_until_stopped() == 1
        assert "ofa serve: the Python process of caption_generator_0_0 has died" in server.output


#: Loads for longer than `ofa serve` needs to see a new stub, as real models do.
SLOW = (
    MODEL
    + """
    def initialize(self, args):
        import time
        time.sleep(3)
"""
)
BROKEN = "raise ValueError('not today')\n"


@pytest.fixture
def echo_models(tmp_path: Path) -> Path:
    """An export as far as versions are concerned, whose members start in a second."""
    folder = tmp_path / "models"
    write_echo_repository(folder)
    with (folder / "echo_member" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all {} }\n")
    return folder


def add_member_version(models: Path, version: int, program: str) -> None:
    """In a single step, as an export does."""
    made = models.parent / f"version-{version}"
    made.mkdir()
    (made / "model.py").write_text(program)
    made.rename(models / "echo_member" / str(version))


def test_a_version_that_does_not_load_harms_nobody(echo_models: Path, tmp_path: Path) -> None:
    with serving(echo_models, tmp_path / "server.log", POLL) as server:
        add_member_version(echo_models, 2, BROKEN)
        wait_until(lambda: "not today" in server.output, "a failed load", START_DEADLINE_S)
        add_member_version(echo_models, 3, MODEL)
        with grpcclient.InferenceServerClient(server.grpc_address) as client:
            # Triton tries again with every look at the repository.
            failed = "failed to load 'echo_member' version 2"
            count = server.output.count(failed)
            wait_until(lambda: server.output.count(failed) > count, "another", START_DEADLINE_S)
            (echo_models / "echo_member" / "2").rename(tmp_path / "removed")
            wait_until(lambda: has_version(client, "echo_member", 3), "version 3", START_DEADLINE_S)
            assert has_version(client, "echo_member", 1)
            assert client.infer("echo", request_inputs(image=b"hello"), client_timeout=TIMEOUT_S)
            assert client.is_server_ready()
        assert server.probe("/ready")[0] == 200
        assert server.process.poll() is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_death_of_a_stub_of_any_version_ends_the_server(
    echo_models: Path, tmp_path: Path, version: int
) -> None:
    with serving(echo_models, tmp_path / "server.log", POLL) as server:
        add_member_version(echo_models, 2, SLOW)
        with grpcclient.InferenceServerClient(server.grpc_address) as client:
            wait_until(lambda: has_version(client, "echo_member", 2), "version 2", START_DEADLINE_S)
        path = str(echo_models / "echo_member" / str(version) / "model.py")
        stub = next(
            pid for pid, command in descendants(server.process.pid).items() if path in command
        )
        os.kill(stub, signal.SIGKILL)
        assert server.wait_until_stopped() == 1
        assert "ofa serve: the Python process of echo_member_0_" in server.output
