"""What does serving cost: the ensemble under load beside the bare generator?

    .venv/bin/python -m benchmarks.serving                       the repository of `make demo`
    .venv/bin/python -m benchmarks.serving --checkpoint DIR      an export of its own

Starts a server, lets 1, 4 and 16 clients send pictures, each as fast as the answers come, and then
runs the served file without a server. Prints tables in Markdown, and writes the numbers to
`build/benchmarks/serving.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, quantiles

import numpy as np
import torch

from benchmarks.common import OUTPUT, ROOT, progress
from benchmarks.exported import (
    SAMPLES,
    export,
    list_pictures,
    load_exported_generator,
    load_exported_task,
)
from benchmarks.machine import Machine, describe_machine
from load_tests.triton_statistics import (
    ModelStatistics,
    format_table,
    read_statistics,
    subtract,
)
from ofa.export import stack_rows
from ofa_client import OFAClient
from ofa_server.background import running_server

#: Part of the measured time that goes before it: a new batch size is slow at first.
WARMUP_SHARE = 0.3
#: Batches of the bare generator that are not counted, for the same reason.
BARE_WARMUPS = 3


@dataclass(frozen=True)
class Load:
    """What a number of clients saw, and what Triton says of the same time.

    Attributes:
        num_clients: that were waiting for an answer at any time.
        latencies: seconds of every request.
        pictures_per_second: answered.
        triton: by model.
    """

    num_clients: int
    latencies: list[float]
    pictures_per_second: float
    triton: dict[str, ModelStatistics]


@dataclass(frozen=True)
class BareRun:
    """The exported generator in this process.

    Attributes:
        batch_size: pictures a call.
        seconds: of every call.
    """

    batch_size: int
    seconds: list[float]


@dataclass(frozen=True)
class Measurement:
    """One run: where, with how many threads in each process that generates, and all times."""

    machine: Machine
    num_threads: int
    loads: list[Load]
    bare_runs: list[BareRun]


def main() -> None:
    arguments = parse_arguments()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    # The server inherits it, and with it every library that counts its own threads.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    repository, name = arguments.repository, arguments.name
    if arguments.checkpoint:
        progress("exporting")
        repository = export(arguments.checkpoint, name)
    pictures = [file.read_bytes() for file in list_pictures(arguments.folder)]
    machine = describe_machine()
    loads = measure_loads(repository, name, pictures, arguments.clients, arguments.seconds)
    generator = loads[-1].triton[f"{name}_generator"]
    served_batch_size = round(generator.num_requests / generator.num_executions)
    bare_runs = [
        run_bare(repository, name, pictures, batch_size, arguments.seconds)
        for batch_size in sorted({1, served_batch_size})
    ]
    measurement = Measurement(machine, arguments.threads, loads, bare_runs)
    report = OUTPUT / "serving.json"
    report.write_text(json.dumps(asdict(measurement), indent=1))
    print(format_report(measurement))
    progress(f"every time: {report}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--repository", type=Path, default=ROOT / "build" / "model_repository", metavar="DIR"
    )
    source.add_argument("--checkpoint", type=Path, metavar="DIR", help="to export first")
    parser.add_argument("--name", default="caption", help="of the ensemble (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=SAMPLES, help="with pictures")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], metavar="N")
    parser.add_argument("--seconds", type=float, default=20, metavar="S", help="of every part")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    return parser.parse_args()


def measure_loads(
    repository: Path, name: str, pictures: Sequence[bytes], client_counts: list[int], seconds: float
) -> list[Load]:
    """Drive a server of our own with every number of clients."""
    loads = []
    log = OUTPUT / "server.log"
    progress(f"starting a server; its log is {log}")
    with running_server(repository, log) as server:
        for num_clients in client_counts:
            progress(f"{num_clients} clients for {seconds:g} s, after a warm-up")
            drive(server, name, pictures, num_clients, WARMUP_SHARE * seconds)
            before = read_statistics(server)
            start = time.perf_counter()
            latencies = drive(server, name, pictures, num_clients, seconds)
            elapsed = time.perf_counter() - start
            triton = subtract(read_statistics(server), before)
            loads.append(Load(num_clients, latencies, len(latencies) / elapsed, triton))
    return loads


def drive(
    server: str, name: str, pictures: Sequence[bytes], num_clients: int, seconds: float
) -> list[float]:
    """Seconds of every request of clients that send one picture after the other.

    Requests that are under way when the time is over are finished and counted.
    """
    deadline = time.perf_counter() + seconds

    def run_client(number: int) -> list[float]:
        own = itertools.cycle([*pictures[number:], *pictures[:number]])
        latencies = []
        with OFAClient(server, model=name) as client:
            while (start := time.perf_counter()) < deadline:
                client.caption(next(own))
                latencies.append(time.perf_counter() - start)
        return latencies

    with ThreadPoolExecutor(num_clients) as pool:
        return list(itertools.chain.from_iterable(pool.map(run_client, range(num_clients))))


@torch.inference_mode()
def run_bare(
    repository: Path, name: str, pictures: Sequence[bytes], batch_size: int, seconds: float
) -> BareRun:
    """Call the exported generator with batches of prepared pictures."""
    progress(f"the bare generator with batches of {batch_size} for {seconds:g} s, after a warm-up")
    task = load_exported_task(repository, name)
    generator = load_exported_generator(repository, name)
    rows = [task.preprocess({"image": np.array([picture], np.object_)}) for picture in pictures]
    endless = itertools.cycle(rows)

    def run_batch() -> float:
        arguments = stack_rows([next(endless) for _ in range(batch_size)], task)
        start = time.perf_counter()
        generator(*arguments)
        return time.perf_counter() - start

    for _ in range(BARE_WARMUPS):
        run_batch()
    times: list[float] = []
    while sum(times) < seconds:
        times.append(run_batch())
    return BareRun(batch_size, times)


def format_report(measurement: Measurement) -> str:
    """The measurement in Markdown."""
    lines = [
        f"{measurement.machine}; {measurement.num_threads} threads",
        "",
        "| clients | pictures/s | p50, ms | p90, ms | p99, ms |",
        "|---|---|---|---|---|",
    ]
    for load in measurement.loads:
        percentiles = quantiles(load.latencies, n=100, method="inclusive")
        p50, p90, p99 = (1000 * percentiles[p - 1] for p in (50, 90, 99))
        lines.append(
            f"| {load.num_clients} | {load.pictures_per_second:.2f} "
            f"| {p50:.0f} | {p90:.0f} | {p99:.0f} |"
        )
    lines += [
        "",
        "| bare generator, batch | pictures/s | ms a batch |",
        "|---|---|---|",
    ]
    for run in measurement.bare_runs:
        seconds = mean(run.seconds)
        lines.append(
            f"| {run.batch_size} | {run.batch_size / seconds:.2f} | {1000 * seconds:.0f} |"
        )
    for load in measurement.loads:
        lines += [
            "",
            f"Triton's own means with {load.num_clients} clients, in milliseconds a request:",
            "```",
            format_table(load.triton),
            "```",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
