"""Free generation: any prompt, with a picture or without one, to what a pretrained model makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ofa.tasks.task import IMAGE, TEXT, read_text
from ofa.tasks.text_task import TextTask
from ofa.tensors import Tensors, TensorSpec

_ALLOW_SPECIAL_TOKENS = TensorSpec("allow_special_tokens", np.bool_, (1,), optional=True)


class GenerateTask(TextTask):
    """The task of checkpoints that were not made for a particular one.

    `text` is the whole prompt as it stands; a leading space matters. With `allow_special_tokens`,
    `<bin_n>`, `<code_n>` and `<mask>` in it stand for their tokens.
    """

    name = "generate"
    ensemble = "generate"
    results = "texts"
    inputs = (IMAGE._replace(optional=True), TEXT, _ALLOW_SPECIAL_TOKENS)
    default_prompt = ""

    def prompt(self, request: Tensors) -> str:
        """The caller's text."""
        return read_text(request, TEXT.name)

    def encode_prompt(self, request: Tensors) -> list[int]:
        """Token ids of the prompt with BOS and EOS."""
        allow = request.get(_ALLOW_SPECIAL_TOKENS.name)
        return self.tokenizer.encode(
            self.prompt(request),
            self.settings.max_source_length,
            allow_special_tokens=allow is not None and bool(allow.item()),
        )

    def picture(self, request: Tensors) -> dict[str, npt.NDArray[Any]]:
        """The pixels; one black pixel stands for no picture."""
        if IMAGE.name in request:
            return super().picture(request)
        return {"patch_images": np.zeros((3, 1, 1), np.uint8)}
