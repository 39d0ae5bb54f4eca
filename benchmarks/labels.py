"""What does a list of labels cost, ours against ModelScope's own pipeline?

    .venv/bin/python -m benchmarks.labels                 a made-up checkpoint of size tiny
    .venv/bin/python -m benchmarks.labels --size base

A list as long as ImageNet's classes, all scored, beside a caption; and one as long as VQA's
answers, searched as a trie and all scored, beside the answer to the same question without a list.
Beam and lengths are the same for all: an answer without a list may be as long as the longest label.
Both sides have the same weights and threads and answer in turn in one run. Prints a table in
Markdown, and writes it and every time to `build/benchmarks/labels-SIZE.json` and `.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import OUTPUT, Result, format_table, progress, write_result
from benchmarks.exported import describe_commit, export
from benchmarks.generator import SIZES
from benchmarks.machine import Machine, describe_machine
from benchmarks.pictures import SAMPLES, list_pictures
from benchmarks.worker import Turn, our_side, reference_side, take_turns
from ofa.tokenizer import load_tokenizer
from ofa_server.threads import usable_cores
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


def main() -> None:
    arguments = parse_arguments()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    pictures = list_pictures(SAMPLES)[: arguments.pictures]
    result = {
        "size": arguments.size,
        "num_threads": arguments.threads,
        "machine": asdict(machine),
        "commit": describe_commit(),
        "num_turns": len(pictures),
        "comparisons": [
            measure(comparison, arguments.size, pictures, arguments.threads)
            for comparison in COMPARISONS
        ],
    }
    write_result(arguments.results, f"labels-{arguments.size}", result, format_report(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the made-up checkpoint")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="turns a search")
    parser.add_argument("--threads", type=int, default=usable_cores(), metavar="N")
    parser.add_argument("--results", type=Path, default=OUTPUT, metavar="DIR")
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
) -> list[Result]:
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

    def measure_search(search: Search, num_labels: int) -> Result:
        settings = {**shared, **search.settings, **(in_list if num_labels else {})}
        write_configuration(checkpoint, search.task, settings)
        progress(f"exporting: {search.name}")
        repository = export(checkpoint, checkpoint.name)
        our_arguments = [str(repository), checkpoint.name, comparison.text]
        reference_arguments = [str(checkpoint), comparison.text]
        with (
            reference_side("labels", reference_arguments, pictures[0], num_threads) as reference,
            our_side("labels", our_arguments, pictures[0], num_threads) as ours,
        ):
            turns = list(take_turns(ours, reference, pictures))
        return {"search": search.name, "num_labels": num_labels, **summarise(turns)}

    return [
        measure_search(comparison.freely, 0),
        *(measure_search(search, count) for search in comparison.within),
    ]


def summarise(turns: Sequence[Turn]) -> Result:
    """Every whole time of both sides, and in how many turns they said the same."""
    pairs = [(turn.ours[0], turn.reference) for turn in turns if turn.reference]
    return {
        "ours": [ours.seconds["whole"] for ours, _ in pairs],
        "reference": [reference.seconds["whole"] for _, reference in pairs],
        "num_same": sum(ours.answers == reference.answers for ours, reference in pairs),
    }


def format_report(result: Result) -> str:
    """Medians in Markdown, and what each search takes more than the first of its comparison."""
    header = (
        *("answer", "list of", "ModelScope, s", "ours, s", "ratio"),
        *("ModelScope, +ms", "ours, +ms"),
    )
    rows = []
    for freely, *within in result["comparisons"]:
        rows.append((freely["search"], "-", *format_seconds(freely), "", ""))
        for measured in within:
            more = [
                f"{1000 * (median(measured[side]) - median(freely[side])):+.0f}"
                for side in ("reference", "ours")
            ]
            labels = f"{measured['num_labels']:,}"
            rows.append((measured["search"], labels, *format_seconds(measured), *more))
    title = (
        f"**{result['size']}**: float32, {result['num_threads']} threads, one picture at a time; "
        f"medians of {result['num_turns']} turns"
    )
    return "\n".join(
        (
            title,
            "",
            f"{Machine(**result['machine'])}; commit {result['commit']}",
            "",
            format_table(header, rows),
            "",
            "- +ms: more than the search without a list above it.",
            f"- Same answer in {' of '.join(map(str, count_same(result)))} turns.",
        )
    )


def format_seconds(measured: Result) -> tuple[str, str, str]:
    """Medians of the reference and ours, and their ratio."""
    theirs, ours = median(measured["reference"]), median(measured["ours"])
    return f"{theirs:.3f}", f"{ours:.3f}", f"{theirs / ours:.1f}"


def count_same(result: Result) -> tuple[int, int]:
    """Turns in which both sides said the same, and all turns."""
    measured = [each for comparison in result["comparisons"] for each in comparison]
    return sum(each["num_same"] for each in measured), len(measured) * result["num_turns"]


if __name__ == "__main__":
    main()
