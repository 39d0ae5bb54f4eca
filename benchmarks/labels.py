"""What does a list of labels cost, ours against ModelScope's own pipeline?

    .venv/bin/python -m benchmarks.labels                 a made-up checkpoint of size tiny
    .venv/bin/python -m benchmarks.labels --size base

A list as long as ImageNet's classes, all scored, beside a caption; and one as long as VQA's
answers, searched as a trie and all scored, beside the answer to the same question without a list.
Beam and lengths are the same for all: an answer without a list may be as long as the longest label.
Both sides have the same weights and threads and answer in turn in one run. Prints a table in
Markdown, and writes every single time, by stage, to `build/benchmarks/labels-SIZE.json`.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import OUTPUT, progress
from benchmarks.exported import SAMPLES, export, list_pictures
from benchmarks.generator import SIZES
from benchmarks.machine import describe_machine
from benchmarks.worker import Answered, Turn, both_sides
from ofa.tokenizer import load_tokenizer
from tests.reference.checkpoints import (
    LABEL_FILE,
    RECIPES,
    Calibration,
    write_checkpoint,
    write_configuration,
)

#: Labels that the reference decodes at once; the authors' scripts have 20.
REFERENCE_CHUNK = 20
#: Labels may repeat themselves; blocked n-grams would put such a label out of the trie's reach.
BEAM_SEARCH = {"beam_size": 5, "min_len": 1, "no_repeat_ngram_size": 0}


@dataclass(frozen=True)
class Search:
    """One way to answer.

    Attributes:
        name: in the table.
        task: ModelScope's name.
        settings: in `configuration.json`, beside those that all searches share.
    """

    name: str
    task: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The same question with and without a list to choose the answer from.

    Attributes:
        num_labels: in the list.
        text: asked beside the picture; empty for none.
        freely: the search without the list.
        within: those that have it.
    """

    num_labels: int
    text: str
    freely: Search
    within: tuple[Search, ...]


_CLASSES, _ANSWERS = "image-classification", "visual-question-answering"
COMPARISONS = (
    Comparison(
        1000,
        "",
        Search("a caption", "image-captioning"),
        (Search("all classes scored", _CLASSES, {"gen_type": "traverse"}),),
    ),
    Comparison(
        3129,
        "what is left of the doughnut?",
        Search("an open answer", _ANSWERS),
        (
            Search("answers as a trie", _ANSWERS, {"gen_type": "generation"}),
            Search(
                "all answers scored",
                _ANSWERS,
                {"gen_type": "traverse", "prompt_type": "prev_output"},
            ),
        ),
    ),
)


@dataclass(frozen=True)
class Measured:
    """One search's turns.

    Attributes:
        search: what was measured.
        num_labels: that it chose from; 0 for any text.
        turns: both sides' times.
    """

    search: Search
    num_labels: int
    turns: list[Turn]


def main() -> None:
    arguments = parse_arguments()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    pictures = list_pictures(SAMPLES)[: arguments.pictures]
    compared = [
        measure(comparison, arguments.size, pictures, arguments.threads)
        for comparison in COMPARISONS
    ]
    report = OUTPUT / f"labels-{arguments.size}.json"
    searches = [asdict(measured) for comparison in compared for measured in comparison]
    report.write_text(json.dumps({"machine": asdict(machine), "searches": searches}, indent=1))
    print(
        f"**{arguments.size}**: float32, {arguments.threads} threads, one picture at a time; "
        f"medians of {len(pictures)} turns"
    )
    print(f"\n{machine}\n")
    print(format_table(compared))
    progress(f"every time: {report}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the made-up checkpoint")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="turns a search")
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


def measure(
    comparison: Comparison, size: str, pictures: list[Path], num_threads: int
) -> list[Measured]:
    """Have both sides answer about every picture, without the list first."""
    count = comparison.num_labels
    progress(f"building a made-up checkpoint of size {size} with {count} labels")
    checkpoint = OUTPUT / "checkpoints" / f"{size}-{count}-labels"
    recipe, labels = RECIPES[size], make_labels(count)
    write_checkpoint(checkpoint, recipe, Calibration.load(recipe), {}, labels=labels)
    tokenizer = load_tokenizer(recipe.language, checkpoint)
    longest = max(len(tokenizer.encode_label(label)) for label in labels)
    shared = {
        "type": "ofa",
        "language": recipe.language,
        "beam_search": {**BEAM_SEARCH, "max_len_b": longest},
    }
    in_list = {"answer2label": LABEL_FILE, "valid_batch_size": REFERENCE_CHUNK}

    def take_turns(search: Search, settings: dict[str, Any]) -> list[Turn]:
        write_configuration(checkpoint, search.task, {**shared, **settings, **search.settings})
        progress(f"exporting: {search.name}")
        repository = export(checkpoint, checkpoint.name)
        ours = [str(repository), checkpoint.name, comparison.text]
        reference = [str(checkpoint), comparison.text]
        with both_sides("labels", ours, reference, pictures[0], num_threads) as sides:
            return list(sides.take_turns(pictures))

    return [
        Measured(comparison.freely, 0, take_turns(comparison.freely, {})),
        *(Measured(search, count, take_turns(search, in_list)) for search in comparison.within),
    ]


def format_table(compared: list[list[Measured]]) -> str:
    """Medians in Markdown, and what each search takes more than the first of its comparison."""
    lines = [
        "| answer | list of | ModelScope, s | ours, s | ratio | ModelScope, +ms | ours, +ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for freely, *within in compared:
        lines.append(f"| {freely.search.name} | - | {_seconds(freely)} | | |")
        for measured in within:
            more = [
                f"{1000 * (seconds - without):+.0f}"
                for seconds, without in zip(
                    _medians(measured.turns), _medians(freely.turns), strict=True
                )
            ]
            lines.append(
                f"| {measured.search.name} | {measured.num_labels:,} | {_seconds(measured)} "
                f"| {' | '.join(more)} |"
            )
    turns = [turn for comparison in compared for measured in comparison for turn in measured.turns]
    same = sum(turn.ours.answers == turn.reference.answers for turn in turns)
    return "\n".join(
        (
            *lines,
            "",
            "- +ms: more than the search without a list above it.",
            f"- Same answer in {same} of {len(turns)} turns.",
        )
    )


def _seconds(measured: Measured) -> str:
    theirs, ours = _medians(measured.turns)
    return f"{theirs:.3f} | {ours:.3f} | {theirs / ours:.1f}"


def _medians(turns: list[Turn]) -> tuple[float, float]:
    """Seconds of the reference and ours."""

    def whole(answered: list[Answered]) -> float:
        return median(each.seconds["whole"] for each in answered)

    return whole([turn.reference for turn in turns]), whole([turn.ours for turn in turns])


if __name__ == "__main__":
    main()
