"""The measured section of docs/capacity.md: a function of `measured.json` and of nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.capacity import CapacityError, describe, rate_of_replica, read_points
from load_tests.report import describe_stage

PAGE = Path(__file__).parents[1] / "docs" / "capacity.md"
RECORD = Path(__file__).with_name("measured.json")
COMMAND = "python -m load_tests.measure_capacity"

_TITLES = {
    "bundled": "The bundled checkpoint (96 px)",
    "tiny": "Made-up weights of size tiny at 480 px, 17 tokens a caption",
}
#: Of the example, as a share of what the best stage reached; its objective as a multiple of the
#: latency at the lowest rate.
_EXAMPLE_LOAD, _EXAMPLE_LATENCY = 3, 5


def render(record: Mapping[str, Any]) -> str:
    """The section."""
    parts: list[str] = []
    if "curves" in record:
        parts += _curves(record["curves"])
    if "replicas" in record:
        parts += _replicas(record["replicas"])
    if "perf_analyzer" in record:
        parts += _perf_analyzer(record["perf_analyzer"])
    return "\n\n".join(parts)


def _curves(result: Mapping[str, Any]) -> Iterator[str]:
    yield "### Curves"
    yield _where(result)
    for name, curve in result["curves"].items():
        yield _paragraph(
            f"{_TITLES[name]}, one server with all cores. {_generators(curve.values())}"
        )
        yield _stages_table([*curve["closed"]["stages"], *curve["open"]["stages"]])
        yield from _example(curve["open"]["stages"])


def _example(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The calculation for a load and an objective that fit this curve, to two digits."""
    points = read_points(stages, "p95_ms")
    latency_ms = float(f"{_EXAMPLE_LATENCY * points[0].latency_ms:.1g}")
    rate = float(f"{_EXAMPLE_LOAD * max(point.rate for point in points):.2g}")
    yield f"`capacity.py REPORT --rate {rate:g} --p95 {latency_ms:g}` says of this:"
    try:
        answer = describe(stages, rate, "p95_ms", latency_ms, spare=1)
    except CapacityError as error:
        answer = str(error)
    yield f"```\n{answer}\n```"


def _replicas(result: Mapping[str, Any]) -> Iterator[str]:
    one, two = result["one"]["stages"], result["two"]["stages"]
    yield "### One replica and two"
    yield _where(result)
    yield _paragraph(
        "The bundled checkpoint, one server on one core, the load on the same core; then twice the "
        "rate at two servers on a core each, the load on both and our client taking turns. "
        f"{_generators([result['one'], result['two']])}"
    )
    header = (
        *("one: requests/s", "answers/s", "p50, ms", "p95, ms"),
        *("two: requests/s", "answers/s", "p50, ms", "p95, ms"),
    )
    rows = [(*_short(low), *_short(high)) for low, high in zip(one, two, strict=True)]
    yield _table(header, rows)
    alone, together = (stage["total"]["per_second"] for stage in result["closed"])
    yield _paragraph(
        f"As fast as they can (8 users a replica, closed loop): {alone:.1f} answers/s of one, "
        f"{together:.1f} of two; predicted {2 * alone:.1f}, so {together / alone / 2 - 1:+.0%}."
    )
    # An objective that the curve of one replica crosses well before it is full.
    latency_ms = float(f"{_EXAMPLE_LATENCY * one[0]['total']['p95_ms']:.1g}")
    try:
        alone, together = (
            rate_of_replica(read_points(run, "p95_ms"), latency_ms) for run in (one, two)
        )
    except CapacityError as error:
        yield _paragraph(f"For a p95 of {latency_ms:g} ms: {error}.")
        return
    yield _paragraph(
        f"Within a p95 of {latency_ms:g} ms one does {alone:.1f} requests/s; predicted for two "
        f"{2 * alone:.1f}, measured {together:.1f} ({together / alone / 2 - 1:+.0%})."
    )


def _perf_analyzer(result: Mapping[str, Any]) -> Iterator[str]:
    ours, theirs = result["ours"], result["perf_analyzer"]
    yield "### Beside perf_analyzer"
    yield _where(result)
    yield _paragraph(
        f"NVIDIA's perf_analyzer 2.60 and `run.py` by turns at the same server, the bundled "
        f"checkpoint, {result['num_clients']} clients of a closed loop, means of "
        f"{result['num_turns']} turns. What the load itself costs is taken from the server here:"
    )
    difference = [ours[key] / theirs[key] - 1 for key in ("per_second", "p50_ms")]
    yield _table(
        ("", "answers/s", "p50, ms", "the load itself, cores"),
        [
            *(
                (name, f"{side['per_second']:.1f}", f"{side['p50_ms']:.1f}", f"{side['cores']:.3f}")
                for name, side in (("perf_analyzer", theirs), ("run.py", ours))
            ),
            ("difference", *(f"{each:+.1%}" for each in difference), ""),
        ],
    )


def _where(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    sets = ", ".join(machine["instruction_sets"])
    commit = f"; commit {result['commit']}" if result["commit"] else ""
    return _paragraph(
        f"{machine['cpu']} with {machine['num_cores']} cores ({sets}), torch "
        f"{machine['torch_version']}; load average {machine['load_average']:.1f} at the start"
        f"{commit}."
    )


def _generators(runs: Iterable[Mapping[str, Any]]) -> str:
    """What making the load cost in some runs, and how late it was."""
    generators = [run["generator"] for run in runs]
    cores = max(each["cores"] for each in generators)
    late = max(each["late_p99_ms"] or 0.0 for each in generators)
    return f"The load itself took at most {cores:.2f} cores, and was {late:.1f} ms late (p99)."


def _stages_table(stages: Sequence[Mapping[str, Any]]) -> str:
    header = (
        *("load", "answers/s", "p50, ms", "p95, ms", "p99, ms", "refused"),
        *("Triton: queue, ms", "compute, ms", "batch"),
    )
    rows = []
    for stage in stages:
        total = stage["total"]
        load = (
            f"{total['sent'] / stage['seconds']:.1f} requests/s"
            if stage["rate"]
            else describe_stage(stage)
        )
        [share] = stage["triton"].values() or [{}]
        shares = (share.get(key) for key in ("queue_ms", "compute_ms", "batch"))
        latencies = (total[key] for key in ("p50_ms", "p95_ms", "p99_ms"))
        rows.append(
            (
                load,
                f"{total['per_second']:.1f}",
                *map(_milliseconds, latencies),
                str(total["overloaded"]),
                *map(_milliseconds, shares),
            )
        )
    return _table(header, rows)


def _short(stage: Mapping[str, Any]) -> tuple[str, ...]:
    total = stage["total"]
    return (
        f"{total['sent'] / stage['seconds']:.1f}",
        f"{total['per_second']:.1f}",
        *(_milliseconds(total[key]) for key in ("p50_ms", "p95_ms")),
    )


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 108, break_long_words=False, break_on_hyphens=False)
