"""Visual entailment: a picture and a statement in, yes, no or maybe out."""

from __future__ import annotations

from pathlib import Path

from ofa.errors import InvalidTextError
from ofa.tasks.label_task import LabelTask
from ofa.tasks.settings import TaskSettings
from ofa.tasks.task import IMAGE, TEXT, TEXT2, read_text
from ofa.tensors import Tensors
from ofa.text import clean_caption, count_slots

_ONE_TEXT = ' does the image describe " {} "?'
_TWO_TEXTS = ' can image and text1 " {} " imply text2 " {} "?'


class VisualEntailmentTask(LabelTask):
    """ModelScope's `visual-entailment`.

    Without `text2`: does the picture show what `text` says? With it: do the picture and `text2`
    together imply `text`? A folder's own prompt replaces the prompts for both; its first `{}` is
    for `text2` where there is one, and a text without a `{}` is left out.
    """

    name = "visual-entailment"
    ensemble = "entailment"
    inputs = (IMAGE, TEXT, TEXT2._replace(optional=True))
    #: It depends on the number of texts.
    default_prompt = ""
    forces_prefix = True

    def __init__(self, settings: TaskSettings, folder: Path) -> None:
        super().__init__(settings, folder)
        self._num_slots = count_slots(settings.prompt, max_slots=2)

    def prompt(self, request: Tensors) -> str:
        """The texts in their template.

        Raises:
            InvalidTextError: a text cannot be used, or the prompt needs one more.
        """
        names = (TEXT2.name, TEXT.name) if TEXT2.name in request else (TEXT.name,)
        if self._num_slots > len(names):
            raise InvalidTextError("text2 is missing; this checkpoint's prompt takes two texts")
        max_words = self.settings.max_source_length
        texts = [clean_caption(read_text(request, name), max_words) for name in names]
        template = self.settings.prompt or (_ONE_TEXT if len(texts) == 1 else _TWO_TEXTS)
        return template.format(*texts)
