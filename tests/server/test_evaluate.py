"""`ofa evaluate` against a real Triton, with the server's own answers as the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ofa_client import OFAClient
from tests.server.evaluating import evaluate, write_truth
from tests.server.processes import ServeProcess
from tests.server.requests import encoded, picture


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(picture(number)))
    return paths


def test_answers(task_server: ServeProcess, pictures: list[Path], tmp_path: Path) -> None:
    question = "what is it?"
    with OFAClient(task_server.grpc_address) as client:
        answers = [client.answer(path, question).text for path in pictures]
    examples: list[dict[str, Any]] = [
        {"image": path.name, "question": question, "answers": [answer]}
        for path, answer in zip(pictures, answers, strict=True)
    ]
    examples[2]["answers"] = ["something else"]
    annotations = write_truth(tmp_path / "truth.jsonl", examples)
    report = ["vqa: 3 of 3 questions", "  Accuracy   66.67"]
    assert evaluate("vqa", tmp_path, annotations, task_server.grpc_address) == report
    # The answers are kept, so that the second run needs no server.
    assert evaluate("vqa", tmp_path, annotations, "127.0.0.1:9") == report


def test_boxes(task_server: ServeProcess, pictures: list[Path], tmp_path: Path) -> None:
    """Made-up weights give some boxes the wrong way round, which are never right."""
    with OFAClient(task_server.grpc_address) as client:
        boxes = [client.ground(path, "the thing").box for path in pictures]
    truths = [
        [box.x0, box.y0, box.x1, box.y1]
        if box is not None and box.x0 < box.x1 and box.y0 < box.y1
        else None
        for box in boxes
    ]
    num_right = sum(truth is not None for truth in truths)
    assert num_right > 0, boxes
    examples = [
        {"image": path.name, "text": "the thing", "box": truth or [0, 0, 1, 1]}
        for path, truth in zip(pictures, truths, strict=True)
    ]
    annotations = write_truth(tmp_path / "truth.jsonl", examples)
    report = evaluate("grounding", tmp_path, annotations, task_server.grpc_address)
    share = num_right / len(truths)
    assert report == ["grounding: 3 of 3 phrases", f"  Accuracy  {100 * share:6.2f}"]
