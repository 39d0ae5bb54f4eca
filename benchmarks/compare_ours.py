"""One side of `benchmarks.compare`: a commit's exported generator, by that commit's own code.

Started by `Worker` with a repository and the name of an export. Commits differ, so this asks little
of their library: `exported.py` says what.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.exported import load_exported_generator, load_exported_task, read_texts
from benchmarks.worker import Answered, answer_pictures
from ofa.export import stack_rows


class OneSide:
    """Captions pictures with an exported generator."""

    def __init__(self, repository: Path, name: str) -> None:
        self.task = load_exported_task(repository, name)
        self.generator = load_exported_generator(repository, name)

    @torch.inference_mode()
    def caption(self, picture: Path) -> Answered:
        """Caption a picture file; only the generator is timed."""
        row = self.task.preprocess({"image": np.array([picture.read_bytes()], np.object_)})
        arguments = stack_rows([row], self.task)
        start = time.perf_counter()
        hypotheses = self.generator(*arguments)
        seconds = time.perf_counter() - start
        return Answered(read_texts(self.task, row, hypotheses), {"generator": seconds})


if __name__ == "__main__":
    repository, name = sys.argv[3:]
    answer_pictures(OneSide(Path(repository), name).caption)
