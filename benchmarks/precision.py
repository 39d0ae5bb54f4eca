"""What does a narrower precision change: captions, scores and seconds against float32?

    .venv/bin/python -m benchmarks.precision                          500 cut-outs of the samples
    .venv/bin/python -m training.evaluate --num-cases 500 --save build/own_set
    .venv/bin/python -m benchmarks.precision --folder build/own_set/caption --precision bfloat16

Captions every picture with an export in float32 and with one in every other precision, in turn in
one run, one by one. Prints a table in Markdown, and writes it and its numbers to
`build/benchmarks/precision-NAME-PICTURES.json` and `.md`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.common import OUTPUT, ROOT, Result, format_table, progress, write_result
from benchmarks.exported import (
    describe_commit,
    export,
    load_exported_generator,
    load_exported_task,
    read_texts,
)
from benchmarks.machine import Machine, describe_machine
from benchmarks.pictures import cut_outs, list_pictures
from ofa.export import stack_rows
from ofa.lowering import PRECISIONS
from ofa.tasks import Task
from ofa.tensors import Tensors
from ofa_server.threads import usable_cores

#: TorchScript and oneDNN are slow at first.
_WARMUPS = 3
_WIDE = "float32"
_NARROW = [name for name in PRECISIONS["cpu"] if name != _WIDE]


class Captioned(NamedTuple):
    """One picture: what was said, its score, and seconds of the generator."""

    text: str
    score: float
    seconds: float


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    name = arguments.checkpoint.resolve().name
    precisions = [_WIDE, *arguments.precision]
    # All exports have the same pre- and postprocessing.
    for precision in precisions:
        repository = export(arguments.checkpoint, f"{name}-{precision}", precision)
    task = load_exported_task(repository, f"{name}-{_WIDE}")
    generators = [load_exported_generator(repository, f"{name}-{each}") for each in precisions]
    if arguments.folder:
        files = list_pictures(arguments.folder)[: arguments.pictures]
        pictures = [file.read_bytes() for file in files]
        source = "-".join(arguments.folder.resolve().parts[-2:])
    else:
        pictures, source = cut_outs(arguments.pictures), "cut-outs-of-samples"
    rows = [task.preprocess({"image": np.array([picture], np.object_)}) for picture in pictures]
    progress(f"captioning {len(rows)} pictures in {', '.join(precisions)}")
    for row in rows[:_WARMUPS]:
        for generator in generators:
            caption(task, generator, row)
    captioned = [[caption(task, generator, row) for generator in generators] for row in rows]
    wide, *others = (list(column) for column in zip(*captioned, strict=True))
    result = {
        "name": name,
        "pictures": source,
        "num_pictures": len(rows),
        "num_threads": arguments.threads,
        "machine": asdict(machine),
        "commit": describe_commit(),
        "precisions": {
            precision: compare(wide, narrow)
            for precision, narrow in zip(arguments.precision, others, strict=True)
        },
    }
    write_result(arguments.results, f"precision-{name}-{source}", result, format_report(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=ROOT / "checkpoints" / "ofa-emoji-tiny_en", metavar="DIR"
    )
    parser.add_argument("--folder", type=Path, help="with pictures; by default cut-outs are made")
    parser.add_argument("--pictures", type=int, default=500, metavar="N", help="at most")
    parser.add_argument("--precision", nargs="+", choices=_NARROW, default=_NARROW)
    parser.add_argument("--threads", type=int, default=usable_cores(), metavar="N")
    parser.add_argument("--results", type=Path, default=OUTPUT, metavar="DIR")
    return parser.parse_args()


@torch.inference_mode()
def caption(task: Task, generator: torch.jit.ScriptModule, row: Tensors) -> Captioned:
    """Caption a prepared picture."""
    inputs = stack_rows([row], task)
    start = perf_counter()
    outputs = generator(*inputs)
    seconds = perf_counter() - start
    return Captioned(read_texts(task, row, outputs)[0], float(outputs[1][0, 0]), seconds)


def compare(wide: list[Captioned], narrow: list[Captioned]) -> Result:
    """Shares and medians; scores are compared where the captions are the same."""
    pairs = list(zip(wide, narrow, strict=True))
    drifts = [abs(one.score - other.score) for one, other in pairs if one.text == other.text]
    return {
        "num_same": len(drifts),
        "median_drift": median(drifts) if drifts else None,
        "largest_drift": max(drifts, default=None),
        "speed": median(one.seconds / other.seconds for one, other in pairs),
    }


def format_report(result: Result) -> str:
    """The table in Markdown."""
    title = (
        f"**{result['name']}**: {result['num_pictures']} pictures ({result['pictures']}), "
        f"{result['num_threads']} threads, batch 1, beside float32"
    )
    return "\n".join(
        (
            title,
            "",
            f"{Machine(**result['machine'])}; commit {result['commit']}",
            "",
            format_changes(result),
        )
    )


def format_changes(result: Result) -> str:
    """A row for each precision."""
    header = ("precision", "same captions", "score drift: median", "largest", "speed")
    rows = [
        (
            precision,
            f"{changed['num_same'] / result['num_pictures']:.1%}",
            "" if changed["median_drift"] is None else f"{changed['median_drift']:.1e}",
            "" if changed["largest_drift"] is None else f"{changed['largest_drift']:.1e}",
            f"{changed['speed']:.2f} x",
        )
        for precision, changed in result["precisions"].items()
    ]
    return format_table(header, rows)


if __name__ == "__main__":
    main()
