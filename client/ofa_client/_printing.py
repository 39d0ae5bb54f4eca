"""Results as the command prints them: as JSON and as lines for people."""

from __future__ import annotations

import math
from typing import TypeAlias

from ofa_client._results import (
    AnsweringResult,
    Box,
    CaptioningResult,
    DrawingResult,
    DrawnImage,
    GroundingResult,
    Label,
    LabelsResult,
    Text,
    TextsResult,
)

Result: TypeAlias = (
    AnsweringResult
    | CaptioningResult
    | DrawingResult
    | GroundingResult
    | LabelsResult
    | TextsResult
)
Item: TypeAlias = Box | DrawnImage | Label | Text


def to_json(result: Result) -> dict[str, list[dict[str, object]]]:
    """Return the result's list, by its name, in types that JSON has."""
    name, items = _list_of(result)
    return {name: [_item_to_json(item) for item in items]}


def to_lines(result: Result) -> list[str]:
    """Return one line an item: its score or probability and what it is."""
    _, items = _list_of(result)
    return [_item_to_line(item) for item in items]


def _list_of(result: Result) -> tuple[str, tuple[Item, ...]]:
    [(name, items)] = [(name, items) for name, items in vars(result).items() if name != "call"]
    return name, items


def _item_to_json(item: Item) -> dict[str, object]:
    match item:
        case Text():
            # JSON has no infinity, which is the score of a text that was not found.
            return {"text": item.text, "score": item.score if math.isfinite(item.score) else None}
        case Box():
            return {"box": [item.x0, item.y0, item.x1, item.y1], "score": item.score}
        case Label():
            return {"label": item.label, "probability": item.probability}
        case DrawnImage():
            return {"score": item.score, "log_prob": item.log_prob}


def _item_to_line(item: Item) -> str:
    match item:
        case Text():
            return f"{item.score:8.3f}  {item.text}"
        case Box():
            return f"{item.score:8.3f}  {item.x0:.1f} {item.y0:.1f} {item.x1:.1f} {item.y1:.1f}"
        case Label():
            return f"{item.probability:8.3f}  {item.label}"
        case DrawnImage():
            return f"{item.score:8.3f}  {len(item.png):,} bytes"
