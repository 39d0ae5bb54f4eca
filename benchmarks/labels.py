"""How fast are all labels scored, ours against ModelScope's own pipeline?

    .venv/bin/python -m benchmarks.labels                 a made-up checkpoint of size tiny
    .venv/bin/python -m benchmarks.labels --size base

As many labels as ImageNet has classes, behind BOS, and as many as VQA has answers, behind the
question. Both sides score the same labels with the same weights and threads, in turn in one run.
Prints a table in Markdown, and writes every single time to `build/benchmarks/labels-SIZE.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.exported import OUTPUT, ROOT, SAMPLES, export, list_pictures
from benchmarks.generator import SIZES
from benchmarks.machine import describe_machine
from benchmarks.worker import Answered, Worker
from tests.reference.checkpoints import RECIPES, Calibration, write_checkpoint

#: Labels that the reference decodes at once; the authors' scripts have 20.
REFERENCE_CHUNK = 20
#: TorchScript optimises in its first runs; the reference has nothing of the kind.
OUR_WARMUPS = 3
REFERENCE_WARMUPS = 1


@dataclass(frozen=True)
class Question:
    """What is asked of every picture.

    Attributes:
        task: ModelScope's name.
        num_labels: to score.
        prompt_type: what the decoder sees before a label.
        text: beside the picture; empty for none.
    """

    task: str
    num_labels: int
    prompt_type: str
    text: str


QUESTIONS = (
    Question("image-classification", 1000, "none", ""),
    Question("visual-question-answering", 3129, "prev_output", "what is left of the doughnut?"),
)


@dataclass(frozen=True)
class Turn:
    """One picture, scored by both sides one after the other."""

    question: Question
    picture: str
    ours: Answered
    reference: Answered


def main() -> None:
    arguments = parse_arguments()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    pictures = list_pictures(SAMPLES)[: arguments.pictures]
    turns: list[Turn] = []
    for question in QUESTIONS:
        turns += measure(question, arguments.size, pictures, arguments.threads)
    report = OUTPUT / f"labels-{arguments.size}.json"
    report.write_text(
        json.dumps({"machine": asdict(machine), "turns": [asdict(t) for t in turns]}, indent=1)
    )
    print(f"**{arguments.size}**: float32, {arguments.threads} threads, one picture at a time")
    print(f"\n{machine}\n")
    print(format_table(turns))
    progress(f"every time: {report}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the made-up checkpoint")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="turns a question")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    return parser.parse_args()


def make_labels(count: int) -> list[str]:
    """Made-up labels of one to three words, some of which are much more common than others."""
    numbers = np.random.default_rng(0)
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvz" for vowel in "aeiou"]
    words = numbers.permutation([first + second for first in syllables for second in syllables])
    weights = 1 / np.arange(1, len(words) + 1)
    labels: dict[str, None] = {}
    while len(labels) < count:
        length = numbers.choice([1, 2, 3], p=[0.5, 0.3, 0.2])
        labels[" ".join(numbers.choice(words, length, p=weights / weights.sum()))] = None
    return list(labels)


def measure(question: Question, size: str, pictures: list[Path], num_threads: int) -> list[Turn]:
    """Have both sides score all labels for every picture, in turn."""
    progress(f"building a made-up checkpoint of size {size} with {question.num_labels} labels")
    checkpoint = OUTPUT / "checkpoints" / f"{size}-{question.num_labels}-labels"
    recipe = RECIPES[size]
    settings = {
        "gen_type": "traverse",
        "prompt_type": question.prompt_type,
        "valid_batch_size": REFERENCE_CHUNK,
    }
    labels = make_labels(question.num_labels)
    write_checkpoint(checkpoint, recipe, Calibration.load(recipe), settings, question.task, labels)
    progress("exporting")
    repository = export(checkpoint, checkpoint.name)
    with (
        Worker(
            ROOT / ".venv-oracle" / "bin" / "python",
            "benchmarks.labels_reference",
            [str(checkpoint), question.text],
            num_threads,
            OUTPUT / "reference.log",
        ) as reference,
        Worker(
            Path(sys.executable),
            "benchmarks.labels_ours",
            [str(repository), checkpoint.name, question.text],
            num_threads,
            OUTPUT / "ours.log",
        ) as ours,
    ):
        progress("warming up the reference (building its pipeline takes half a minute), then ours")
        for _ in range(REFERENCE_WARMUPS):
            reference.answer(pictures[0])
        for _ in range(OUR_WARMUPS):
            ours.answer(pictures[0])
        turns = []
        for number, picture in enumerate(pictures, 1):
            turn = Turn(question, picture.name, ours.answer(picture), reference.answer(picture))
            turns.append(turn)
            progress(
                f"{number} of {len(pictures)}: ours {turn.ours.seconds['whole']:.3f} s, "
                f"reference {turn.reference.seconds['whole']:.3f} s"
            )
    return turns


def format_table(turns: list[Turn]) -> str:
    """Medians over the turns of every question, in Markdown."""
    lines = [
        "| task | labels | stage | ModelScope, s | ours, s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for question in QUESTIONS:
        asked = [turn for turn in turns if turn.question == question]
        for stage in asked[0].ours.seconds:
            theirs = median(turn.reference.seconds[stage] for turn in asked)
            seconds = median(turn.ours.seconds[stage] for turn in asked)
            lines.append(
                f"| {question.task} | {question.num_labels} | {stage} "
                f"| {theirs:.3f} | {seconds:.3f} | {theirs / seconds:.1f} |"
            )
    same = sum(turn.ours.answers == turn.reference.answers for turn in turns)
    return "\n".join((*lines, "", f"- Same label in {same} of {len(turns)} turns."))


def progress(line: str) -> None:
    """Say what is going on, apart from the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
