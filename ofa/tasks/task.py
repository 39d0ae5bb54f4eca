"""What all tasks have in common: a request becomes one row of the generator, its answer a result.

A task is one file beside this one. It says what its requests hold, what its prompt and its picture
look like, and what it makes of token ids or of the probabilities of labels. The interfaces of the
parts that a picture travels through follow from that: `Task.tensors` has them, tensor by tensor.
"""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from ofa.errors import CheckpointError, InvalidTextError
from ofa.image import decode_image, resize_square
from ofa.options import (
    COUNT_OPTION,
    OPTION_DTYPES,
    GenerationOptions,
    check_known,
    check_range,
    request_options,
    resolve_options,
)
from ofa.tasks.settings import TaskSettings
from ofa.tensors import Tensors, TensorSpec
from ofa.tokenizer import load_tokenizer

IMAGE = TensorSpec("image", np.object_, (1,))
TEXT = TensorSpec("text", np.object_, (1,))
TEXT2 = TensorSpec("text2", np.object_, (1,))

#: Far above what a prompt can hold, and little enough to be tokenised at once.
MAX_TEXT_BYTES = 65_536

#: Triton batches rows of one shape only. Prompts with a caller's text are padded to a multiple of
#: this, so that rows of nearly the same length share a batch.
_LENGTH_STEP = 8

_NUM_HYPOTHESES = TensorSpec(COUNT_OPTION, np.int32, (1,))
_PREFIX_LENGTH = TensorSpec("prefix_length", np.int32, (1,))
_PATCH_IMAGES = TensorSpec("patch_images", np.uint8, (3, -1, -1))
_SOURCE_IDS = TensorSpec("source_ids", np.int64, (-1,))
_HYPOTHESES = (
    TensorSpec("token_ids", np.int64, (-1, -1)),
    TensorSpec("hypothesis_scores", np.float32, (-1,)),
    TensorSpec("hypothesis_log_probs", np.float32, (-1, -1)),
)
_LABEL_LOG_PROBS = TensorSpec("label_log_probs", np.float32, (-1,))

#: What `Task.preprocess` spends its time on, as `Task.on_stage` is told.
STAGES = ("decode", "resize", "tokenize")

#: Side of the noise picture that `Task.example_request` sends.
_EXAMPLE_SIDE = 64


@dataclass(frozen=True)
class TaskTensors:
    """The interfaces on the path of one request, in order.

    Attributes:
        request: what a caller sends to preprocess, options included.
        generator_inputs: what preprocess hands to the generator, in the order of its arguments.
        kept: what preprocess hands to postprocess, past the generator.
        generator_outputs: what the generator hands to postprocess.
        answer: what postprocess gives to the caller.
    """

    request: tuple[TensorSpec, ...]
    generator_inputs: tuple[TensorSpec, ...]
    kept: tuple[TensorSpec, ...]
    generator_outputs: tuple[TensorSpec, ...]
    answer: tuple[TensorSpec, ...]


class Task(ABC):
    """Pre- and postprocessing of one task of one checkpoint.

    Attributes:
        name: ModelScope's name of the task.
        ensemble: what the task is served as unless an export is told another name.
        results: what the list in an answer is called; a request asks for `num_<results>` of them.
        inputs: what a request holds beside its options.
        default_prompt: of a checkpoint folder that names none; a leading space matters.
        can_traverse: the folder's `gen_type` may ask for the scores of all labels.
        forces_prefix: a `prompt_type` of prev_output makes beam search start with the prompt.
        on_stage: told one of `STAGES` and its seconds whenever `preprocess` is through with it,
            whether it went well or not. Whoever wants to know sets it.
    """

    name: ClassVar[str]
    ensemble: ClassVar[str]
    results: ClassVar[str]
    inputs: ClassVar[tuple[TensorSpec, ...]]
    default_prompt: ClassVar[str]
    can_traverse: ClassVar[bool] = False
    forces_prefix: ClassVar[bool] = False

    def __init__(self, settings: TaskSettings, folder: Path) -> None:
        """Make the task ready to run.

        Args:
            settings: of the checkpoint.
            folder: where the tokenizer's files are.

        Raises:
            CheckpointError: the tokenizer's files are missing or malformed, or a setting does not
                do for this task.
        """
        self.settings = settings
        self.tokenizer = load_tokenizer(settings.language, folder)
        self.on_stage: Callable[[str, float], None] = lambda _stage, _seconds: None

    def save(self, directory: Path) -> None:
        """Write what `ofa.tasks.load_task` reads."""
        self.settings.save(directory)
        self.tokenizer.save(directory)

    @property
    def tensors(self) -> TaskTensors:
        """The interfaces of the parts that serve this checkpoint."""
        return self.tensors_for(self.settings)

    @classmethod
    def tensors_for(cls, settings: TaskSettings) -> TaskTensors:
        """The interfaces of the parts that serve a checkpoint with such settings."""
        is_beam = settings.search == "beam"
        options = tuple(
            TensorSpec(name, dtype, (1,), optional=True)
            for name, dtype in request_options(cls.count_option()).items()
            if is_beam or name == cls.count_option()
        )
        generator_inputs: tuple[TensorSpec, ...] = (_SOURCE_IDS,)
        if cls.has_picture():
            generator_inputs = (_PATCH_IMAGES, *generator_inputs)
        if is_beam:
            generator_inputs += tuple(
                TensorSpec(name, dtype, (1,)) for name, dtype in OPTION_DTYPES.items()
            )
        kept: tuple[TensorSpec, ...] = (_NUM_HYPOTHESES,)
        if cls.has_prefix(settings):
            kept += (_PREFIX_LENGTH,)
        return TaskTensors(
            request=(*cls.inputs, *options),
            generator_inputs=generator_inputs,
            kept=kept,
            generator_outputs=_HYPOTHESES if is_beam else (_LABEL_LOG_PROBS,),
            answer=cls.answer(settings),
        )

    @classmethod
    def longest_prompt(cls, max_source_length: int) -> int:
        """Most tokens of a prompt under a folder's `max_src_length`, BOS and EOS not counted."""
        return max_source_length

    @classmethod
    def count_option(cls) -> str:
        """What a request calls the number of results that it wants."""
        return f"num_{cls.results}"

    @classmethod
    def has_picture(cls) -> bool:
        """Whether a picture travels."""
        return IMAGE.name in [spec.name for spec in cls.inputs]

    @classmethod
    def has_prefix(cls, settings: TaskSettings) -> bool:
        """Whether every hypothesis starts with the prompt."""
        return settings.search == "beam" and settings.prompt_type == "prev_output"

    @classmethod
    def search(cls, gen_type: str) -> str:
        """The kind of search that a folder's `gen_type` means for this task."""
        return "traverse" if cls.can_traverse and gen_type == "traverse" else "beam"

    @classmethod
    def decoder_prompt_type(cls, gen_type: str, prompt_type: str) -> str:
        """What the decoder really starts with under a folder's `gen_type` and `prompt_type`.

        The reference hands a prefix to its beam search for some tasks only.

        Raises:
            CheckpointError: the combination means nothing.
        """
        if cls.search(gen_type) == "traverse":
            return prompt_type
        if cls.forces_prefix and prompt_type == "src":
            raise CheckpointError("configuration.json: prompt_type 'src' needs gen_type 'traverse'")
        return prompt_type if cls.forces_prefix else "none"

    @classmethod
    @abstractmethod
    def answer(cls, settings: TaskSettings) -> tuple[TensorSpec, ...]:
        """What `postprocess` returns."""

    @abstractmethod
    def postprocess(self, tensors: Tensors) -> Tensors:
        """What the generator found for one row, as the caller gets it.

        Args:
            tensors: `tensors.generator_outputs` and `tensors.kept`. There can be more hypotheses
                than the row asked for, for the sake of a neighbour in its batch.

        Returns:
            `tensors.answer`.
        """

    def preprocess(self, request: Tensors) -> Tensors:
        """One request as one row of the generator, with what postprocess needs.

        Args:
            request: `tensors.request`; optional ones may be missing.

        Returns:
            `tensors.generator_inputs` and `tensors.kept`.

        Raises:
            InvalidImageError: the picture cannot be used.
            InvalidTextError: a text cannot be used.
            InvalidOptionError: an option is unknown or out of range.
        """
        row: dict[str, npt.NDArray[Any]] = self.resolve(request)
        if self.has_picture():
            row |= self.picture(request)
        with self._timed("tokenize"):
            source_ids = self.encode_prompt(request)
        if self.has_prefix(self.settings):
            # The prefix is the prompt without EOS.
            row[_PREFIX_LENGTH.name] = np.array([len(source_ids) - 1], np.int32)
        if any(spec.name in (TEXT.name, TEXT2.name) for spec in self.inputs):
            padding = padded_length(len(source_ids)) - len(source_ids)
            source_ids += [self.tokenizer.pad_id] * padding
        row[_SOURCE_IDS.name] = np.array(source_ids, np.int64)
        return row

    def resolve(self, request: Tensors) -> dict[str, npt.NDArray[Any]]:
        """The options of a request, all filled in, under the generator's names."""
        names = [spec.name for spec in self.inputs]
        given = {name: tensor.item() for name, tensor in request.items() if name not in names}
        defaults = self.settings.defaults
        if self.settings.search == "beam":
            options = resolve_options(given, defaults, self.settings.limits, self.count_option())
            return option_tensors(options)
        check_known(given, [self.count_option()])
        count = given.get(self.count_option(), defaults.num_hypotheses)
        check_range(self.count_option(), count, 1, len(self.settings.labels))
        return {COUNT_OPTION: np.array([count], np.int32)}

    def picture(self, request: Tensors) -> dict[str, npt.NDArray[Any]]:
        """The tensors that come from the picture: `patch_images` uint8 [3, S, S]."""
        return {_PATCH_IMAGES.name: self.patch_image(self.decode(request))}

    def decode(self, request: Tensors) -> Image.Image:
        """The picture of a request, upright and RGB."""
        with self._timed("decode"):
            return decode_image(request[IMAGE.name].item())

    def patch_image(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """What the network sees of a picture: uint8 [3, S, S]."""
        with self._timed("resize"):
            return self.resize(image)

    def resize(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """An RGB picture as uint8 [3, S, S]."""
        return resize_square(image, self.settings.patch_image_size)

    def encode_prompt(self, request: Tensors) -> list[int]:
        """Token ids of the prompt with BOS and EOS."""
        return self.tokenizer.encode(self.prompt(request), self.settings.max_source_length)

    def prompt(self, request: Tensors) -> str:  # noqa: ARG002 - most tasks put a text into it
        """The text in front of the model."""
        return self.settings.prompt

    def answer_length(self, tensors: Tensors) -> int | None:
        """Tokens of the best hypothesis, the end token not counted; None if none are generated.

        Args:
            tensors: as `postprocess` takes them.
        """
        if "token_ids" not in tensors:
            return None
        num_tokens = int(np.count_nonzero(tensors["token_ids"][0] != self.tokenizer.pad_id))
        return max(0, num_tokens - 1)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.on_stage(stage, time.perf_counter() - start)

    def example_request(self) -> Tensors:
        """A reproducible request without options: a picture of noise and a short text."""
        noise = np.random.default_rng(0).integers(
            0, 256, (_EXAMPLE_SIDE, _EXAMPLE_SIDE, 3), dtype=np.uint8
        )
        png = io.BytesIO()
        Image.fromarray(noise).save(png, "PNG")
        return {
            spec.name: np.array(
                [png.getvalue() if spec.name == IMAGE.name else b"what is in the picture?"],
                np.object_,
            )
            for spec in self.inputs
            if spec.dtype is np.object_
        }


def padded_length(length: int) -> int:
    """The length that a prompt with a caller's text is padded to."""
    return length + -length % _LENGTH_STEP


def option_tensors(options: GenerationOptions) -> dict[str, npt.NDArray[Any]]:
    """Every option as a tensor of shape [1], in the order of the generator's arguments."""
    return {
        name: np.array([getattr(options, name)], dtype) for name, dtype in OPTION_DTYPES.items()
    }


def read_text(request: Mapping[str, npt.NDArray[Any]], name: str) -> str:
    """A text that a request must hold.

    Raises:
        InvalidTextError: it is missing, too long, or not UTF-8.
    """
    if name not in request:
        raise InvalidTextError(f"{name} is missing")
    text_bytes: bytes = request[name].item()
    if len(text_bytes) > MAX_TEXT_BYTES:
        raise InvalidTextError(
            f"{name} has {len(text_bytes):,} bytes; the limit is {MAX_TEXT_BYTES:,}"
        )
    try:
        return text_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTextError(f"{name} is not UTF-8 (byte {error.start})") from error
