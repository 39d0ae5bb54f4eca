"""Two servers under load, of which one is drained, killed or broken: no call fails."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from ofa_client import AsyncOFAClient, Attempt, OFAClient, RetryPolicy
from ofa_server.warmup import write_warmup_files
from tests.server.processes import (
    START_DEADLINE_S,
    ServeProcess,
    descendants,
    serving,
    stub_pid,
    wait_until,
)

NUM_THREADS, NUM_TASKS = 8, 8
#: The threads are as patient as a batch job is; the tasks have no more patience than the default.
PATIENT = RetryPolicy(max_attempts=50, initial_backoff=0.1, max_backoff=2.0)

TENSORS = """
max_batch_size: 1
input [ { name: "image"  data_type: TYPE_STRING  dims: [ 1 ] } ]
output [
  { name: "captions"  data_type: TYPE_STRING  dims: [ -1 ] },
  { name: "scores"  data_type: TYPE_FP32  dims: [ -1 ] },
  { name: "token_log_probs"  data_type: TYPE_FP32  dims: [ -1, -1 ] }
]
"""
MEMBER = """
backend: "python"
instance_group [ { kind: KIND_CPU  count: 2 } ]
"""
ENSEMBLE = """
platform: "ensemble"
ensemble_scheduling {
  step [
    {
      model_name: "caption_member"
      model_version: -1
      input_map { key: "image"  value: "image" }
      output_map { key: "captions"  value: "captions" }
      output_map { key: "scores"  value: "scores" }
      output_map { key: "token_log_probs"  value: "token_log_probs" }
    }
  ]
}
"""
#: Says what it was sent. It takes its time, so that requests are under way whenever a server ends.
MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.01)
        return [self.answer(request) for request in requests]

    def answer(self, request):
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("captions", image),
                pb_utils.Tensor("scores", np.zeros((1, 1), np.float32)),
                pb_utils.Tensor("token_log_probs", np.zeros((1, 1, 1), np.float32)),
            ]
        )
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble `caption` that starts in a second."""
    folder = tmp_path_factory.mktemp("repository")
    for name, config in (("caption", ENSEMBLE), ("caption_member", MEMBER)):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config + TENSORS)
    (folder / "caption_member" / "1" / "model.py").write_text(MODEL)
    write_warmup_files(folder / "caption", {"image": np.array([b"hello"], dtype=np.object_)})
    return folder


@pytest.fixture
def servers(repository: Path, tmp_path: Path) -> Iterator[list[ServeProcess]]:
    with (
        serving(repository, tmp_path / "first.log") as first,
        serving(repository, tmp_path / "second.log") as second,
    ):
        yield [first, second]


class Load:
    """Threads and tasks that ask both servers, one call after the other, until it is over."""

    def __init__(self, servers: list[ServeProcess]) -> None:
        self.addresses = [server.grpc_address for server in servers]
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(NUM_THREADS + 1)
        self._client = OFAClient(
            self.addresses, timeout=120, retry=PATIENT, on_attempt=self._take_note
        )
        self._calls = [self._threads.submit(self._ask, number) for number in range(NUM_THREADS)]
        self._calls.append(self._threads.submit(asyncio.run, self._ask_on_a_loop()))
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._threads.shutdown()
        self._client.close()

    def finish(self) -> int:
        """Ends the load and returns the number of calls; raises what a call has raised."""
        self._over.set()
        return sum(call.result(150) for call in self._calls)

    def _take_note(self, attempt: Attempt) -> None:
        noted = self.answers if attempt.code == "OK" else self.failures
        noted[attempt.server] += 1

    def _ask(self, number: int) -> int:
        done = 0
        while not self._over.is_set():
            name = f"thread {number}, picture {done}"
            assert self._client.caption(name.encode()).text == name
            done += 1
        return done

    async def _ask_on_a_loop(self) -> int:
        async with AsyncOFAClient(
            self.addresses, timeout=120, on_attempt=self._take_note
        ) as client:

            async def ask(number: int) -> int:
                done = 0
                while not self._over.is_set():
                    name = f"task {number}, picture {done}"
                    assert (await client.caption(name.encode())).text == name
                    done += 1
                return done

            return sum(await asyncio.gather(*map(ask, range(NUM_TASKS))))

    def wait_for_answers(self, server: ServeProcess, count: int = 100) -> None:
        """Waits for that many more answers of a server."""
        wanted = self.answers[server.grpc_address] + count
        wait_until(
            lambda: (
                self.answers[server.grpc_address] >= wanted
                or any(call.done() for call in self._calls)
            ),
            f"{count} answers",
            START_DEADLINE_S,
        )
        assert not any(call.done() for call in self._calls), self.finish()


def drain(server: ServeProcess) -> None:
    server.process.terminate()


def kill(server: ServeProcess) -> None:
    [triton] = [
        pid
        for pid, command in descendants(server.process.pid).items()
        if "tritonserver" in command[0]
    ]
    os.kill(triton, signal.SIGKILL)


def break_process(server: ServeProcess) -> None:
    os.kill(stub_pid(server, "caption_member_0_0"), signal.SIGKILL)


def test_no_call_fails(servers: list[ServeProcess]) -> None:
    first, second = servers
    with Load(servers) as load:
        for end, ending, staying in (
            (drain, first, second),
            (kill, second, first),
            (break_process, first, second),
        ):
            for server in servers:
                load.wait_for_answers(server)
            end(ending)
            ending.wait_until_stopped()
            load.wait_for_answers(staying)
            ending.start()
            ending.wait_until_ready()
        for server in servers:
            load.wait_for_answers(server)
        assert load.finish() > 800
    assert set(load.failures) == set(load.addresses), "both were away while they were asked"
