"""What `ofa evaluate` asks and how it scores the answers: one file a task."""

from __future__ import annotations

from ofa_server.evaluation.benchmark import Benchmark, EvaluationError, Source
from ofa_server.evaluation.boxes import BoxBenchmark
from ofa_server.evaluation.captions import CaptionBenchmark
from ofa_server.evaluation.questions import QuestionBenchmark

__all__ = ["BENCHMARKS", "Benchmark", "EvaluationError", "Source"]

#: By the name of the ensemble that answers.
BENCHMARKS: dict[str, type[Benchmark]] = {
    "caption": CaptionBenchmark,
    "vqa": QuestionBenchmark,
    "grounding": BoxBenchmark,
}
