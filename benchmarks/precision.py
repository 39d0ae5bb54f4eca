"""What does a narrower precision change: captions, scores and seconds against float32?

    .venv/bin/python -m training.evaluate --num-cases 500 --save build/own_set
    .venv/bin/python -m benchmarks.precision --folder build/own_set/caption

Captions every picture of a folder with an export in float32 and with one in another precision, in
turn in one run, one by one. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.common import OUTPUT, ROOT, progress
from benchmarks.exported import (
    SAMPLES,
    export,
    list_pictures,
    load_exported_generator,
    load_exported_task,
    read_texts,
)
from benchmarks.machine import describe_machine
from ofa.export import DTYPES, stack_rows
from ofa.tasks import Task
from ofa.tensors import Tensors

#: TorchScript and oneDNN are slow at first.
_WARMUPS = 3
_NARROW = [name for name in DTYPES if name != "float32"]


class Captioned(NamedTuple):
    """One picture: what was said, its score, and seconds of the generator."""

    text: str
    score: float
    seconds: float


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    pictures = list_pictures(arguments.folder)
    name = arguments.checkpoint.resolve().name
    # Both exports have the same pre- and postprocessing.
    exported = {
        precision: export(arguments.checkpoint, f"{name}-{precision}", precision)
        for precision in ("float32", arguments.precision)
    }
    task = load_exported_task(exported["float32"], f"{name}-float32")
    generators = [
        load_exported_generator(repository, f"{name}-{precision}")
        for precision, repository in exported.items()
    ]
    progress(f"captioning {len(pictures)} pictures of {arguments.folder}")
    rows = [
        task.preprocess({"image": np.array([picture.read_bytes()], np.object_)})
        for picture in pictures
    ]
    for row in rows[:_WARMUPS]:
        for generator in generators:
            caption(task, generator, row)
    pairs = [(caption(task, generators[0], row), caption(task, generators[1], row)) for row in rows]
    print(f"{describe_machine()}; {arguments.threads} threads, batch 1")
    print()
    print(format_row("checkpoint", "pictures", "precision", "same caption", "score drift", "speed"))
    print(format_row(*["---"] * 6))
    print(summarise(name, arguments.precision, pairs))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=ROOT / "checkpoints" / "ofa-emoji-tiny_en", metavar="DIR"
    )
    parser.add_argument("--folder", type=Path, default=SAMPLES, help="with pictures")
    parser.add_argument("--precision", choices=_NARROW, default=_NARROW[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    return parser.parse_args()


@torch.inference_mode()
def caption(task: Task, generator: torch.jit.ScriptModule, row: Tensors) -> Captioned:
    """Caption a prepared picture."""
    inputs = stack_rows([row], task)
    start = time.perf_counter()
    outputs = generator(*inputs)
    seconds = time.perf_counter() - start
    return Captioned(read_texts(task, row, outputs)[0], float(outputs[1][0, 0]), seconds)


def summarise(name: str, precision: str, pairs: list[tuple[Captioned, Captioned]]) -> str:
    """A row of the table: scores are compared where the captions are the same."""
    same = [(wide, narrow) for wide, narrow in pairs if wide.text == narrow.text]
    drifts = [abs(wide.score - narrow.score) for wide, narrow in same]
    speed = median(wide.seconds / narrow.seconds for wide, narrow in pairs)
    return format_row(
        name,
        str(len(pairs)),
        precision,
        f"{len(same) / len(pairs):.1%}",
        f"median {median(drifts):.1e}, largest {max(drifts):.1e}" if drifts else "",
        f"{speed:.2f} x",
    )


def format_row(*cells: str) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
