"""A full server refuses pictures before they are decoded."""

from __future__ import annotations

import queue
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.server.processes import ServeProcess, serving, wait_until
from tests.server.requests import TIMEOUT_S, encoded, picture, request_inputs

#: Far more than wait in any queue.
NUM_REQUESTS = 600
IMAGE = encoded(picture(0))

Outcome = grpcclient.InferResult | InferenceServerException


def send_at_once(client: grpcclient.InferenceServerClient, count: int) -> Callable[[], Outcome]:
    """Sends requests; each call of what it returns waits for the next outcome."""
    outcomes: queue.Queue[Any] = queue.Queue()

    def take(result: grpcclient.InferResult | None, error: InferenceServerException | None) -> None:
        outcomes.put(error or result)

    inputs = request_inputs(image=IMAGE)
    for _ in range(count):
        client.async_infer("caption", inputs, take)
    return lambda: outcomes.get(timeout=TIMEOUT_S)


def num_executed(client: grpcclient.InferenceServerClient) -> dict[str, int]:
    """Requests that each model has been given so far."""
    statistics = client.get_inference_statistics().model_stats
    return {model.name: model.inference_count for model in statistics}


def gauge(server: ServeProcess, name: str, **labels: str) -> int:
    url = f"http://127.0.0.1:{server.ports[2]}/metrics"
    with urllib.request.urlopen(url, timeout=60) as page:
        lines = page.read().decode().splitlines()
    [line] = [
        line
        for line in lines
        if line.startswith(f"{name}{{")
        and set(labels.items()) <= set(re.findall(r'(\w+)="([^"]*)"', line))
    ]
    return int(line.rpartition(" ")[2])


def test_refused_pictures_were_never_decoded(
    server: ServeProcess, client: grpcclient.InferenceServerClient
) -> None:
    rejected = {"model": "caption_generator", "reason": "REJECTED"}
    rejected_before = gauge(server, "nv_inference_request_failure", **rejected)
    before = num_executed(client)
    next_outcome = send_at_once(client, NUM_REQUESTS)
    outcomes = [next_outcome() for _ in range(NUM_REQUESTS)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, InferenceServerException)]
    assert {refusal.status() for refusal in refusals} == {"StatusCode.UNAVAILABLE"}
    assert all("Exceeds maximum queue size" in refusal.message() for refusal in refusals)
    # 64 wait encoded, two are in the hands of preprocess, and the generator has its own.
    num_answers = NUM_REQUESTS - len(refusals)
    assert 66 <= num_answers < NUM_REQUESTS

    after = num_executed(client)
    assert after["caption_preprocess"] - before["caption_preprocess"] == num_answers
    assert after["caption_generator"] - before["caption_generator"] == num_answers
    assert gauge(server, "nv_inference_request_failure", **rejected) == rejected_before
    wait_until(
        lambda: gauge(server, "nv_inference_pending_request_count", model="caption_generator") == 0,
        "empty queue",
        60,
    )


def test_as_many_clients_as_fit_are_never_refused(
    client: grpcclient.InferenceServerClient,
) -> None:
    outcomes: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        client.async_infer("caption", inputs, lambda result, error: outcomes.put(error or result))

    inputs = request_inputs(image=IMAGE)
    for _ in range(64):
        ask()
    for number in range(192):
        assert not isinstance(outcomes.get(timeout=TIMEOUT_S), InferenceServerException)
        # Each client asks again as soon as it has its answer.
        if number < 128:
            ask()


def test_who_waits_at_the_gate_does_not_hold_up_the_end(repository: Path, tmp_path: Path) -> None:
    with (
        serving(repository, tmp_path / "server.log") as server,
        grpcclient.InferenceServerClient(server.grpc_address) as client,
    ):
        next_outcome = send_at_once(client, 100)
        next_outcome()
        server.process.terminate()
        assert server.wait_until_stopped() == 0
        assert "Exit timeout expired" not in server.output
        # Every one has an outcome.
        for _ in range(99):
            next_outcome()
