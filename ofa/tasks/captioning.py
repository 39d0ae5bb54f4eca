"""Captioning: a constant prompt and a picture in, sentences out."""

from __future__ import annotations

import string

from ofa.tasks.task import IMAGE
from ofa.tasks.text_task import TextTask

#: English captions lose all ASCII punctuation (modelscope `ofa_for_all_tasks.py`, postprocess).
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class CaptioningTask(TextTask):
    """ModelScope's `image-captioning`."""

    name = "image-captioning"
    ensemble = "caption"
    results = "captions"
    inputs = (IMAGE,)
    default_prompt = " what does the image describe?"

    def finish_text(self, text: str) -> str:
        """A caption as the caller gets it; an English one without punctuation."""
        finished = super().finish_text(text)
        if self.settings.language == "en":
            finished = finished.translate(_WITHOUT_PUNCTUATION).strip()
        return finished
