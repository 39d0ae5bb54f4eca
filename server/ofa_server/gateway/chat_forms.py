"""OpenAI's chat completion: what comes in, and what goes out whole or as a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt


class TextPart(BaseModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """A picture as a data: URL."""

    url: str


class ImagePart(BaseModel):
    """A picture; what else it may have, such as `detail`, has no meaning here."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


def _as_parts(content: object) -> object:
    match content:
        case None:
            return []
        case str():
            return [{"type": "text", "text": content}]
        case _:
            return content


class Message(BaseModel):
    """One turn of the conversation; a text may stand for a list that has nothing else."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[Part],
        BeforeValidator(_as_parts, json_schema_input_type=str | list[Part] | None),
    ] = []

    @property
    def text(self) -> str:
        """Its texts, in one line each."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def image_urls(self) -> list[str]:
        """Its pictures."""
        return [part.image_url.url for part in self.content if isinstance(part, ImagePart)]


class StreamOptions(BaseModel):
    """What a stream has beside the answer."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A conversation of which the last question is answered.

    Settings of OpenAI's that are not listed here are taken and have no effect.
    """

    model_config = ConfigDict(extra="allow")

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str | None = None
    n: PositiveInt = 1
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None


class AssistantMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens that were generated, end tokens included; those of the prompt are not counted: 0."""

    prompt_tokens: Literal[0] = 0
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """The answers, the best first.

    Attributes:
        model: the served model that answered.
    """

    id: str = Field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: list[Choice]
    usage: Usage


def to_events(completion: ChatCompletion, *, include_usage: bool) -> Iterator[str]:
    """Yields a completion as server-sent events.

    A beam search knows its answer only at the end, so there is one event with all of an answer's
    text, and not one for each token.
    """
    for choice in completion.choices:
        delta = {"role": "assistant", "content": choice.message.content}
        yield _event(completion, [_choice(choice, delta, None)])
        yield _event(completion, [_choice(choice, {}, choice.finish_reason)])
    if include_usage:
        yield _event(completion, [], usage=completion.usage)
    yield "data: [DONE]\n\n"


class _Chunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | None = None


def _event(
    completion: ChatCompletion, choices: list[dict[str, Any]], usage: Usage | None = None
) -> str:
    chunk = _Chunk(
        id=completion.id,
        created=completion.created,
        model=completion.model,
        choices=choices,
        usage=usage,
    )
    return f"data: {chunk.model_dump_json()}\n\n"


def _choice(choice: Choice, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
    return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": reason}
