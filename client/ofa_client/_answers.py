"""From the output tensors of each task to the result that they stand for.

Every function raises ServerError when a tensor is missing or of the wrong type, when the shapes
disagree, or when there is no result where there must be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from ofa_client._calls import CallInfo
from ofa_client._errors import ServerError
from ofa_client._results import (
    Answer,
    AnsweringResult,
    Box,
    Caption,
    CaptioningResult,
    DrawingResult,
    DrawnImage,
    GroundingResult,
    Label,
    LabelsResult,
    Text,
    TextsResult,
)
from ofa_client._tensors import ANSWER_TENSORS, Tensors


def parse_captions(outputs: Tensors, call: CallInfo) -> CaptioningResult:
    """Return the result of captioning."""
    rows = _rows(outputs, "captions", "scores", "token_log_probs")
    captions = tuple(Caption(*_text_fields(*row)) for row in rows)
    return CaptioningResult(captions, call=call)


def parse_answers(outputs: Tensors, call: CallInfo) -> AnsweringResult:
    """Return the result of visual question answering."""
    # Candidates are scored as a whole, so there are no tokens to tell of.
    names = ["answers", "scores", *(outputs.keys() & {"token_log_probs"})]
    answers = tuple(Answer(*_text_fields(*row)) for row in _rows(outputs, *names))
    return AnsweringResult(answers, call=call)


def parse_boxes(outputs: Tensors, call: CallInfo) -> GroundingResult:
    """Return the result of visual grounding."""
    rows = _rows(outputs, "boxes", "scores", "token_log_probs", at_least=0)
    boxes = tuple(
        Box(x0, y0, x1, y1, score, tuple(log_probs)) for (x0, y0, x1, y1), score, log_probs in rows
    )
    return GroundingResult(boxes, call=call)


def parse_labels(outputs: Tensors, call: CallInfo) -> LabelsResult:
    """Return the result of entailment and of classification."""
    rows = _rows(outputs, "labels", "probabilities")
    labels = tuple(
        Label(label.decode("utf-8", "replace"), probability) for label, probability in rows
    )
    return LabelsResult(labels, call=call)


def parse_texts(outputs: Tensors, call: CallInfo) -> TextsResult:
    """Return the result of reading, summarizing and generating."""
    rows = _rows(outputs, "texts", "scores", "token_log_probs")
    return TextsResult(tuple(Text(*_text_fields(*row)) for row in rows), call=call)


def parse_images(outputs: Tensors, call: CallInfo) -> DrawingResult:
    """Return the result of drawing."""
    rows = _rows(outputs, "images", "scores", "log_probs")
    return DrawingResult(tuple(DrawnImage(*row) for row in rows), call=call)


def _rows(outputs: Tensors, *names: str, at_least: int = 1) -> Iterator[tuple[Any, ...]]:
    """Return one tuple a result, with its row of each of the tensors."""
    for name in names:
        if name not in outputs:
            raise ServerError(f"the answer has no {name!r} tensor")
    tensors = [outputs[name] for name in names]
    sizes = {tensor.shape[1:2] for tensor in tensors}
    well_formed = all(map(_has_form_of, tensors, names))
    if not well_formed or len(sizes) != 1 or len(tensors[0][0]) < at_least:
        found = {name: f"{outputs[name].dtype} {list(outputs[name].shape)}" for name in names}
        raise ServerError(f"the answer's tensors do not fit together: {found}")
    return zip(*(tensor[0].tolist() for tensor in tensors), strict=True)


def _has_form_of(tensor: npt.NDArray[Any], name: str) -> bool:
    dtype, dims = ANSWER_TENSORS[name]
    return (
        tensor.dtype == dtype
        and tensor.ndim == 1 + len(dims)
        and all(
            wanted in (None, size) for size, wanted in zip(tensor.shape, (1, *dims), strict=True)
        )
    )


def _text_fields(
    text: bytes, score: float, token_log_probs: Sequence[float] = ()
) -> tuple[str, float, tuple[float, ...]]:
    return text.decode("utf-8", "replace"), score, tuple(token_log_probs)
