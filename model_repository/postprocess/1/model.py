"""Adapter, the same for every task: one row of what the generator found -> the answer."""

from typing import Any

from ofa.tasks import load_task
from ofa_server import adapters


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._task = load_task(adapters.version_directory())

    def execute(self, requests: list[Any]) -> list[Any]:
        return adapters.answer_each(requests, self._task.postprocess)
