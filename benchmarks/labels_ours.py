"""Our side of `benchmarks.labels`: the exported files as a server runs them.

Started by `Worker` with a repository, the name of an export and a question as arguments.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.exported import load_exported_generator, load_exported_task, read_texts
from benchmarks.worker import Answered, answer_pictures
from ofa.export import as_tuple, stack_rows


class OurSide:
    """Answers with an exported generator, within a list or freely, and times its stages.

    TorchScript takes no hooks. The encoder is therefore run a second time, by the calls of the
    file's own modules that its `forward` makes, and the answer is what the whole takes beyond it.
    """

    def __init__(self, repository: Path, name: str, question: str) -> None:
        self.task = load_exported_task(repository, name)
        self.generator = load_exported_generator(repository, name)
        self.question = question.encode()

    @torch.inference_mode()
    def answer(self, picture: Path) -> Answered:
        """The best text or label for a picture file."""
        start = time.perf_counter()
        inputs = {"image": picture.read_bytes(), "text": self.question}
        names = [spec.name for spec in self.task.tensors.request if spec.name in inputs]
        row = self.task.preprocess({name: np.array([inputs[name]], np.object_) for name in names})
        prepared = time.perf_counter()
        arguments = stack_rows([row], self.task)
        outputs = as_tuple(self.generator(*arguments))
        answered = time.perf_counter()
        texts = read_texts(self.task, row, outputs)
        end = time.perf_counter()
        self.generator.source_encoder(self.generator.normalize(arguments[0]), arguments[1])
        encoding = time.perf_counter() - end
        return Answered(
            texts[:1],
            {
                "picture and prompt": prepared - start,
                "encoder with stem": encoding,
                "answer": answered - prepared - encoding,
                "whole": end - start,
            },
        )


if __name__ == "__main__":
    repository, name, question = sys.argv[3:]
    answer_pictures(OurSide(Path(repository), name, question).answer)
