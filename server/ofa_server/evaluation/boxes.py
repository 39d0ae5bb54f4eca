"""Visual grounding: the share of boxes that overlap the true one by half or more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_client import OFAClient
from ofa_server.evaluation.benchmark import Benchmark, Example, Prediction, Source, read_lines

#: Intersection over union from which on a box is right (Yu et al. 2016, RefCOCO).
_MIN_OVERLAP = 0.5

Box = Sequence[float]


class BoxBenchmark(Benchmark):
    """JSON Lines with `image`, `text` and `box`.

    `box` is [x0, y0, x1, y1] in pixels of the picture after its EXIF turn, as the server answers.
    """

    noun = "phrases"

    def __init__(self, examples: Sequence[Example], boxes: Mapping[str, Box]) -> None:
        self.examples = examples
        self._boxes = boxes

    @classmethod
    def load(cls, source: Source) -> BoxBenchmark:
        """Read annotations; there are neither questions nor splits."""
        lines = read_lines(source.annotations, _parse)
        examples = [Example(key, image, text) for key, (image, text, _) in lines.items()]
        return cls(examples, {key: box for key, (_, _, box) in lines.items()})

    def ask(self, client: OFAClient, images: Path, example: Example) -> Prediction:
        """The best box, or None if there was none."""
        box = client.ground(images / example.image, example.text).box
        return None if box is None else [box.x0, box.y0, box.x1, box.y1]

    def score(self, predictions: Mapping[str, Prediction]) -> Mapping[str, float]:
        """Accuracy at an overlap of one half; no box is a wrong one."""
        right = [
            isinstance(box, list) and overlap(box, self._boxes[key]) >= _MIN_OVERLAP
            for key, box in predictions.items()
        ]
        return {"Accuracy": 100 * sum(right) / len(right)}


def _parse(line: Mapping[str, Any]) -> tuple[str, str, Box]:
    x0, y0, x1, y1 = (float(value) for value in line["box"])
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"the box [x0, y0, x1, y1] is empty: {line['box']}")
    return str(line["image"]), str(line["text"]), (x0, y0, x1, y1)


def overlap(one: Box, other: Box) -> float:
    """Area of the intersection of two boxes [x0, y0, x1, y1] over that of their union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0) for box in (one, other)]
    return shared / (sum(areas) - shared)
