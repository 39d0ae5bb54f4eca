"""`python -m training.evaluate --save` writes what `ofa evaluate` reads."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from ofa_server.evaluation import BENCHMARKS, Source
from ofa_server.evaluation.benchmark import Prediction
from training.evaluate import ANNOTATIONS, Case, encode, save

RED = Image.new("RGB", (40, 30), (255, 0, 0))
JPEG, PNG = encode(RED, as_png=False), encode(RED, as_png=True)
CASES: dict[str, list[Case]] = {
    "caption": [
        Case(JPEG, (), ("a bear above a swan",)),
        Case(PNG, (), ("a swan below a bear", "a bear above a bird")),
    ],
    "vqa": [Case(JPEG, ("what?",), ("a bear",)), Case(PNG, ("how many?",), ("two",))],
    "grounding": [
        Case(JPEG, ("the bear",), (), (1.5, 2.0, 20.0, 30.0)),
        Case(PNG, ("the swan",), (), (0.0, 0.0, 40.0, 15.0)),
    ],
}
TRUE_ANSWERS: dict[str, list[Prediction]] = {
    "caption": ["a bear above a swan", "a swan below a bear"],
    "vqa": ["a bear", "two"],
    "grounding": [[1.5, 2.0, 20.0, 30.0], [0.0, 0.0, 40.0, 15.0]],
}


def test_saved_cases_are_what_is_asked_and_what_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)  # Java, which is slow to start
    assert list(ANNOTATIONS) == list(BENCHMARKS)
    for task, cases in CASES.items():
        benchmark = BENCHMARKS[task].load(Source(save(tmp_path, task, cases)))
        assert [example.image for example in benchmark.examples] == [
            f"{task}/0.jpg",
            f"{task}/1.png",
        ]
        saved = [(tmp_path / example.image).read_bytes() for example in benchmark.examples]
        assert saved == [JPEG, PNG]
        asked = ["".join(case.texts) for case in cases]
        assert [example.text for example in benchmark.examples] == asked
        keys = [example.key for example in benchmark.examples]
        scores = benchmark.score(dict(zip(keys, TRUE_ANSWERS[task], strict=True)))
        # CIDEr is that of all true captions together, so one of two has not all of it.
        best = [score for name, score in scores.items() if name != "CIDEr"]
        assert best == pytest.approx([100] * len(best))
