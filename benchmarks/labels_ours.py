"""Our side of `benchmarks.labels`: the exported files as a server runs them.

Started by `Worker` with a repository, the name of an export and a question as arguments.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.exported import load_exported_generator, load_exported_task
from benchmarks.worker import Answered, answer_pictures
from ofa.export import stack_rows


class OurSide:
    """Scores all labels with an exported generator and times its stages.

    TorchScript takes no hooks. The encoder is therefore run a second time, by the calls of the
    file's own modules that `LabelScorer.forward` makes, and the labels are what the whole takes
    beyond it.
    """

    def __init__(self, repository: Path, name: str, question: str) -> None:
        self.task = load_exported_task(repository, name)
        self.generator = load_exported_generator(repository, name)
        self.question = question.encode()

    @torch.inference_mode()
    def answer(self, picture: Path) -> Answered:
        """The likeliest label for a picture file."""
        start = time.perf_counter()
        inputs = {"image": picture.read_bytes(), "text": self.question}
        names = [spec.name for spec in self.task.tensors.request if spec.name in inputs]
        row = self.task.preprocess({name: np.array([inputs[name]], np.object_) for name in names})
        prepared = time.perf_counter()
        arguments = stack_rows([row], self.task)
        label_log_probs = self.generator(*arguments)
        scored = time.perf_counter()
        best = int(label_log_probs[0].argmax())
        end = time.perf_counter()
        self.generator.source_encoder(self.generator.normalize(arguments[0]), arguments[1])
        encoding = time.perf_counter() - end
        return Answered(
            [self.task.settings.labels[best]],
            {
                "picture and prompt": prepared - start,
                "encoder with stem": encoding,
                "labels": scored - prepared - encoding,
                "whole": end - start,
            },
        )


if __name__ == "__main__":
    repository, name, question = sys.argv[3:]
    answer_pictures(OurSide(Path(repository), name, question).answer)
