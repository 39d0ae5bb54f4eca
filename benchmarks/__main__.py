"""Everything that README.md and docs/precision.md say of speed, in one command.

    make bench                                  all parts: about 50 minutes on two cores
    .venv/bin/python -m benchmarks serving      one part; the others' figures stay
    .venv/bin/python -m benchmarks gpu          the generator on a CUDA device
    .venv/bin/python -m benchmarks --quick      does it run? Two minutes; nothing is published

Every part writes its tables and numbers to `build/benchmarks/`. The numbers are then added to
`benchmarks/measured.json`, and the sections of both pages are written from it (`report.py`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time

from benchmarks.common import OUTPUT, ROOT, progress
from benchmarks.report import RECORD, publish, read_results
from ofa.lowering import PRECISIONS

_BATCHED, _BATCHES = "bfloat16", ("--batch", "1", "8")
_UNBATCHED = [precision for precision in PRECISIONS["cpu"] if precision != _BATCHED]
_LARGE = str(OUTPUT / "checkpoints" / "large")

# Unseen pictures, if `python -m training.evaluate --save build/own_set` has drawn them.
_OWN_SET = ROOT / "build" / "own_set" / "caption"

#: Arguments of `python -m benchmarks.MODULE` by part, one list a run. A result's name starts with
#: its part's.
PARTS = {
    "generator": [
        ["generator", "--size", "tiny", "--precision", *PRECISIONS["cpu"]],
        ["generator", "--size", "base", "--precision", *PRECISIONS["cpu"]],
        ["generator", "--size", "large", "--precision", *_UNBATCHED],
        # What the run before has built.
        ["generator", "--checkpoint", _LARGE, "--precision", _BATCHED, *_BATCHES],
    ],
    "labels": [["labels", "--pictures", "1"]],
    "precision": [
        ["precision"],
        *([["precision", "--folder", str(_OWN_SET)]] if _OWN_SET.is_dir() else []),
    ],
    "serving": [
        ["serving", "--seconds", "5"],
        ["serving", "--size", "tiny", "--seconds", "10"],
        # A batch of eight takes a quarter of a minute.
        ["serving", "--size", "large", "--seconds", "50", "--clients", "1", "16"],
    ],
    "gpu": [
        [
            *("generator", "--size", "large", "--device", "cuda"),
            *("--precision", *PRECISIONS["cuda"], "--batch", "1", "8", "32"),
        ],
    ],
}
#: What is run if no part is named: a GPU's has another machine.
_DEFAULT = [part for part in PARTS if part != "gpu"]
QUICK = {
    "generator": [["generator", "--size", "tiny", "--pictures", "1", "--repeats", "1"]],
    "precision": [["precision", "--pictures", "50"]],
    "serving": [["serving", "--seconds", "3"]],
}


def main() -> None:
    arguments = parse_arguments()
    start = time.monotonic()
    record = json.loads(RECORD.read_text())
    for part in arguments.parts:
        folder = OUTPUT / ("quick" if arguments.quick else "published") / part
        shutil.rmtree(folder, ignore_errors=True)
        for run in (QUICK if arguments.quick else PARTS)[part]:
            progress(f"--- {' '.join(run)} ({time.monotonic() - start:.0f} s)")
            module, *options = run
            command = [sys.executable, "-m", f"benchmarks.{module}", *options]
            command += ["--results", str(folder)]
            subprocess.run(command, cwd=ROOT, check=True)
        # A result that this part no longer has is gone.
        record = {name: own for name, own in record.items() if not name.startswith(f"{part}-")}
        record |= read_results(folder)
    if not arguments.quick:
        publish(record)
    progress(f"{(time.monotonic() - start) / 60:.1f} minutes")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="publish nothing")
    arguments = parser.parse_args()
    parts = QUICK if arguments.quick else PARTS
    arguments.parts = arguments.parts or (list(QUICK) if arguments.quick else _DEFAULT)
    for part in arguments.parts:
        if part not in parts:
            parser.error(f"there is no part {part!r}; there are {', '.join(parts)}")
    return arguments


if __name__ == "__main__":
    main()
