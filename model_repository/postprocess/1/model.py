"""Adapter: the generator's hypotheses of one row -> captions."""

from typing import Any

import numpy as np

from ofa.tasks import load_task
from ofa_server import adapters
from ofa_server.tensors import Tensors


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._task = load_task(adapters.version_directory())

    def execute(self, requests: list[Any]) -> list[Any]:
        return adapters.answer_each(requests, self._postprocess)

    def _postprocess(self, tensors: Tensors) -> Tensors:
        answer = self._task.postprocess(
            tensors["token_ids"],
            tensors["hypothesis_scores"],
            tensors["hypothesis_log_probs"],
            tensors["num_captions"].item(),
        )
        return {
            "captions": np.array(answer.captions, dtype=object),
            "scores": answer.scores,
            "token_log_probs": answer.token_log_probs,
        }
