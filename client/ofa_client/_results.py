"""What the verbs return. Every list has the best first and is immutable."""

from __future__ import annotations

from dataclasses import dataclass, field

from ofa_client._calls import CallInfo


@dataclass(frozen=True)
class Text:
    """A generated text.

    Attributes:
        text: the text.
        score: the sum of the tokens' log-probabilities (natural logarithm), divided by their
            number to the power of `length_penalty`. The best text has the highest. A text that
            the search did not find is empty and has -inf.
        token_log_probs: the log-probability of each token, the closing one included. All texts
            of a result have as many values as the longest has tokens; 0.0 fills the rest.
    """

    text: str
    score: float
    token_log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Caption(Text):
    """A caption of a picture."""


@dataclass(frozen=True)
class Answer(Text):
    """An answer to a question.

    Where the checkpoint chooses from a list of candidates, `score` is the log-probability of the
    candidate and `token_log_probs` is empty.
    """


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in pixels from its upper left corner, after the EXIF turn.

    It is as the model says it: neither clipped to the picture nor are its edges put in order.

    Attributes:
        x0: left edge.
        y0: upper edge.
        x1: right edge.
        y1: lower edge.
        score: mean log-probability of the four location tokens. The best box has the highest.
        token_log_probs: log-probability of the token of `x0`, `y0`, `x1` and `y1`.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    token_log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Label:
    """One of the labels that a checkpoint chooses from, and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class DrawnImage:
    """A picture drawn from a text.

    Attributes:
        png: the picture as a PNG file.
        score: how well picture and text fit in CLIP's judgement. The best picture has the highest.
        log_prob: mean log-probability of the codes that the picture was decoded from.
    """

    png: bytes
    score: float
    log_prob: float


@dataclass(frozen=True)
class Result:
    """What all results have.

    Attributes:
        call: the request's id, the model's version, attempts and timings; not compared.
    """

    call: CallInfo = field(default=CallInfo(), kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class CaptioningResult(Result):
    """The captions of a picture; there is at least one."""

    captions: tuple[Caption, ...]

    @property
    def text(self) -> str:
        """The best caption."""
        return self.captions[0].text


@dataclass(frozen=True)
class AnsweringResult(Result):
    """The answers to a question; there is at least one."""

    answers: tuple[Answer, ...]

    @property
    def text(self) -> str:
        """The best answer."""
        return self.answers[0].text


@dataclass(frozen=True)
class GroundingResult(Result):
    """The boxes around what a text names; there may be none."""

    boxes: tuple[Box, ...]

    @property
    def box(self) -> Box | None:
        """The best box."""
        return self.boxes[0] if self.boxes else None


@dataclass(frozen=True)
class LabelsResult(Result):
    """The most probable labels; there is at least one."""

    labels: tuple[Label, ...]

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.labels[0].label


@dataclass(frozen=True)
class TextsResult(Result):
    """The texts that were read, summarized or generated; there is at least one."""

    texts: tuple[Text, ...]

    @property
    def text(self) -> str:
        """The best text."""
        return self.texts[0].text


@dataclass(frozen=True)
class DrawingResult(Result):
    """The pictures drawn from a text; there is at least one."""

    images: tuple[DrawnImage, ...]

    @property
    def png(self) -> bytes:
        """The best picture as a PNG file."""
        return self.images[0].png
