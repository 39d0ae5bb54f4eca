"""Adapter, the same for every task: a request -> one row for the generator."""

from typing import Any

from ofa.tasks import load_task
from ofa_server import adapters
from ofa_server.admission import find_gate
from ofa_server.model_metrics import PreprocessMetrics


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._task = load_task(adapters.version_directory())
        self._gate = find_gate(args["model_config"])
        self._metrics = PreprocessMetrics(args, adapters.version_directory())
        self._task.on_stage = self._metrics.add_stage

    def execute(self, requests: list[Any]) -> list[Any]:
        if self._gate is not None:
            with self._metrics.admission():
                self._gate.wait()
        return adapters.answer_each(requests, self._task.preprocess, self._metrics)

    def finalize(self) -> None:
        self._metrics.close()
