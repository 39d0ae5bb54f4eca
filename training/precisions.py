"""How often is each task's answer right, and the same as in float32, in every precision?

    .venv/bin/python -m training.precisions

The cases are those of `training.evaluate` with the drawings and fonts of training, up to three
things a picture. The exported generators answer them in this process, eight at a time, with the
pre- and postprocessing of the server. Prints a table in Markdown: share of right answers, and in
brackets of those that are float32's.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ofa.checkpoint import load_checkpoint
from ofa.export import as_tuple, export_generator, stack_rows
from ofa.lowering import PRECISIONS
from ofa.tasks import Task
from ofa.tensors import Tensors
from ofa_server.evaluation.boxes import overlap
from training.evaluate import MIN_OVERLAP, Case, same_text, scene_case, sign_case, text_case
from training.render import Painter
from training.sprites import SPRITE_SIZE, TRAINING_STYLES
from training.tasks import ABOUT_TEXTS
from training.words import TRAINING_FONTS

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
ENGLISH = CHECKPOINTS / "ofa-emoji-tiny_en"
CHINESE = CHECKPOINTS / "ofa-emoji-tiny_zh"
BATCH_SIZE = 8
TASKS = (
    "caption", "vqa", "grounding", "entailment", "classification", "ocr", "summarization",
    "text_classification", "caption_zh",
)  # fmt: skip


class Answer(NamedTuple):
    """The best answer: a text, or a box in pixels."""

    text: str
    box: tuple[float, ...] | None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-cases", type=int, default=500, metavar="N", help="a task")
    arguments = parser.parse_args()
    painter = Painter(TRAINING_STYLES, SPRITE_SIZE)
    precisions = PRECISIONS["cpu"]
    print(f"| task | {' | '.join(precisions)} |\n|---|{'---|' * len(precisions)}", flush=True)
    for name in TASKS:
        cases = [make_case(painter, name, index) for index in range(arguments.num_cases)]
        by_precision = [answer_all(name, cases, precision) for precision in precisions]
        wide = by_precision[0]
        cells = []
        for answers in by_precision:
            num_right = sum(map(is_right, answers, cases))
            num_same = sum(ours == theirs for ours, theirs in zip(answers, wide, strict=True))
            cells.append(f"{num_right / len(cases):.1%} ({num_same / len(cases):.1%})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def make_case(painter: Painter, name: str, index: int) -> Case:
    """The case of a number."""
    if name == "ocr":
        return sign_case(TRAINING_FONTS, index)
    if name in ABOUT_TEXTS:
        return text_case(name, index)
    return scene_case(painter, name, (1,) if name == "classification" else (1, 2, 3), index)


def is_right(answer: Answer, case: Case) -> bool:
    """Whether an answer is one of the case's, or a box overlaps its box by half."""
    if case.box is not None:
        return answer.box is not None and overlap(answer.box, case.box) >= MIN_OVERLAP
    return same_text(answer.text, case)


@torch.inference_mode()
def answer_all(name: str, cases: Sequence[Case], precision: str) -> list[Answer]:
    """The best answers of an export, in the cases' order."""
    folder = CHINESE if name == "caption_zh" else ENGLISH
    settings = folder / "tasks" / f"{name}.json"
    checkpoint = load_checkpoint(folder, settings if settings.exists() else None)
    limits = checkpoint.default_limits()
    task = checkpoint.build_task(limits)
    rows = [task.preprocess(make_request(task, case)) for case in cases]
    answers: dict[int, Answer] = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.pt"
        export_generator(checkpoint, path, limits, precision)
        generator = torch.jit.load(str(path))
    for batch in tqdm(list(batches(rows)), desc=f"{name}, {precision}", leave=False):
        outputs = as_tuple(generator(*stack_rows([rows[index] for index in batch], task)))
        for place, index in enumerate(batch):
            tensors = {spec.name: rows[index][spec.name] for spec in task.tensors.kept}
            for spec, tensor in zip(task.tensors.generator_outputs, outputs, strict=True):
                tensors[spec.name] = tensor[place].numpy()
            answers[index] = best(task.postprocess(tensors)[task.results])
    return [answers[index] for index in range(len(cases))]


def make_request(task: Task, case: Case) -> Tensors:
    """What a client would send."""
    names = [spec.name for spec in task.tensors.request if spec.name in ("text", "text2")]
    request = {
        name: np.array([text.encode()], np.object_)
        for name, text in zip(names, case.texts, strict=False)
    }
    return {"image": np.array([case.image], np.object_), **request} if case.image else request


def batches(rows: Sequence[Tensors]) -> Iterator[list[int]]:
    """Numbers of rows that fit together: a server batches equal shapes only."""

    def shape(index: int) -> list[tuple[int, ...]]:
        return [tensor.shape for tensor in rows[index].values()]

    for _, group in itertools.groupby(sorted(range(len(rows)), key=shape), shape):
        alike = list(group)
        yield from (alike[start : start + BATCH_SIZE] for start in range(0, len(alike), BATCH_SIZE))


def best(results: npt.NDArray[Any]) -> Answer:
    """The first of a task's results; an empty text where there is none."""
    if results.dtype == np.object_:
        return Answer(results[0].decode(), None)
    return Answer("", tuple(results[0].tolist()) if len(results) else None)


if __name__ == "__main__":
    main()
