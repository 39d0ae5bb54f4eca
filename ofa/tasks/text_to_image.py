"""Text to image: a caption in, pictures out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ofa.clip_tokenizer import CONTEXT_LENGTH, CLIPTokenizer
from ofa.options import COUNT_OPTION, check_known, check_range
from ofa.tasks.settings import TaskSettings
from ofa.tasks.task import TEXT, Task, TaskTensors, read_text
from ofa.tensors import Tensors, TensorSpec

#: Words of a caption, and then tokens of the prompt, that are read. The folder's `max_src_length`
#: plays no part (modelscope `preprocessors/ofa/text_to_image_synthesis.py`).
_MAX_LENGTH = 64

_SEED = TensorSpec("seed", np.int64, (1,))
_CLIP_IDS = TensorSpec("clip_ids", np.int64, (CONTEXT_LENGTH,))
_PIXELS = TensorSpec("pixels", np.uint8, (-1, 3, -1, -1))
_IMAGE_SCORES = TensorSpec("image_scores", np.float32, (-1,))
_IMAGE_LOG_PROBS = TensorSpec("image_log_probs", np.float32, (-1,))


class TextToImageTask(Task):
    """ModelScope's `text-to-image-synthesis`.

    The answer holds n PNG files as `images`, the one that CLIP finds most like the text first,
    `scores` float32 [n], the cosine that it finds, and `log_probs` float32 [n], the mean
    log-probability of a picture's codes. The same text, `seed` and `num_images` give the same
    pictures; more of them are the same ones and others.
    """

    name = "text-to-image-synthesis"
    ensemble = "text_to_image"
    results = "images"
    inputs = (TEXT, _SEED._replace(optional=True))
    default_prompt = "what is the complete image? caption: {}"

    def __init__(self, settings: TaskSettings, folder: Path) -> None:
        """Make the task ready to run, see `Task`."""
        super().__init__(settings, folder)
        self.clip_tokenizer = CLIPTokenizer(folder)

    def save(self, directory: Path) -> None:
        """Write what `ofa.tasks.load_task` reads."""
        super().save(directory)
        self.clip_tokenizer.save(directory)

    @classmethod
    def search(cls, gen_type: str) -> str:  # noqa: ARG003 - there is one way to draw
        """Codes are sampled."""
        return "sampling"

    @classmethod
    def longest_prompt(cls, max_source_length: int) -> int:  # noqa: ARG003 - plays no part
        """Always the same."""
        return _MAX_LENGTH

    @classmethod
    def tensors_for(cls, settings: TaskSettings) -> TaskTensors:
        """The interfaces of the parts that draw pictures."""
        source_ids = TensorSpec("source_ids", np.int64, (-1,))
        count = TensorSpec(COUNT_OPTION, np.int32, (1,))
        return TaskTensors(
            request=(*cls.inputs, TensorSpec(cls.count_option(), np.int32, (1,), optional=True)),
            generator_inputs=(source_ids, _CLIP_IDS, _SEED, count),
            kept=(count,),
            generator_outputs=(_PIXELS, _IMAGE_SCORES, _IMAGE_LOG_PROBS),
            answer=cls.answer(settings),
        )

    @classmethod
    def answer(cls, settings: TaskSettings) -> tuple[TensorSpec, ...]:  # noqa: ARG003 - of others
        """Pictures, scores and log-probabilities."""
        return (
            TensorSpec(cls.results, np.object_, (-1,)),
            TensorSpec("scores", np.float32, (-1,)),
            TensorSpec("log_probs", np.float32, (-1,)),
        )

    def preprocess(self, request: Tensors) -> Tensors:
        """One request as one row of the generator, see `Task`."""
        clip_ids = self.clip_tokenizer.encode(read_text(request, TEXT.name))
        return {**super().preprocess(request), _CLIP_IDS.name: np.array(clip_ids, np.int64)}

    def resolve(self, request: Tensors) -> dict[str, npt.NDArray[Any]]:
        """The seed, 0 unless the request names one, and the number of pictures."""
        given = {name: tensor.item() for name, tensor in request.items() if name != TEXT.name}
        check_known(given, (_SEED.name, self.count_option()))
        seed = given.get(_SEED.name, 0)
        count = given.get(self.count_option(), self.settings.defaults.num_hypotheses)
        check_range(self.count_option(), count, 1, self.settings.limits.max_beam_size)
        return {
            _SEED.name: np.array([seed], np.int64),
            COUNT_OPTION: np.array([count], np.int32),
        }

    def encode_prompt(self, request: Tensors) -> list[int]:
        """Token ids of the prompt with BOS and EOS."""
        return self.tokenizer.encode(self.prompt(request), _MAX_LENGTH)

    def prompt(self, request: Tensors) -> str:
        """The caption in lower case behind the one prompt that the reference has."""
        words = read_text(request, TEXT.name).lower().split()
        return self.default_prompt.format(" ".join(words[:_MAX_LENGTH]))

    def postprocess(self, tensors: Tensors) -> Tensors:
        """The pictures as PNG files."""
        count = tensors[COUNT_OPTION].item()
        images = [_encode_png(pixels) for pixels in tensors[_PIXELS.name][:count]]
        return {
            self.results: np.array(images, np.object_),
            "scores": tensors[_IMAGE_SCORES.name][:count],
            "log_probs": tensors[_IMAGE_LOG_PROBS.name][:count],
        }


def _encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A picture [3, height, width] as a file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()
