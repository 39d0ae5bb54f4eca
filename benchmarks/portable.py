"""What does `ofa export --portable` cost: seconds of the generator beside the packed export?

    .venv/bin/python -m benchmarks.portable                        a made-up checkpoint of size base
    .venv/bin/python -m benchmarks.portable --size tiny --turns 20
    .venv/bin/python -m benchmarks.portable --checkpoint checkpoints/ofa-emoji-tiny_en

Both answer the same picture in turn in one run, one at a time and four in a batch. Prints a table
in Markdown, and writes it and its numbers to `build/benchmarks/portable-NAME.json` and `.md`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from benchmarks.common import OUTPUT, format_table, progress, write_result
from benchmarks.exported import (
    describe_commit,
    export,
    load_exported_generator,
    load_exported_task,
)
from benchmarks.generator import SIZES, build_checkpoint
from benchmarks.machine import Machine, describe_machine
from ofa.export import stack_rows
from ofa.lowering import PORTABLE_PRECISIONS
from ofa_server.threads import usable_cores

#: TorchScript and oneDNN are slow at first.
_WARMUPS = 3
_BATCHES = (1, 4)
_PRECISIONS = PORTABLE_PRECISIONS["cpu"]


@torch.inference_mode()
def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.checkpoint or build_checkpoint(arguments.size)
    name = checkpoint.resolve().name
    table = {}
    for precision in _PRECISIONS:
        names = {False: f"{name}-{precision}", True: f"{name}-{precision}-portable"}
        for portable, each in names.items():
            repository = export(checkpoint, each, precision, portable=portable)
        task = load_exported_task(repository, names[False])
        row = task.preprocess(task.example_request())
        modules = {key: load_exported_generator(repository, each) for key, each in names.items()}
        for size in _BATCHES:
            progress(f"{precision}, {size} at once")
            batch = stack_rows([row] * size, task)
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for turn in range(_WARMUPS + arguments.turns):
                for portable, module in modules.items():
                    start = perf_counter()
                    module(*batch)
                    if turn >= _WARMUPS:
                        seconds[portable].append(perf_counter() - start)
            table[f"{precision}, {size}"] = {
                "packed": median(seconds[False]),
                "portable": median(seconds[True]),
            }
    result = {
        "name": name,
        "num_turns": arguments.turns,
        "num_threads": arguments.threads,
        "machine": asdict(describe_machine()),
        "commit": describe_commit(),
        "seconds": table,
    }
    rows = [
        (*key.split(", "), f"{s['packed']:.3f}", f"{s['portable']:.3f}", ratio(s))
        for key, s in table.items()
    ]
    header = ("precision", "batch", "packed, s", "portable, s", "times as long")
    text = "\n\n".join(
        (
            f"**{name}**: medians of {arguments.turns} turns, {arguments.threads} threads",
            f"{Machine(**result['machine'])}; commit {result['commit']}",
            format_table(header, rows),
        )
    )
    write_result(OUTPUT, f"portable-{name}", result, text)


def ratio(seconds: dict[str, float]) -> str:
    return f"{seconds['portable'] / seconds['packed']:.2f}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="instead of a made-up one")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the made-up checkpoint")
    parser.add_argument("--turns", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, default=usable_cores(), metavar="N")
    return parser.parse_args()


if __name__ == "__main__":
    main()
