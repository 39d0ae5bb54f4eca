"""Tasks whose answers are labels of a fixed list, and their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa.tasks.settings import TaskSettings
from ofa.tasks.text_task import TextTask
from ofa.tensors import Tensors, TensorSpec


class LabelTask(TextTask):
    """Ranks all labels, or decodes those that beam search finds.

    The answer holds `labels`, n texts, best first, and `probabilities` float32 [n]. Those of all
    labels sum to 1; a text that beam search finds has the product over its tokens. The order of
    these is the search's own, as in the reference: a prompt that it was made to begin with counts
    in a mean over all tokens, so that a longer label can come before a likelier one.
    """

    results = "labels"
    can_traverse = True

    @classmethod
    def answer(cls, settings: TaskSettings) -> tuple[TensorSpec, ...]:  # noqa: ARG003 - of others
        """Labels and probabilities."""
        return (
            TensorSpec(cls.results, np.object_, (-1,)),
            TensorSpec("probabilities", np.float32, (-1,)),
        )

    def postprocess(self, tensors: Tensors) -> Tensors:
        """The likeliest labels."""
        count = tensors["num_hypotheses"].item()
        if self.settings.search == "traverse":
            labels, log_probs = rank_labels(self.settings.labels, tensors["label_log_probs"], count)
            return {"labels": labels, "probabilities": np.exp(log_probs)}
        # What beam search was made to begin with is no part of the label.
        start = tensors["prefix_length"].item() if self.has_prefix(self.settings) else 0
        token_ids: npt.NDArray[np.int64] = tensors["token_ids"][:count, start:]
        log_probs = tensors["hypothesis_log_probs"][:count, start:].sum(axis=1)
        # Too few hypotheses, or one that ended within its prefix: no token, no label.
        is_label = (token_ids != self.tokenizer.pad_id).any(axis=1)
        texts = [self.finish_text(self.tokenizer.decode(ids)) for ids in token_ids.tolist()]
        return {
            "labels": np.array([text.encode() for text in texts], np.object_),
            "probabilities": np.where(is_label, np.exp(log_probs), np.float32(0)),
        }


def rank_labels(
    labels: Sequence[str], log_probs: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """The likeliest labels; of equal ones the first, as the reference has it.

    Args:
        labels: N, in the order of their file.
        log_probs: [N].
        count: n, how many are wanted.

    Returns:
        UTF-8 bytes [n] and log-probabilities [n].
    """
    order = np.argsort(-log_probs, kind="stable")[:count]
    return np.array([labels[index].encode() for index in order], np.object_), log_probs[order]
