"""How each task is asked through the client, and what to think of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ofa_client import InvalidImageError, OFAClientError, OverloadedError

#: What became of a request: an answer; the refusal that a bad picture calls for; a refusal because
#: the server's queue was full; anything else, among it a bad picture that was not refused.
ANSWERED, REFUSED, OVERLOADED, FAILED = "answered", "refused", "overloaded", "failed"
GOOD = (ANSWERED, REFUSED)


class NotRefusedError(Exception):
    """A bad picture got an answer."""


@dataclass(frozen=True)
class Call:
    """One verb of the client.

    Attributes:
        ask: takes a client, an encoded picture (not used if the task takes none), two texts and
            options by their names.
        takes_picture: whether it sends the picture.
        text: what is asked if the profile says nothing; empty if the task takes none.
        text2: likewise.
    """

    ask: Callable[..., object]
    takes_picture: bool = True
    text: str = ""
    text2: str = ""


#: By task.
CALLS = {
    "caption": Call(lambda client, picture, *_, **more: client.caption(picture, **more)),
    "vqa": Call(
        lambda client, picture, text, _, **more: client.answer(picture, text, **more),
        text="what is in the picture?",
    ),
    "grounding": Call(
        lambda client, picture, text, _, **more: client.ground(picture, text, **more),
        text="the thing in the middle",
    ),
    "entailment": Call(
        lambda client, picture, text, text2, **more: client.entail(
            picture, text, text2 or None, **more
        ),
        text="the picture shows a cat",
    ),
    "classification": Call(lambda client, picture, *_, **more: client.classify(picture, **more)),
    "ocr": Call(lambda client, picture, *_, **more: client.read_text(picture, **more)),
    "summarization": Call(
        lambda client, _, text, __, **more: client.summarize(text, **more),
        takes_picture=False,
        text="there is a duck. it is to the left of a parrot. what a nice picture.",
    ),
    "text_classification": Call(
        lambda client, _, text, text2, **more: client.classify_text(text, text2, **more),
        takes_picture=False,
        text="a duck above a cat",
        text2="a cat below a duck",
    ),
    "generate": Call(
        lambda client, picture, text, _, **more: client.generate(text, picture, **more),
        text=" what does the image describe?",
    ),
    "text_to_image": Call(
        lambda client, _, text, __, **more: client.draw(text, **more),
        takes_picture=False,
        text="a duck",
    ),
}


def outcome_of(error: Exception | None, is_bad: bool) -> tuple[str, Exception | None]:  # noqa: FBT001
    """What became of a request, and its error if it is one that counts.

    Args:
        error: that the client raised, if it did.
        is_bad: whether the picture had to be refused.
    """
    if is_bad and isinstance(error, InvalidImageError):
        return REFUSED, None
    if is_bad and error is None:
        return FAILED, NotRefusedError("a bad picture was not refused")
    if error is None:
        return ANSWERED, None
    return (OVERLOADED if isinstance(error, OverloadedError) else FAILED), error


def describe(error: Exception) -> str:
    """What the report counts errors by: their kind and sentence."""
    message = error.message if isinstance(error, OFAClientError) else str(error)
    return f"{type(error).__name__}: {message[:200]}"
