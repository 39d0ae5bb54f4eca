"""Tasks whose answers are sentences that beam search finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ofa.tasks.settings import TaskSettings
from ofa.tasks.task import Task
from ofa.tensors import Tensors, TensorSpec
from ofa.text import join_chinese


class TextTask(Task):
    """Decodes the hypotheses, best first.

    The answer holds n texts under the name `results`, `scores` float32 [n], the log-probability
    divided by length ** length_penalty if the checkpoint normalises scores (-inf for a text that
    the search did not find), and `token_log_probs` float32 [n, T], one a token, EOS included,
    zeros after it.
    """

    @classmethod
    def answer(cls, settings: TaskSettings) -> tuple[TensorSpec, ...]:  # noqa: ARG003 - of others
        """Texts, scores and log-probabilities."""
        return (
            TensorSpec(cls.results, np.object_, (-1,)),
            TensorSpec("scores", np.float32, (-1,)),
            TensorSpec("token_log_probs", np.float32, (-1, -1)),
        )

    def postprocess(self, tensors: Tensors) -> Tensors:
        """The best hypotheses as texts."""
        count = tensors["num_hypotheses"].item()
        token_ids: npt.NDArray[np.int64] = tensors["token_ids"][:count]
        texts = [self.finish_text(self.tokenizer.decode(ids)) for ids in token_ids.tolist()]
        longest = int((token_ids != self.tokenizer.pad_id).sum(axis=1).max())
        answer: dict[str, npt.NDArray[Any]] = {
            self.results: np.array([text.encode() for text in texts], np.object_),
            "scores": tensors["hypothesis_scores"][:count],
            "token_log_probs": tensors["hypothesis_log_probs"][:count, :longest],
        }
        return answer

    def finish_text(self, text: str) -> str:
        """A decoded text as the caller gets it; a Chinese one without spaces between its tokens."""
        finished = text.strip()
        return join_chinese(finished) if self.settings.language == "zh" else finished
