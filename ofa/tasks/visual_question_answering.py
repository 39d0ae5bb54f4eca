"""Visual question answering: a picture and a question in, answers out."""

from __future__ import annotations

import numpy as np

from ofa.tasks.label_task import rank_labels
from ofa.tasks.settings import TaskSettings
from ofa.tasks.task import IMAGE, TEXT, read_text
from ofa.tasks.text_task import TextTask
from ofa.tensors import Tensors, TensorSpec
from ofa.text import clean_question


class VisualQuestionAnsweringTask(TextTask):
    """ModelScope's `visual-question-answering`.

    The question is the prompt; the reference ignores any other. A folder with a list of answers
    and `gen_type` traverse has them ranked: `scores` are then their log-probabilities.
    """

    name = "visual-question-answering"
    ensemble = "vqa"
    results = "answers"
    inputs = (IMAGE, TEXT)
    default_prompt = ""
    can_traverse = True

    @classmethod
    def answer(cls, settings: TaskSettings) -> tuple[TensorSpec, ...]:
        """Texts and scores, and the log-probabilities of tokens that beam search found."""
        specs = super().answer(settings)
        return specs[:2] if settings.search == "traverse" else specs

    def prompt(self, request: Tensors) -> str:
        """The question, which ends with its mark."""
        question = clean_question(read_text(request, TEXT.name), self.settings.max_source_length)
        return f" {question}" if question.endswith("?") else f" {question}?"

    def postprocess(self, tensors: Tensors) -> Tensors:
        """The best answers."""
        if self.settings.search != "traverse":
            return super().postprocess(tensors)
        count = tensors["num_hypotheses"].item()
        answers, log_probs = rank_labels(self.settings.labels, tensors["label_log_probs"], count)
        return {"answers": answers, "scores": np.asarray(log_probs)}
