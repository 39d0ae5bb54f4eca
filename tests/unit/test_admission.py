from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ofa_server.admission import (
    METRICS_URL,
    Gate,
    WaitingRows,
    find_gate,
    max_waiting_rows,
    num_gpus,
)


class Generator:
    """Says what a test tells it to, and counts how often it was asked."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.num_looks = 0

    def __call__(self) -> int | None:
        self.num_looks += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def no_sleep(_seconds: float) -> None:
    pytest.fail("nobody had to wait")


# The gate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "num_gates", "expected"),
    [(0, 2, 8), (9, 2, 4), (15, 2, 1), (0, 1, 16), (0, 3, 6), (0, 32, 1), (None, 2, 8)],
)
def test_one_look_is_for_a_share_of_what_is_free(
    waiting: int | None, num_gates: int, expected: int
) -> None:
    generator = Generator(waiting)
    gate = Gate(generator, 16, num_gates, no_sleep)
    for _ in range(expected):
        gate.wait()
    assert generator.num_looks == 1
    gate.wait()
    assert generator.num_looks == 2


def test_it_waits_while_the_generator_has_its_fill() -> None:
    pauses: list[float] = []
    generator = Generator(16, 40, 17, 14)
    gate = Gate(generator, 16, 2, pauses.append)
    gate.wait()
    assert (generator.num_looks, len(pauses)) == (4, 3)


def test_it_looks_more_rarely_the_longer_it_waits() -> None:
    pauses: list[float] = []
    Gate(Generator(*[16] * 50, 0), 16, 2, pauses.append).wait()
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.01)
    assert pauses[-1] == pytest.approx(0.2)
    # Between the bounds it has waited at least twice as long as it will be away.
    for number, pause in enumerate(pauses):
        assert pause in {0.01, 0.2} or pause <= sum(pauses[:number]) / 2 + 1e-9


def test_the_next_wait_is_expected_to_be_like_the_last() -> None:
    pauses: list[float] = []
    gate = Gate(Generator(*[16] * 6, 15, 16, 16, 15, 16, 15), 16, 2, pauses.append)
    gate.wait()
    first = sum(pauses)
    gate.wait()
    assert pauses[6:] == [pytest.approx(first / 2)] * 2
    gate.wait()
    assert len(pauses) == 9
    assert pauses[8] == pytest.approx(first / 2)


class HadToWaitError(Exception):
    """In place of a sleep."""


@pytest.mark.parametrize("num_gates", [1, 2, 3, 5])
def test_several_gates_let_less_than_twice_the_limit_wait(num_gates: int) -> None:
    rows: list[int] = []

    def stop(_seconds: float) -> None:
        raise HadToWaitError

    def pass_all(gate: Gate) -> None:
        while True:
            gate.wait()
            rows.append(1)

    limit = 16
    gates = [Gate(lambda: len(rows), limit, num_gates, stop) for _ in range(num_gates)]
    # The worst order: all have looked at an empty queue before one after the other fills it.
    for gate in gates:
        gate.wait()
    rows.extend([1] * num_gates)
    for gate in gates:
        with pytest.raises(HadToWaitError):
            pass_all(gate)
    assert limit <= len(rows) < 2 * limit


# What it asks -------------------------------------------------------------------------------------

PAGE = """\
# HELP nv_inference_pending_request_count Instantaneous number of pending requests.
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="caption",version="1"} 70
nv_inference_pending_request_count{model="caption_generator",version="10"} 3
nv_inference_pending_request_count{gpu_uuid="GPU-1",model="caption_generator",version="9"} 14
nv_inference_pending_request_count{model="my_caption_generator",version="1"} 100
nv_inference_pending_request_count{model="caption.generator",version="1"} 5
nv_inference_request_success{model="caption_generator",version="1"} 1000
"""


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = PAGE.encode() if self.path == "/metrics" else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def metrics(port: int = 0) -> Iterator[int]:
    """Serves the page to one connection after the other."""
    with HTTPServer(("127.0.0.1", port), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("model", "expected"), [("caption_generator", 17), ("caption.generator", 5), ("other", None)]
)
def test_the_rows_of_all_versions_of_a_model_are_counted(model: str, expected: int | None) -> None:
    with metrics() as port:
        waiting = WaitingRows(f"http://127.0.0.1:{port}/metrics", model)
        assert waiting() == expected
        assert waiting() == expected
        waiting.close()


def test_nobody_who_answers_is_no_number_until_somebody_does() -> None:
    with metrics() as port:
        pass
    waiting = WaitingRows(f"http://127.0.0.1:{port}/metrics", "caption_generator")
    assert waiting() is None
    with metrics(port):
        assert waiting() == 17
        waiting.close()
    assert waiting() is None


# What the configuration says ----------------------------------------------------------------------

CONFIG = {
    "instance_group": [{"name": "caption_preprocess_0", "count": 2, "kind": "KIND_CPU"}],
    "parameters": {
        "generator": {"string_value": "caption_generator"},
        "max_waiting_rows": {"string_value": "4"},
    },
}


def test_the_configuration_and_the_environment_make_a_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    with metrics() as port:
        monkeypatch.setenv(METRICS_URL, f"http://127.0.0.1:{port}/metrics")
        gate = find_gate(json.dumps(CONFIG))
    assert gate is not None
    # Nobody answers any more: requests pass.
    gate.wait()


def test_every_gpu_has_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert max_waiting_rows({"max_waiting_rows_per_gpu": "16"}) == 48
    assert max_waiting_rows({"max_waiting_rows": "16"}) == 16


@pytest.mark.parametrize(
    ("visible", "files", "expected"),
    [
        ("", ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], 2),
        ("1", ["nvidia0", "nvidia1"], 1),
        ("GPU-1,GPU-2,GPU-3", [], 3),
        ("", [], 1),
    ],
)
def test_gpus_are_those_that_triton_sees(
    visible: str,
    files: list[str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for file in files:
        (tmp_path / file).touch()
    assert num_gpus(tmp_path) == expected


def test_without_a_limit_there_is_no_gate() -> None:
    assert find_gate(json.dumps({**CONFIG, "parameters": {}})) is None
