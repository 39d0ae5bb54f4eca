"""Visual grounding: a picture and a description in, boxes around what it describes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa.tasks.settings import TaskSettings
from ofa.tasks.task import IMAGE, TEXT, Task, TaskTensors, read_text
from ofa.tensors import Tensors, TensorSpec
from ofa.text import check_one_slot, clean_caption
from ofa.tokenizer import NUM_BINS

#: Width and height of the picture in pixels.
_IMAGE_SIZE = TensorSpec("image_size", np.int32, (2,))
#: Location tokens of a box: x0, y0, x1, y1.
_NUM_CORNERS = 4


class VisualGroundingTask(Task):
    """ModelScope's `visual-grounding`.

    The answer holds `boxes` float32 [n, 4], x0, y0, x1 and y1 in pixels of the upright picture,
    best first, `scores` float32 [n], the mean log-probability of a box's four location tokens, and
    `token_log_probs` float32 [n, 4]. Like the reference's, boxes are neither clipped nor ordered.
    Hypotheses that are no box are left out, so that n can be less than was asked for.
    """

    name = "visual-grounding"
    ensemble = "grounding"
    results = "boxes"
    inputs = (IMAGE, TEXT)
    default_prompt = ' which region does the text " {} " describe?'

    def __init__(self, settings: TaskSettings, folder: Path) -> None:
        super().__init__(settings, folder)
        check_one_slot(settings.prompt)

    @classmethod
    def tensors_for(cls, settings: TaskSettings) -> TaskTensors:
        """The interfaces; postprocess needs the picture's size."""
        tensors = super().tensors_for(settings)
        return replace(tensors, kept=(*tensors.kept, _IMAGE_SIZE))

    @classmethod
    def answer(cls, settings: TaskSettings) -> tuple[TensorSpec, ...]:  # noqa: ARG003 - of others
        """Boxes, scores and log-probabilities."""
        return (
            TensorSpec(cls.results, np.float32, (-1, _NUM_CORNERS)),
            TensorSpec("scores", np.float32, (-1,)),
            TensorSpec("token_log_probs", np.float32, (-1, _NUM_CORNERS)),
        )

    def prompt(self, request: Tensors) -> str:
        """The description in its template."""
        text = clean_caption(read_text(request, TEXT.name), self.settings.max_source_length)
        return self.settings.prompt.format(text)

    def picture(self, request: Tensors) -> dict[str, npt.NDArray[Any]]:
        """The pixels, and the size that they had."""
        image = self.decode(request)
        return {
            "patch_images": self.patch_image(image),
            _IMAGE_SIZE.name: np.array(image.size, np.int32),
        }

    def postprocess(self, tensors: Tensors) -> Tensors:
        """The hypotheses that are boxes."""
        count = tensors["num_hypotheses"].item()
        token_ids: npt.NDArray[np.int64] = tensors["token_ids"][:count]
        log_probs: npt.NDArray[np.float32] = tensors["hypothesis_log_probs"][:count]
        is_box = np.array([self._is_box(ids) for ids in token_ids])
        # Where there is no box, there may be fewer than four tokens.
        corners = token_ids[is_box, :_NUM_CORNERS].reshape(-1, _NUM_CORNERS)
        corner_log_probs = log_probs[is_box, :_NUM_CORNERS].reshape(-1, _NUM_CORNERS)
        # The reference's order of float32 operations: first pixels of the square that the bins
        # divide, then of the caller's picture.
        bins = (corners - self.tokenizer.first_bin_id).astype(np.float32)
        square = bins / np.float32(NUM_BINS - 1) * np.float32(self.settings.max_image_size)
        width, height = tensors[_IMAGE_SIZE.name].tolist()
        side = self.settings.patch_image_size
        ratios = np.array([side / width, side / height] * 2, np.float32)
        return {
            "boxes": square / ratios,
            "scores": corner_log_probs.mean(axis=1),
            "token_log_probs": corner_log_probs,
        }

    def _is_box(self, token_ids: npt.NDArray[np.int64]) -> bool:
        """Whether a hypothesis is four location tokens and EOS."""
        if token_ids.size <= _NUM_CORNERS or token_ids[_NUM_CORNERS] != self.tokenizer.eos_id:
            return False
        # Bins are the last tokens of the vocabulary.
        return bool((token_ids[:_NUM_CORNERS] >= self.tokenizer.first_bin_id).all())
