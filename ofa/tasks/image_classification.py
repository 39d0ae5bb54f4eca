"""Image classification: a constant prompt and a picture in, labels out."""

from __future__ import annotations

from ofa.tasks.label_task import LabelTask
from ofa.tasks.task import IMAGE


class ImageClassificationTask(LabelTask):
    """ModelScope's `image-classification`."""

    name = "image-classification"
    ensemble = "classification"
    inputs = (IMAGE,)
    default_prompt = " what does the image describe?"

    @classmethod
    def decoder_prompt_type(cls, gen_type: str, prompt_type: str) -> str:  # noqa: ARG003
        """The decoder starts with a label, whatever the folder says."""
        return "none"
