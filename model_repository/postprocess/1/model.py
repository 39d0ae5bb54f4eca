"""Adapter, the same for every task: one row of what the generator found -> the answer."""

from typing import Any

from ofa.tasks import load_task
from ofa.tensors import Tensors
from ofa_server import adapters
from ofa_server.model_metrics import PostprocessMetrics


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._task = load_task(adapters.version_directory())
        self._metrics = PostprocessMetrics(args)

    def execute(self, requests: list[Any]) -> list[Any]:
        return adapters.answer_each(requests, self._answer, self._metrics)

    def finalize(self) -> None:
        self._metrics.close()

    def _answer(self, tensors: Tensors) -> Tensors:
        answer = self._task.postprocess(tensors)
        self._metrics.answered(self._task.answer_length(tensors))
        return answer
