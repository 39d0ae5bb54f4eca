"""Captioning: a constant prompt and a picture in, sentences out."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ofa.image import decode_image, resize_square
from ofa.options import GenerationOptions, resolve_options
from ofa.tasks.settings import TaskSettings
from ofa.tokenizer import EnglishTokenizer

#: English captions lose all ASCII punctuation (modelscope `ofa_for_all_tasks.py`, postprocess).
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class GeneratorInputs(NamedTuple):
    """One row for the generator.

    Attributes:
        patch_images: uint8 [3, S, S].
        source_ids: int64 [L], the prompt with BOS and EOS.
        options: all filled in.
    """

    patch_images: npt.NDArray[np.uint8]
    source_ids: npt.NDArray[np.int64]
    options: GenerationOptions


class CaptioningAnswer(NamedTuple):
    """What a caller gets for one picture, best caption first.

    Attributes:
        captions: n texts.
        scores: float32 [n], log-probability divided by length ** length_penalty; -inf for a
            caption that the search did not find.
        token_log_probs: float32 [n, T], one a token, EOS included; zeros after it.
    """

    captions: list[str]
    scores: npt.NDArray[np.float32]
    token_log_probs: npt.NDArray[np.float32]


class CaptioningTask:
    """Pre- and postprocessing of ModelScope's `image-captioning`."""

    name = "image-captioning"
    default_prompt = " what does the image describe?"

    def __init__(self, settings: TaskSettings, tokenizer_folder: Path) -> None:
        self.settings = settings
        self.tokenizer = EnglishTokenizer(tokenizer_folder)
        source_ids = self.tokenizer.encode(settings.prompt, settings.max_source_length)
        self._source_ids = np.asarray(source_ids, np.int64)

    def save(self, directory: Path) -> None:
        """Write what `ofa.tasks.load_task` reads."""
        self.settings.save(directory)
        self.tokenizer.save(directory)

    def preprocess(self, image_bytes: bytes, options: Mapping[str, int | float]) -> GeneratorInputs:
        """One request to one row of the generator.

        Args:
            image_bytes: an encoded picture.
            options: the options that the request names.

        Raises:
            InvalidImageError: the picture cannot be used.
            InvalidOptionError: an option is unknown or out of range.
        """
        resolved = resolve_options(options, self.settings.defaults, self.settings.limits)
        image = decode_image(image_bytes)
        patch_images = resize_square(image, self.settings.patch_image_size)
        return GeneratorInputs(patch_images, self._source_ids, resolved)

    def postprocess(
        self,
        token_ids: npt.NDArray[np.int64],
        hypothesis_scores: npt.NDArray[np.float32],
        hypothesis_log_probs: npt.NDArray[np.float32],
        num_captions: int,
    ) -> CaptioningAnswer:
        """One row of the generator's answer to captions.

        Args:
            token_ids: [K, T], EOS then padding at the end.
            hypothesis_scores: [K], best first.
            hypothesis_log_probs: [K, T].
            num_captions: how many the request asked for; K may be larger for a neighbour's sake.
        """
        found = token_ids[:num_captions]
        texts = [self.tokenizer.decode(ids) for ids in found.tolist()]
        lengths = (found != self.tokenizer.pad_id).sum(axis=1)
        longest = int(lengths.max())
        return CaptioningAnswer(
            captions=[text.translate(_WITHOUT_PUNCTUATION).strip() for text in texts],
            scores=hypothesis_scores[:num_captions],
            token_log_probs=hypothesis_log_probs[:num_captions, :longest],
        )
