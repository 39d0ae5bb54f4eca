"""Breaks servers in every way that is known to happen, and measures what comes of it.

    make chaos                               all scenarios but the soak: about a quarter of an hour
    make chaos SCENARIOS="kills overload"    some; the others' figures stay
    .venv/bin/python -m chaos soak           an hour
    .venv/bin/python -m chaos --quick        does it run? Nothing is recorded

Each scenario runs on servers of its own, on free ports; what they said is in `build/chaos/`. As
soon as one has ended its figures are in `chaos/measured.json` and `docs/reliability.md`. The exit
status is 1 if a figure is out of its bound.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

from tritonclient.utils import InferenceServerException

from benchmarks.common import ROOT, progress
from benchmarks.exported import describe_commit
from benchmarks.machine import describe_machine
from chaos.figures import Figure
from chaos.report import RECORD, figure_table, make_entry, publish
from chaos.servers import ChaosError
from ofa_server.errors import ServerError

#: Scenarios, each a module of this package, in the order in which they run.
SCENARIOS = ["overload", "kills", "rolling_restart", "fuzz", "misfortunes", "soak"]
#: What is not run unless it is named: it takes an hour.
LONG = ["soak"]
#: Why a scenario may not go on; the others do. The third is that a model was not exported.
_HINDRANCES = (
    ChaosError,
    ServerError,
    InferenceServerException,
    FileNotFoundError,
    subprocess.SubprocessError,
)


def main() -> int:
    """Runs scenarios one after the other."""
    arguments = _parse_arguments()
    all_within = True
    for name in arguments.scenarios:
        scenario = importlib.import_module(f"chaos.{name}")
        progress(f"--- {name}: {(scenario.__doc__ or '').splitlines()[0]}")
        # Before the scenario itself makes the machine busy.
        machine, start = describe_machine(), time.monotonic()
        try:
            figures: list[Figure] = scenario.run(arguments.repository, arguments.quick)
        except _HINDRANCES as error:
            progress(f"{name}: {error}")
            all_within = False
            continue
        minutes = (time.monotonic() - start) / 60
        print(f"\n{figure_table(figures)}\n", flush=True)
        all_within &= all(figure.within for figure in figures)
        if not arguments.quick:
            record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
            entry = make_entry(machine, describe_commit(), minutes, figures)
            publish({**record, name: entry})
    return 0 if all_within else 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="shorter, and record nothing")
    parser.add_argument(
        "--repository",
        type=Path,
        default=ROOT / "build" / "model_repository",
        metavar="DIR",
        help="with the bundled checkpoints (default: build/model_repository)",
    )
    arguments = parser.parse_args()
    for name in arguments.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    arguments.scenarios = arguments.scenarios or [
        name for name in SCENARIOS if name not in LONG or arguments.quick
    ]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
