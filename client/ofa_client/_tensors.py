"""What a request and an answer are made of: the names and types on the wire.

Every tensor starts with the batch dimension, which is 1. Names mean the same in every task, so one
table serves all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Tensors: TypeAlias = dict[str, npt.NDArray[Any]]

OPTION_DTYPES: dict[str, type[np.generic]] = {
    "num_captions": np.int32,
    "num_answers": np.int32,
    "num_boxes": np.int32,
    "num_labels": np.int32,
    "num_texts": np.int32,
    "num_images": np.int32,
    "beam_size": np.int32,
    "max_length": np.int32,
    "min_length": np.int32,
    "no_repeat_ngram_size": np.int32,
    "length_penalty": np.float32,
    "temperature": np.float32,
    "allow_special_tokens": np.bool_,
    "seed": np.int64,
}
"""Inputs [1, 1] that a request may leave out."""

CONTENT_NAMES = ("image", "text", "text2")
"""Inputs [1, 1] of bytes: an encoded picture and UTF-8."""


class AnswerTensor(NamedTuple):
    """One output, by what follows its batch dimension.

    Attributes:
        dtype: numpy type; `np.object_` stands for bytes.
        dims: sizes, None where it varies; the first is the number of results.
    """

    dtype: type[np.generic]
    dims: tuple[int | None, ...] = (None,)


ANSWER_TENSORS: dict[str, AnswerTensor] = {
    "captions": AnswerTensor(np.object_),
    "answers": AnswerTensor(np.object_),
    "boxes": AnswerTensor(np.float32, (None, 4)),
    "labels": AnswerTensor(np.object_),
    "texts": AnswerTensor(np.object_),
    "images": AnswerTensor(np.object_),
    "scores": AnswerTensor(np.float32),
    "probabilities": AnswerTensor(np.float32),
    "log_probs": AnswerTensor(np.float32),
    "token_log_probs": AnswerTensor(np.float32, (None, None)),
}
