"""The reference's side of `benchmarks.labels`: ModelScope's pipeline, in .venv-oracle.

Started by `Worker` with a checkpoint folder and a question as arguments.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.generator_reference import ReferenceSide
from benchmarks.worker import Answered, answer_pictures

#: Where a pipeline's answer stands, whatever its task; the others are None.
_RESULTS = ("labels", "text", "caption")


class LabelReferenceSide(ReferenceSide):
    """Answers with the pipeline, within a list or freely, and times its parts."""

    def __init__(self, checkpoint: Path, question: str) -> None:
        super().__init__(checkpoint)
        self.question = question

    def answer(self, picture: Path) -> Answered:
        """The best text or label for a picture file."""
        self.seconds.clear()
        request: object = str(picture)
        if self.question:
            request = {"image": request, "text": self.question}
        start = time.perf_counter()
        result = self.pipeline(request)
        whole = time.perf_counter() - start
        best = next(result[name] for name in _RESULTS if result.get(name) is not None)
        parts = self.seconds
        return Answered(
            [best] if isinstance(best, str) else best,
            {
                "picture and prompt": parts["decode, resize"],
                "encoder with stem": parts["encoder with stem"],
                "answer": parts["generation"] - parts["encoder with stem"],
                "whole": whole,
            },
        )


if __name__ == "__main__":
    checkpoint, question = sys.argv[3:]
    answer_pictures(LabelReferenceSide(Path(checkpoint), question).answer)
