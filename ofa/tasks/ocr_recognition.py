"""Reading text: a constant prompt and a picture of text in, the text out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ofa.errors import CheckpointError
from ofa.image import DOCUMENT_SIZE, MIN_TEXT_SIDE, resize_document, resize_scene
from ofa.tasks.settings import TaskSettings
from ofa.tasks.task import IMAGE
from ofa.tasks.text_task import TextTask


class OcrRecognitionTask(TextTask):
    """ModelScope's `ocr-recognition`."""

    name = "ocr-recognition"
    ensemble = "ocr"
    results = "texts"
    inputs = (IMAGE,)
    #: In every language.
    default_prompt = "图片上的文字是什么?"

    def __init__(self, settings: TaskSettings, folder: Path) -> None:
        super().__init__(settings, folder)
        size = settings.patch_image_size
        if settings.is_document and size != DOCUMENT_SIZE:
            raise CheckpointError(f"patch_image_size is {size}; is_document needs {DOCUMENT_SIZE}")
        if size < MIN_TEXT_SIDE:
            raise CheckpointError(
                f"patch_image_size is {size}; {self.name} needs {MIN_TEXT_SIDE} or more"
            )

    def resize(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """An RGB picture as uint8 [3, S, S], text not squeezed."""
        if self.settings.is_document:
            return resize_document(image)
        return resize_scene(image, self.settings.patch_image_size)
