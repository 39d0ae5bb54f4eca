"""The bodies of the tasks' routes: the arguments of the client's verbs, by the same names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, FiniteFloat

from ofa_server.gateway.pictures import Picture


class TaskRequest(BaseModel):
    """What every route takes; ranges are the model server's to check.

    Attributes:
        model: name of the served model; by default the one that is named for the task.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None


class SearchRequest(TaskRequest):
    """How the search looks for an answer, for models that generate one (docs/protocol.md)."""

    beam_size: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    no_repeat_ngram_size: int | None = None
    length_penalty: FiniteFloat | None = None
    temperature: FiniteFloat | None = None


class CaptionRequest(SearchRequest):
    """A picture."""

    image: Picture
    num_captions: int | None = None


class AnswerRequest(SearchRequest):
    """A picture and a question about it."""

    image: Picture
    question: str
    num_answers: int | None = None


class GroundRequest(SearchRequest):
    """A picture and what to look for in it."""

    image: Picture
    text: str
    num_boxes: int | None = None


class EntailRequest(SearchRequest):
    """A picture and a statement, or two: whether the picture and `text2` imply `text`."""

    image: Picture
    text: str
    text2: str | None = None
    num_labels: int | None = None


class ClassifyRequest(SearchRequest):
    """A picture."""

    image: Picture
    num_labels: int | None = None


class ReadTextRequest(SearchRequest):
    """A picture of a line or a few words of text."""

    image: Picture
    num_texts: int | None = None


class SummarizeRequest(SearchRequest):
    """An article."""

    text: str
    num_texts: int | None = None


class ClassifyTextRequest(SearchRequest):
    """Two sentences: whether the first implies the second."""

    text: str
    text2: str
    num_labels: int | None = None


class GenerateRequest(SearchRequest):
    """A prompt as it stands, and a picture if you like."""

    prompt: str
    image: Picture | None = None
    allow_special_tokens: bool = False
    num_texts: int | None = None


class DrawRequest(TaskRequest):
    """What to draw."""

    text: str
    seed: int = 0
    num_images: int | None = None
