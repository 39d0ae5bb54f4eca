"""Every figure of docs/capacity.md, in one command of six minutes.

    .venv/bin/python -m load_tests.measure_capacity             all parts
    .venv/bin/python -m load_tests.measure_capacity curves      one; the others' figures stay
    .venv/bin/python -m load_tests.measure_capacity --render    the page again, from the record

The parts are `curves` (latency over throughput, closed and open loop, of two checkpoints),
`replicas` (one server on one core, then two on two: does the calculation hold?) and
`perf_analyzer` (the same load from NVIDIA's generator; `scripts/perf_analyzer.sh` fetches it). The
numbers are kept in `measured.json`, and the section of the page is written from it.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import OUTPUT, ROOT, progress
from benchmarks.exported import describe_commit, export
from benchmarks.generator import BUNDLED, build_checkpoint, fix_num_steps
from benchmarks.machine import describe_machine
from benchmarks.sections import replace_section
from benchmarks.serving import linked
from load_tests.capacity_page import COMMAND, PAGE, RECORD, render
from load_tests.plan import Plan, Request, Stage
from load_tests.run import run
from load_tests.summary import Result
from ofa_server.background import running_server

SAMPLES = ROOT / "samples"
PERF_ANALYZER = ROOT / "scripts" / "perf_analyzer.sh"
#: Tokens of every caption of the made-up checkpoint.
_NUM_STEPS = 17
#: Of what the closed loop reached: where the open loop's curve is measured.
_SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.1)
_WARMUP_SECONDS = 2
#: By which one user's answers a second may change in the course of a curve.
_DRIFT = 0.2
#: Clients that perf_analyzer and we compare with, and turns of each.
_NUM_CLIENTS = 8
_NUM_TURNS = 2
_TURN_SECONDS = 7
#: perf_analyzer takes the mean of three windows of this length; any three, however they differ.
_WINDOW_MS = 2500


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.measure_capacity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    parts = [] if arguments.render else arguments.parts or list(PARTS)
    for part in parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    start = time.monotonic()
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
    for part in parts:
        progress(f"--- {part} ({time.monotonic() - start:.0f} s)")
        head = {"machine": asdict(describe_machine()), "commit": describe_commit()}
        record[part] = head | PARTS[part]()
        # At once, so that nothing is lost if a later part fails.
        RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        write_page(record)
    if arguments.render:
        write_page(record)
    progress(f"wrote {PAGE.relative_to(ROOT)}; {(time.monotonic() - start) / 60:.1f} minutes")


def write_page(record: Result) -> None:
    """Write the section of the page, a function of the record."""
    page = replace_section(PAGE.read_text("utf-8"), COMMAND, render(record))
    PAGE.write_text(page, "utf-8")


def measure_curves() -> Result:
    """Both loops against a server with all cores, for each checkpoint."""
    checkpoints = {
        # Name of the ensemble, folder, users of the closed loop, and seconds of a stage.
        "bundled": (BUNDLED, (1, 4, 16), (4, 6)),
        "tiny": (fix_num_steps(build_checkpoint("tiny"), _NUM_STEPS), (1, 4, 8), (6, 9)),
    }
    curves = {}
    for name, (folder, users, (closed_seconds, open_seconds)) in checkpoints.items():
        with linked(exported(folder, name), name) as repository, serving(repository) as server:
            closed = load(name, [server], [Stage(closed_seconds, users=each) for each in users])
            most = max(stage["total"]["per_second"] for stage in closed["stages"])
            rates = [share * most for share in _SHARES]
            opened = load(name, [server], [Stage(open_seconds, rate=rate) for rate in rates])
            again = load(name, [server], [Stage(closed_seconds, users=users[0])])
        _check_is_as_fast(closed["stages"][0], again["stages"][0])
        curves[name] = {"closed": closed, "open": opened}
    return {"curves": curves}


def _check_is_as_fast(first: Result, last: Result) -> None:
    """The first load of a curve again after its last: were there others who used the machine?"""
    before, after = first["total"]["per_second"], last["total"]["per_second"]
    if abs(after - before) > _DRIFT * before:
        raise SystemExit(
            f"one user had {before:.1f} answers/s before the curve and {after:.1f} after it: "
            "something else uses this machine; the curves were not recorded"
        )


def measure_replicas() -> Result:
    """The bundled checkpoint on one core, then twice as much load on two replicas on two cores.

    The load's own work is done on the cores of the servers, so that it costs each core the same.
    """
    name = "bundled"
    all_cores = os.sched_getaffinity(0)
    first, second = sorted(all_cores)[:2]
    with linked(exported(BUNDLED, name), name) as repository, ExitStack() as stack:
        servers = [stack.enter_context(serving(repository, {first}))]
        with on_cores({first}):
            [closed] = load(name, servers, [Stage(6, users=_NUM_CLIENTS)])["stages"]
            rates = [share * closed["total"]["per_second"] for share in _SHARES]
            one = load(name, servers, [Stage(5, rate=rate) for rate in rates])
        servers.append(stack.enter_context(serving(repository, {second})))
        with on_cores({first, second}):
            two = load(name, servers, [Stage(5, rate=2 * rate) for rate in rates])
            [saturated] = load(name, servers, [Stage(6, users=2 * _NUM_CLIENTS)])["stages"]
    return {"one": one, "two": two, "closed": [closed, saturated]}


def compare_with_perf_analyzer() -> Result:
    """The same server and the same number of clients, by turns."""
    name = "bundled"
    sides = {"ours": run_ours, "perf_analyzer": perf_analyzer}
    turns: dict[str, list[Mapping[str, float]]] = {side: [] for side in sides}
    # Fetches it, if it is not there yet.
    subprocess.run([PERF_ANALYZER, "--version"], check=True, stdout=subprocess.DEVNULL)
    with linked(exported(BUNDLED, name), name) as repository, serving(repository) as server:
        for turn in range(_NUM_TURNS):
            # Each goes first as often as second: a machine can slow down.
            for side in sides if turn % 2 == 0 else reversed(sides):
                turns[side].append(sides[side](name, server))
    means = {
        side: {key: mean(turn[key] for turn in own) for key in own[0]}
        for side, own in turns.items()
    }
    return {"num_clients": _NUM_CLIENTS, "num_turns": _NUM_TURNS, **means}


PARTS = {
    "curves": measure_curves,
    "replicas": measure_replicas,
    "perf_analyzer": compare_with_perf_analyzer,
}


@cache
def exported(checkpoint: Path, name: str) -> Path:
    """The repository with a checkpoint under a name."""
    progress(f"exporting {name}")
    return export(checkpoint, name)


def load(name: str, servers: Sequence[str], stages: Sequence[Stage]) -> Result:
    """Send captions, and return the "stages" and the "generator" of the summary.

    The first stage is preceded by a shorter one of the same load that is not counted: at the start
    nobody waits for an answer yet, so there are fewer.
    """
    plan = Plan([replace(stages[0], seconds=_WARMUP_SECONDS), *stages], [Request(model=name)])
    progress(f"{plan.seconds} s at {len(servers)} servers: {', '.join(map(_describe, stages))}")
    result = run(plan, servers, SAMPLES)
    if num_failed := sum(stage["total"]["failed"] for stage in result["stages"]):
        raise SystemExit(f"{num_failed} requests failed; the server's log is in {OUTPUT}")
    kept = ("users", "rate", "seconds", "total", "triton")
    stages_kept = [{key: stage[key] for key in kept} for stage in result["stages"][1:]]
    return {"stages": stages_kept, "generator": result["generator"]}


def _describe(stage: Stage) -> str:
    return f"{stage.rate:.3g}/s" if stage.rate else f"{stage.users} users"


@contextmanager
def serving(repository: Path, cores: set[int] | None = None) -> Iterator[str]:
    """Yield HOST:PORT of a server, on some cores if they are named."""
    with ExitStack() as stack:
        with on_cores(cores or os.sched_getaffinity(0)):
            log = OUTPUT / f"capacity-{len(cores or ())}-{min(cores or {0})}.log"
            server = stack.enter_context(running_server(repository, log))
        yield server


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Processes that are started in the block stay on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_ours(name: str, server: str) -> Mapping[str, float]:
    """Captions a second and the median latency as `run.py` measures them, and its cores."""
    result = load(name, [server], [Stage(_TURN_SECONDS, users=_NUM_CLIENTS)])
    total = result["stages"][0]["total"]
    return {
        "per_second": total["per_second"],
        "p50_ms": total["p50_ms"],
        "cores": result["generator"]["cores"],
    }


def perf_analyzer(name: str, server: str) -> Mapping[str, float]:
    """Captions a second and the median latency as perf_analyzer measures them, and its cores."""
    progress("perf_analyzer")
    with tempfile.TemporaryDirectory(prefix="ofa-perf-analyzer-") as folder:
        inputs, table = Path(folder) / "inputs.json", Path(folder) / "table.csv"
        pictures = [file.read_bytes() for file in sorted(SAMPLES.iterdir())]
        inputs.write_text(
            json.dumps({"data": [{"image": _bytes_input(each)} for each in pictures]})
        )
        command: list[Any] = [
            *(PERF_ANALYZER, "-m", name, "-u", server, "-i", "grpc", "-f", table),
            *("--input-data", inputs, "--shape", "image:1"),
            *("--concurrency-range", _NUM_CLIENTS, "--measurement-interval", _WINDOW_MS),
            *("--max-trials", 3, "--stability-percentage", 999),
        ]
        start, before = time.monotonic(), os.times()
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.monotonic() - start, os.times()
        [row] = csv.DictReader(table.read_text().splitlines())
    return {
        "per_second": float(row["Inferences/Second"]),
        "p50_ms": float(row["p50 latency"]) / 1000,
        "cores": (
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
        / seconds,
    }


def _bytes_input(content: bytes) -> dict[str, str]:
    """A BYTES element as perf_analyzer sends it: with Triton's length in front."""
    return {"b64": base64.b64encode(len(content).to_bytes(4, "little") + content).decode()}


if __name__ == "__main__":
    main()
