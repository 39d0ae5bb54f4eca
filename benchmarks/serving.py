"""What does serving cost: the ensemble under load beside the bare generator?

    .venv/bin/python -m benchmarks.serving                         the repository of `make demo`
    .venv/bin/python -m benchmarks.serving --name vqa              another of its ensembles
    .venv/bin/python -m benchmarks.serving --checkpoint DIR        an export of its own
    .venv/bin/python -m benchmarks.serving --size tiny             made-up weights of that size
    .venv/bin/python -m benchmarks.serving --size large --seconds 50 --clients 1 16
    .venv/bin/python -m benchmarks.serving --sweep --minutes 10    which settings suit this machine?

Runs the served files in this process, decoding and resizing, and the generator with batches of one
and of the configured size; then 1, 4 and 16 clients ask a server, each as fast as the answers come;
and so on in turn. Prints tables in Markdown, and writes them and the
numbers to `build/benchmarks/serving-NAME.json` and `.md` (a sweep: `sweep-NAME`, with a plot).

All share the same cores. So at best a server answers 1 / (g + p / n) pictures a second, with the
generator's seconds a picture g, which takes all n cores, and p of one core for decoding and
resizing; and a single client waits for g + p. The report says how near that is.

`--sweep` is described in `sweep.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch

from benchmarks.clients import measure_load
from benchmarks.common import OUTPUT, ROOT, Result, format_table, progress, write_result
from benchmarks.exported import (
    describe_commit,
    export,
    load_exported_generator,
    load_exported_task,
)
from benchmarks.generator import SIZES, build_checkpoint, fix_num_steps
from benchmarks.machine import Machine, describe_machine
from benchmarks.pictures import SAMPLES, list_pictures
from load_tests.triton_statistics import ModelStatistics
from load_tests.triton_statistics import format_table as format_statistics
from ofa.export import stack_rows
from ofa.lowering import PRECISIONS
from ofa.tasks import Task
from ofa.tensors import Tensors
from ofa_server.backends.pytorch.allocator import keep_blocks_apart, pool_blocks
from ofa_server.background import running_server
from ofa_server.model_configs import read_configs
from ofa_server.threads import usable_cores
from ofa_server.versions import MANIFEST, MEMBERS, version_folders

#: Batches of the bare generator that are not counted, for the same reason.
BARE_WARMUPS = 3
#: The best is told from the generator and its server in turn: a machine is not always as fast.
NUM_TURNS = 3
#: Times that every request is prepared; the first is not counted.
PREPARE_REPEATS = 10


def main() -> None:
    arguments = parse_arguments()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if arguments.threads:
        # The server inherits it; otherwise it counts by its own rule.
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    num_threads = arguments.threads or usable_cores()
    torch.set_num_threads(num_threads)
    repository, checkpoint = arguments.repository, arguments.checkpoint
    name = arguments.name or arguments.size or "caption"
    if arguments.size:
        checkpoint = fix_num_steps(build_checkpoint(arguments.size), arguments.steps)
    if checkpoint:
        progress("exporting")
        repository = export(checkpoint, name, arguments.precision)
    pictures = [file.read_bytes() for file in list_pictures(arguments.folder)]
    task = load_exported_task(repository, name)
    requests = make_requests(task, pictures)
    if arguments.sweep:
        # The first needs what is defined here, the second a library for plots.
        from benchmarks import sweep
        from benchmarks.plots import draw_sweep

        found = sweep.measure(repository, name, requests, num_threads, arguments.minutes)
        write_result(arguments.results, f"sweep-{name}", found, sweep.format_report(found))
        draw_sweep(found, arguments.results / f"sweep-{name}.svg")
    else:
        result = {
            "name": name,
            "task": task.name,
            "precision": read_precision(repository, name),
            "num_threads": num_threads,
            "machine": asdict(describe_machine()),
            "commit": describe_commit(),
            **measure(repository, task, requests, arguments.clients, arguments.seconds, name),
        }
        write_result(arguments.results, f"serving-{name}", result, format_report(result))


def measure(
    repository: Path,
    task: Task,
    requests: Sequence[Tensors],
    client_counts: Sequence[int],
    seconds: float,
    name: str,
) -> Result:
    """Measure without a server, then with one and every number of clients, in turn."""
    rows, prepare = prepare_rows(task, requests)
    batch_sizes = sorted({1, batch_limit(repository, name)})
    run_batch = bare_generator(repository, task, name, rows, batch_sizes)
    turns: list[Result] = []
    with linked(repository, name) as own, serving(own) as server:
        for turn in range(NUM_TURNS):
            progress(f"turn {turn + 1} of {NUM_TURNS}: batches of {batch_sizes}, no server")
            bare = {"prepare": prepare, "bare": measure_bare(run_batch, batch_sizes, seconds)}
            loads = [
                asdict(measure_load(server, name, requests, num_clients, seconds))
                for num_clients in client_counts
            ]
            best = best_per_second(bare, torch.get_num_threads())
            for load in loads:
                load["share"] = load["per_second"] / best
            overhead = overhead_ms(bare, loads)
            turns.append({**bare, "loads": loads, "best": best, "overhead_ms": overhead})
    overheads = [turn["overhead_ms"] for turn in turns if turn["overhead_ms"] is not None]
    return {
        "seconds": seconds,
        "num_turns": NUM_TURNS,
        "prepare": prepare,
        "bare": [medians(each) for each in zip(*(turn["bare"] for turn in turns), strict=True)],
        "loads": [medians(each) for each in zip(*(turn["loads"] for turn in turns), strict=True)],
        "best_per_second": median(turn["best"] for turn in turns),
        "overhead_ms": median(overheads) if overheads else None,
    }


def medians(turns: Sequence[Result]) -> Result:
    """The median of every number; of Triton's statistics the last turn's."""
    first = turns[0]
    return {
        key: turns[-1][key]
        if key == "triton"
        else medians([turn[key] for turn in turns])
        if isinstance(first[key], dict)
        else median(turn[key] for turn in turns)
        for key in first
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--repository", type=Path, default=ROOT / "build" / "model_repository", metavar="DIR"
    )
    source.add_argument("--checkpoint", type=Path, metavar="DIR", help="to export and to serve")
    source.add_argument("--size", choices=SIZES, help="of a checkpoint with made-up weights")
    parser.add_argument(
        "--steps", type=int, default=17, metavar="N", help="tokens of its captions, EOS counted"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS["cpu"], default="float32", help="of that export"
    )
    parser.add_argument("--name", help="of the ensemble (default: caption, or the size)")
    parser.add_argument("--folder", type=Path, default=SAMPLES, help="with pictures")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="at a time"
    )
    parser.add_argument(
        "--seconds", type=float, default=5, metavar="S", help="of every part in a turn"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="by default as `ofa serve` counts them"
    )
    parser.add_argument("--sweep", action="store_true", help="find settings for this machine")
    parser.add_argument("--minutes", type=float, default=10, metavar="M", help="for the sweep")
    parser.add_argument("--results", type=Path, default=OUTPUT, metavar="DIR")
    return parser.parse_args()


def make_requests(task: Task, pictures: Sequence[bytes]) -> list[Tensors]:
    """The task's example for every picture, or alone where it takes none."""
    example = task.example_request()
    if "image" not in example:
        return [example]
    return [{**example, "image": np.array([picture], np.object_)} for picture in pictures]


def read_precision(repository: Path, name: str) -> str:
    """What an ensemble was exported in."""
    *_, latest = version_folders(repository / name).values()
    return str(json.loads((latest / MANIFEST).read_text("utf-8"))["precision"])


def batch_limit(repository: Path, name: str) -> int:
    """Most rows that an ensemble's generator gets at once."""
    return int(read_configs(repository)[f"{name}_generator"].max_batch_size)


def prepare_rows(task: Task, requests: Sequence[Tensors]) -> tuple[list[Tensors], Result]:
    """What the generator gets of every request, and the seconds that took, on one core."""
    rows: list[Tensors] = []
    times: list[float] = []
    for request in [*requests] * PREPARE_REPEATS:
        start = time.perf_counter()
        rows.append(task.preprocess(request))
        times.append(time.perf_counter() - start)
    # The first time, libraries load their codecs.
    return rows[-len(requests) :], _seconds(times[len(requests) :])


def bare_generator(
    repository: Path, task: Task, name: str, rows: Sequence[Tensors], batch_sizes: Sequence[int]
) -> Callable[[int], float]:
    """Load what is served into this process, and warm it up.

    Returns:
        A function that runs a batch of a size, and returns its seconds.
    """
    progress(f"loading {name} without a server")
    # As the server's backend does.
    keep_blocks_apart()
    generator = load_exported_generator(repository, name)
    endless = itertools.cycle(rows)

    @torch.inference_mode()
    def run_batch(batch_size: int) -> float:
        arguments = stack_rows([next(endless) for _ in range(batch_size)], task)
        start = time.perf_counter()
        generator(*arguments)
        return time.perf_counter() - start

    run_batch(1)
    pool_blocks()
    for batch_size in batch_sizes:
        for _ in range(BARE_WARMUPS):
            run_batch(batch_size)
    return run_batch


def measure_bare(
    run_batch: Callable[[int], float], batch_sizes: Sequence[int], seconds: float
) -> list[Result]:
    """Seconds a request of the generator alone, with batches of every size."""
    bare = []
    for batch_size in batch_sizes:
        batches: list[float] = []
        while sum(batches) < seconds:
            batches.append(run_batch(batch_size))
        bare.append({"batch_size": batch_size, **_seconds([s / batch_size for s in batches])})
    return bare


def _seconds(times: Sequence[float]) -> Result:
    return {"mean_s": mean(times), "median_s": median(times)}


@contextmanager
def linked(repository: Path, *names: str) -> Iterator[Path]:
    """Yield a repository of the models of these ensembles only, whose files are links."""
    with tempfile.TemporaryDirectory(prefix="ofa-benchmark-") as folder:
        members = (f"{name}_{member}" for name in names for member in MEMBERS)
        for model in (*names, *members):
            (Path(folder) / model).mkdir()
            for file in (repository / model).iterdir():
                (Path(folder) / model / file.name).symlink_to(file.resolve())
        yield Path(folder)


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Yield HOST:PORT of a server of our own."""
    log = OUTPUT / "server.log"
    progress(f"starting a server; its log is {log}")
    with running_server(repository, log) as server:
        yield server


def best_per_second(bare: Result, num_cores: int) -> float:
    """Answers a second that the cores allow without a server."""
    generator = min(run["mean_s"] for run in bare["bare"])
    return float(1 / (generator + bare["prepare"]["mean_s"] / num_cores))


def overhead_ms(bare: Result, loads: Sequence[Result]) -> float | None:
    """What a single client waits beyond generator, decoding and resizing: of medians.

    None where no single client was measured.
    """
    alone = bare["bare"][0]["median_s"] + bare["prepare"]["median_s"]
    for load in loads:
        if load["num_clients"] == 1:
            return float(load["latencies_ms"]["p50"] - 1000 * alone)
    return None


def format_report(result: Result) -> str:
    """The measurement in Markdown."""
    best, overhead = result["best_per_second"], result["overhead_ms"]
    loads = [
        (
            str(load["num_clients"]),
            f"{load['per_second']:.2f}",
            f"{load['share']:.0%}",
            *(f"{load['latencies_ms'][key]:.0f}" for key in ("p50", "p90", "p99")),
        )
        for load in result["loads"]
    ]
    bare = [
        (str(run["batch_size"]), f"{1 / run['mean_s']:.2f}", f"{1000 * run['mean_s']:.1f}")
        for run in result["bare"]
    ]
    name, task, num_threads = result["name"], result["task"], result["num_threads"]
    setting = f"medians of {result['num_turns']} turns of {result['seconds']:g} s a row"
    lines = [
        f"**{name}** ({task}): {num_threads} threads, {setting}",
        "",
        f"{Machine(**result['machine'])}; commit {result['commit']}",
        "",
        format_table(
            ("clients", "answers/s", "share of the best", "p50, ms", "p90, ms", "p99, ms"), loads
        ),
        "",
        format_table(("bare generator, batch", "answers/s", "ms a request"), bare),
        "",
        f"- Decoding and resizing: {1000 * result['prepare']['mean_s']:.1f} ms of one core.",
        f"- The best without a server, on the same cores: {best:.2f} answers/s.",
    ]
    if overhead is not None:
        lines.append(
            f"- One client waits {overhead:.1f} ms beyond generator, decoding and resizing."
        )
    for load in result["loads"]:
        triton = {model: ModelStatistics(*each) for model, each in load["triton"].items()}
        lines += [
            "",
            f"Triton's own means in the last turn, ms a request, {load['num_clients']} clients:",
            "```",
            format_statistics(triton),
            "```",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
