"""The answers of the tasks' routes, in the words of the client's results."""

from __future__ import annotations

import base64
import math
from typing import Self

from pydantic import BaseModel

from ofa_client import (
    AnsweringResult,
    CaptioningResult,
    DrawingResult,
    GroundingResult,
    LabelsResult,
    Text,
    TextsResult,
)


class TaskAnswer(BaseModel):
    """What every answer tells beside its list, which has the best first.

    Attributes:
        model: the served model that answered.
        seconds: from the complete request to the complete answer.
    """

    model: str
    seconds: float


class ScoredText(BaseModel):
    """A text and its score: a log-probability for each token; null where none was found."""

    text: str
    score: float | None

    @classmethod
    def of(cls, text: Text) -> Self:
        """Returns a text of the client as JSON can have it, which knows no infinity."""
        return cls(text=text.text, score=text.score if math.isfinite(text.score) else None)


class ScoredBox(BaseModel):
    """x0, y0, x1, y1 in pixels of the picture after its EXIF turn, and the score."""

    box: tuple[float, float, float, float]
    score: float


class ProbableLabel(BaseModel):
    """A label and its probability."""

    label: str
    probability: float


class DrawnPicture(BaseModel):
    """A PNG file in base64, the score that CLIP gives it, and its log-probability."""

    png: str
    score: float
    log_prob: float


class CaptionsAnswer(TaskAnswer):
    """Captions of a picture."""

    captions: list[ScoredText]


class AnswersAnswer(TaskAnswer):
    """Answers to a question."""

    answers: list[ScoredText]


class BoxesAnswer(TaskAnswer):
    """Boxes around what the text names; there may be none."""

    boxes: list[ScoredBox]


class LabelsAnswer(TaskAnswer):
    """Labels, the most probable first."""

    labels: list[ProbableLabel]


class TextsAnswer(TaskAnswer):
    """Texts that were read, summarized or generated."""

    texts: list[ScoredText]


class ImagesAnswer(TaskAnswer):
    """Pictures drawn to a text."""

    images: list[DrawnPicture]


Result = (
    AnsweringResult
    | CaptioningResult
    | DrawingResult
    | GroundingResult
    | LabelsResult
    | TextsResult
)


def to_answer(result: Result, model: str, seconds: float) -> TaskAnswer:
    """Returns a result of the client as the body of an answer."""
    match result:
        case CaptioningResult(captions=captions):
            texts = [ScoredText.of(caption) for caption in captions]
            return CaptionsAnswer(model=model, seconds=seconds, captions=texts)
        case AnsweringResult(answers=answers):
            texts = [ScoredText.of(answer) for answer in answers]
            return AnswersAnswer(model=model, seconds=seconds, answers=texts)
        case TextsResult(texts=found):
            texts = [ScoredText.of(text) for text in found]
            return TextsAnswer(model=model, seconds=seconds, texts=texts)
        case GroundingResult(boxes=found_boxes):
            boxes = [
                ScoredBox(box=(box.x0, box.y0, box.x1, box.y1), score=box.score)
                for box in found_boxes
            ]
            return BoxesAnswer(model=model, seconds=seconds, boxes=boxes)
        case LabelsResult(labels=found_labels):
            labels = [
                ProbableLabel(label=each.label, probability=each.probability)
                for each in found_labels
            ]
            return LabelsAnswer(model=model, seconds=seconds, labels=labels)
        case DrawingResult(images=drawn):
            images = [
                DrawnPicture(
                    png=base64.b64encode(image.png).decode(),
                    score=image.score,
                    log_prob=image.log_prob,
                )
                for image in drawn
            ]
            return ImagesAnswer(model=model, seconds=seconds, images=images)
