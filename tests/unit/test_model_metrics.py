"""Our own figures, without a server: what is added up, and what Triton is told of it."""

from __future__ import annotations

import importlib
import json
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ofa import errors
from ofa.tasks.task import STAGES
from tests.unit.fake_triton import Metric, make_pb_utils

PREPROCESS = {"model_name": "caption_zh_preprocess", "model_version": "3"}
POSTPROCESS = {"model_name": "caption_zh_postprocess", "model_version": "3"}
LABELS = {"model": "caption_zh", "version": "3"}


@pytest.fixture
def model_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", make_pb_utils(tmp_path))
    monkeypatch.delitem(sys.modules, "ofa_server.model_metrics", raising=False)
    return importlib.import_module("ofa_server.model_metrics")


@pytest.fixture
def preprocess(model_metrics: ModuleType, tmp_path: Path) -> Iterator[Any]:
    metrics = model_metrics.PreprocessMetrics(PREPROCESS, tmp_path)
    yield metrics
    if vars(metrics):
        metrics.close()


def told(name: str, **labels: str) -> Metric:
    """What Triton knows of one figure."""
    registered = sys.modules["triton_python_backend_utils"].metrics[name]
    return registered[frozenset((LABELS | labels).items())]


def requests_told(outcome: str, reason: str) -> float:
    return told("ofa_requests_total", outcome=outcome, reason=reason).total


def test_every_kind_of_refusal_has_a_reason_of_its_own(preprocess: Any) -> None:
    for error in (
        errors.ImageTooLargeError("a"),
        errors.InvalidImageError("b"),
        errors.InvalidImageError("c"),
        errors.InvalidTextError("d"),
        errors.InvalidOptionError("e"),
        errors.RequestError("f"),
    ):
        preprocess.refused(error)
    preprocess.close()
    assert requests_told("refused", "image_too_large") == 1
    assert requests_told("refused", "unreadable_image") == 2
    assert requests_told("refused", "invalid_text") == 1
    assert requests_told("refused", "invalid_option") == 1
    assert requests_told("refused", "invalid_request") == 1


def test_no_error_of_a_request_is_without_a_reason(model_metrics: ModuleType) -> None:
    kinds = [errors.RequestError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert set(kinds) == set(model_metrics._REFUSALS)


def test_faults_and_cancellations_name_the_member(preprocess: Any) -> None:
    preprocess.failed()
    preprocess.cancelled()
    preprocess.cancelled()
    preprocess.close()
    assert requests_told("failed", "preprocess") == 1
    assert requests_told("cancelled", "preprocess") == 2


def test_figures_are_there_before_anything_has_happened(preprocess: Any) -> None:
    assert requests_told("refused", "unreadable_image") == 0
    assert told("ofa_preprocess_stage_runs_total", stage="decode").total == 0


def test_triton_is_told_within_moments(preprocess: Any) -> None:
    preprocess.failed()
    deadline = time.monotonic() + 60
    while requests_told("failed", "preprocess") == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_told_is_not_told_again(preprocess: Any) -> None:
    preprocess.failed()
    preprocess._tell_once()
    preprocess._tell_once()
    assert requests_told("failed", "preprocess") == 1


def test_a_failure_of_triton_costs_no_later_figures(
    preprocess: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pb_utils = sys.modules["triton_python_backend_utils"]

    def fail(*_: object) -> None:
        raise pb_utils.TritonModelException("no shared memory")

    with monkeypatch.context() as patched:
        patched.setattr(Metric, "increment", fail)
        preprocess.failed()
        preprocess._tell_once()
    preprocess.failed()
    preprocess.close()
    assert requests_told("failed", "preprocess") == 1
    assert "the figures of preprocess were not taken: no shared memory" in pb_utils.log


def test_stages_add_up(preprocess: Any) -> None:
    for seconds in (0.25, 0.5):
        preprocess.add_stage("resize", seconds)
    preprocess.close()
    assert told("ofa_preprocess_stage_seconds_total", stage="resize").total == 0.75
    assert told("ofa_preprocess_stage_runs_total", stage="resize").total == 2
    for stage in set(STAGES) - {"resize"}:
        assert told("ofa_preprocess_stage_runs_total", stage=stage).total == 0


def test_an_answer_counts_and_its_length_is_told(model_metrics: ModuleType) -> None:
    metrics = model_metrics.PostprocessMetrics(POSTPROCESS)
    for length in (7, 3, 7, None):
        metrics.answered(length)
    metrics.close()
    assert requests_told("ok", "none") == 4
    assert sorted(told("ofa_answer_tokens").values) == [3, 7, 7]


def test_the_export_tells_what_is_served(model_metrics: ModuleType, tmp_path: Path) -> None:
    identity = {
        "task": "image-captioning",
        "language": "zh",
        "checkpoint": "some-checkpoint",
        "weights": "0123456789ab",
        "precision": "bfloat16",
        "device": "cpu",
        "torch": "2.13.0",
    }
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    model_metrics.PreprocessMetrics(PREPROCESS, tmp_path).close()
    assert told("ofa_model_info", **identity).total == 1
    assert 0 < told("ofa_model_load_timestamp_seconds").total <= time.time()


def test_an_export_without_an_identity_is_served_as_unknown(preprocess: Any) -> None:
    names = ("task", "language", "checkpoint", "weights", "precision", "device", "torch")
    assert told("ofa_model_info", **dict.fromkeys(names, "unknown")).total == 1


def test_figures_are_dropped_with_their_model(model_metrics: ModuleType, tmp_path: Path) -> None:
    metrics = model_metrics.PreprocessMetrics(PREPROCESS, tmp_path)
    registered = sys.modules["triton_python_backend_utils"].metrics["ofa_model_info"]
    [(labels, info)] = registered.items()
    dropped = weakref.ref(info)
    registered.clear()
    del info, labels
    assert dropped() is not None
    metrics.close()
    assert dropped() is None
