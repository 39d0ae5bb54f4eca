"""Text classification: two sentences in, whether one implies the other out."""

from __future__ import annotations

from ofa.tasks.label_task import LabelTask
from ofa.tasks.task import TEXT, TEXT2, read_text
from ofa.tensors import Tensors
from ofa.text import clean_sentence


class TextClassificationTask(LabelTask):
    """ModelScope's `text-classification`: does `text` imply `text2`?

    The reference ignores any other prompt.
    """

    name = "text-classification"
    ensemble = "text_classification"
    inputs = (TEXT, TEXT2)
    default_prompt = ' can text1 " {} " imply text2 " {} "?'
    forces_prefix = True

    def prompt(self, request: Tensors) -> str:
        """Both sentences in their template."""
        max_words = self.settings.max_source_length
        texts = [clean_sentence(read_text(request, spec.name), max_words) for spec in self.inputs]
        return self.default_prompt.format(*texts)
