"""The reference's side of `benchmarks.labels`: ModelScope's pipeline, in .venv-oracle.

Started by `Worker` with a checkpoint folder and a question as arguments.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.generator_reference import ReferenceSide
from benchmarks.worker import Answered, answer_pictures


class LabelReferenceSide(ReferenceSide):
    """Scores all labels with the pipeline and times its parts."""

    def __init__(self, checkpoint: Path, question: str) -> None:
        super().__init__(checkpoint)
        self.question = question

    def answer(self, picture: Path) -> Answered:
        """The likeliest label for a picture file."""
        self.seconds.clear()
        request: object = str(picture)
        if self.question:
            request = {"image": request, "text": self.question}
        start = time.perf_counter()
        result = self.pipeline(request)
        whole = time.perf_counter() - start
        parts = self.seconds
        return Answered(
            [result["labels"]],
            {
                "picture and prompt": parts["decode, resize"],
                "encoder with stem": parts["encoder with stem"],
                "labels": parts["generation"] - parts["encoder with stem"],
                "whole": whole,
            },
        )


if __name__ == "__main__":
    checkpoint, question = sys.argv[3:]
    answer_pictures(LabelReferenceSide(Path(checkpoint), question).answer)
