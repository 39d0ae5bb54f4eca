"""Adapter: an encoded picture and the options of a request -> one row for the generator."""

from typing import Any

from ofa.tasks import load_task
from ofa_server import adapters
from ofa_server.tensors import Tensors, generator_tensors, options_in


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._task = load_task(adapters.version_directory())

    def execute(self, requests: list[Any]) -> list[Any]:
        return adapters.answer_each(requests, self._preprocess)

    def _preprocess(self, tensors: Tensors) -> Tensors:
        image_bytes = tensors["image"].item()
        return generator_tensors(self._task.preprocess(image_bytes, options_in(tensors)))
