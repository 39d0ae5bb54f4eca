"""A gateway whose model server is a few lines of Python."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from ofa_client import (
    Answer,
    AnsweringResult,
    Box,
    CallInfo,
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
from ofa_server.gateway.app import make_app
from ofa_server.gateway.catalogue import ServedModel

CAPTIONS = CaptioningResult(
    (
        Caption("a red apple", -0.25, (-0.5, -0.25, 0.0)),
        Caption("an apple", -1.5, (-1.0, -2.0, 0.0)),
    )
)
LABELS = LabelsResult((Label("yes", 0.75), Label("no", 0.25)))
TEXTS = TextsResult((Text("a text", -0.5, (-0.5,)), Text("", float("-inf"), (0.0,))))
RESULTS = {
    "caption": CAPTIONS,
    "answer": AnsweringResult((Answer("red", -0.125, (-0.25, 0.0)),)),
    "ground": GroundingResult((Box(1.0, 2.5, 30.0, 40.0, -0.5, (-0.5,) * 4),)),
    "entail": LABELS,
    "classify": LABELS,
    "read_text": TEXTS,
    "summarize": TEXTS,
    "classify_text": LABELS,
    "generate": TEXTS,
    "draw": DrawingResult((DrawnImage(b"a png", 0.25, -3.5),)),
}
TASKS = (
    "caption",
    "classification",
    "entailment",
    "generate",
    "grounding",
    "ocr",
    "summarization",
    "text_classification",
    "text_to_image",
    "vqa",
)


class FakeClient:
    """Answers every verb with `RESULTS`, and keeps what it was called with.

    Attributes:
        calls: verb and arguments, in order; `timeout` is left out.
        error: raised instead of an answer.
        waits: calls never end until they are cancelled.
        num_cancelled: calls that were.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.timeouts: list[float] = []
        self.error: Exception | None = None
        self.waits = False
        self.called = asyncio.Event()
        self.num_cancelled = 0

    def __getattr__(self, verb: str) -> Any:
        async def call(*, timeout: float, **arguments: Any) -> Any:
            self.calls.append((verb, arguments))
            self.timeouts.append(timeout)
            self.called.set()
            if self.waits:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.num_cancelled += 1
                    raise
            if self.error is not None:
                raise self.error
            return replace(RESULTS[verb], call=CallInfo(request_id="0123"))

        if verb not in RESULTS:
            raise AttributeError(verb)
        return call


class FakeCatalogue:
    """Serves what it is told to."""

    def __init__(self, *names: str) -> None:
        self.names = names or (*TASKS, "caption_zh")
        self.ready = True

    async def models(self) -> Sequence[ServedModel]:
        return [
            ServedModel(name, name.removesuffix("_zh"), ready_since=1_000)
            for name in sorted(self.names)
        ]

    async def is_ready(self) -> bool:
        return self.ready


def fake_gateway(
    client: FakeClient | None = None,
    catalogue: FakeCatalogue | None = None,
    timeout: float = 60.0,
    callers_token_file: Path | None = None,
) -> ASGIApp:
    """The application around both."""
    return make_app(
        client or FakeClient(),  # type: ignore[arg-type]
        catalogue or FakeCatalogue(),
        timeout=timeout,
        callers_token_file=callers_token_file,
    )
