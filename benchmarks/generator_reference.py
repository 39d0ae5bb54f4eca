"""The reference's side of `benchmarks.generator`: ModelScope's pipeline, in .venv-oracle.

Started by `Worker` with a checkpoint folder as argument.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.worker import Answered, answer_pictures
from tests.reference.oracle.pipeline import build_pipeline


class ReferenceSide:
    """Captions pictures with the pipeline and times its parts."""

    def __init__(self, checkpoint: Path) -> None:
        self.pipeline = build_pipeline(checkpoint)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        network = self.pipeline.model.model
        # Its search calls `encoder.forward` and `decoder.forward`, past the hooks of a module.
        for owner, method, stage in (
            (self.pipeline, "preprocess", "decode, resize"),
            (self.pipeline, "forward", "generation"),
            (network.encoder.embed_images, "forward", "stem"),
            (network.encoder, "forward", "encoder with stem"),
            (network.decoder, "forward", "decoder"),
        ):
            setattr(owner, method, self._timed(getattr(owner, method), stage))

    def _timed(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed_call(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            result = call(*args, **kwargs)
            self.seconds[stage] += time.perf_counter() - start
            return result

        return timed_call

    def caption(self, picture: Path) -> Answered:
        """Caption a picture file."""
        self.seconds.clear()
        start = time.perf_counter()
        captions = self.pipeline(str(picture))["caption"]
        whole = time.perf_counter() - start
        parts = self.seconds
        return Answered(
            captions,
            {
                "decode, resize": parts["decode, resize"],
                "stem": parts["stem"],
                "encoder": parts["encoder with stem"] - parts["stem"],
                "decoding": parts["generation"] - parts["encoder with stem"],
                "decoder alone": parts["decoder"],
                "generator": parts["generation"],
                "text": whole - parts["decode, resize"] - parts["generation"],
                "whole": whole,
            },
        )


if __name__ == "__main__":
    answer_pictures(ReferenceSide(Path(sys.argv[3])).caption)
