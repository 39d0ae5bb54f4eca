"""What each task is asked with and how its answer is read: stated once, for both clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from ofa_client._answers import (
    parse_answers,
    parse_boxes,
    parse_captions,
    parse_images,
    parse_labels,
    parse_texts,
)
from ofa_client._calls import CallInfo
from ofa_client._results import (
    AnsweringResult,
    CaptioningResult,
    DrawingResult,
    GroundingResult,
    LabelsResult,
    Result,
    TextsResult,
)
from ofa_client._tensors import Tensors

ResultT = TypeVar("ResultT", bound=Result)


class SearchOptions(TypedDict, total=False):
    """How the beam search looks for an answer, for the verbs whose checkpoint generates text.

    Attributes:
        beam_size: hypotheses that the search keeps alive at every step.
        max_length: most tokens of an answer, the closing one not counted.
        min_length: fewest tokens of an answer, the closing one not counted.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows all.
        length_penalty: exponent on the length in tokens, the closing one included, that divides
            the summed log-probability; 1 gives the mean, 0 the sum.
        temperature: divides the logits before the softmax.
    """

    beam_size: int | None
    max_length: int | None
    min_length: int | None
    no_repeat_ngram_size: int | None
    length_penalty: float | None
    temperature: float | None


_SEARCH = tuple(SearchOptions.__annotations__)


@dataclass(frozen=True)
class Task(Generic[ResultT]):
    """One task of OFA.

    Attributes:
        model: the ensemble that it is served as by default.
        options: inputs that a request may leave out.
        parse: makes the result.
    """

    model: str
    options: tuple[str, ...]
    parse: Callable[[Tensors, CallInfo], ResultT]


CAPTION: Task[CaptioningResult] = Task("caption", ("num_captions", *_SEARCH), parse_captions)
ANSWER: Task[AnsweringResult] = Task("vqa", ("num_answers", *_SEARCH), parse_answers)
GROUND: Task[GroundingResult] = Task("grounding", ("num_boxes", *_SEARCH), parse_boxes)
ENTAIL: Task[LabelsResult] = Task("entailment", ("text2", "num_labels", *_SEARCH), parse_labels)
CLASSIFY: Task[LabelsResult] = Task("classification", ("num_labels", *_SEARCH), parse_labels)
READ_TEXT: Task[TextsResult] = Task("ocr", ("num_texts", *_SEARCH), parse_texts)
SUMMARIZE: Task[TextsResult] = Task("summarization", ("num_texts", *_SEARCH), parse_texts)
CLASSIFY_TEXT: Task[LabelsResult] = Task(
    "text_classification", ("num_labels", *_SEARCH), parse_labels
)
GENERATE: Task[TextsResult] = Task(
    "generate", ("image", "allow_special_tokens", "num_texts", *_SEARCH), parse_texts
)
DRAW: Task[DrawingResult] = Task("text_to_image", ("seed", "num_images"), parse_images)
