"""From what Locust and Triton saw to the figures of a run, as JSON holds them.

A summary has:

- "plan", "servers", "started_at" (seconds since 1970), "machine"
- "generator": what making the load cost, and how late requests were sent
- "whole", and "stages" with "users" and "rate": a part of the run each, see `_part`
- "course": the same in short, by time
- "triton": the statistics of each model over the whole run
- "errors": how many, by what went wrong
- "checks": what was to be reached, and whether it was
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from load_tests.calls import ANSWERED, FAILED, GOOD, OVERLOADED, REFUSED
from load_tests.plan import Plan
from load_tests.schedule import borders, slot_seconds
from load_tests.slo import check
from load_tests.tally import Cell, Latencies, Tally
from load_tests.triton_statistics import ModelStatistics, Reading, between, share_of, subtract

#: What a run found out.
Result = dict[str, Any]

PERCENTILES = (50, 95, 99)
_OUTCOMES = (ANSWERED, REFUSED, OVERLOADED, FAILED)
_LOOPBACK = ("127.", "localhost", "[::1]")


def summarize(
    plan: Plan, servers: Sequence[str], outcome: Mapping[str, Any], readings: Sequence[Reading]
) -> Result:
    """Sum up a run.

    Args:
        plan: what was sent.
        servers: HOST:PORT of each.
        outcome: as Locust's processes have counted it.
        readings: of the servers' statistics, from before the run until after it.
    """
    tally = Tally.from_table(outcome["tally"])
    started_at = outcome["started_at"]
    models = subtract(readings[-1].models, readings[0].models) if readings else {}
    whole = _part(plan, tally, range(len(plan.stages)), models)
    stages = []
    for number, (start, end) in enumerate(itertools.pairwise(borders(plan.stages))):
        meanwhile = between(readings, started_at + start, started_at + end)
        load = {"users": plan.stages[number].users, "rate": plan.stages[number].rate}
        stages.append({**load, **_part(plan, tally, [number], meanwhile)})
    return {
        "plan": asdict(plan),
        "servers": list(servers),
        "started_at": started_at,
        "machine": machine_name(),
        "generator": _generator(plan, servers, tally, outcome["num_processes"]),
        "whole": whole,
        "stages": stages,
        "course": _course(plan, tally, readings, started_at),
        "triton": {name: model._asdict() for name, model in models.items()},
        "errors": dict(tally.errors.most_common()),
        "checks": check(plan, whole, outcome["num_lost"]),
    }


def machine_name() -> str:
    """The processor and how many of its cores may be used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


def _part(
    plan: Plan, tally: Tally, stages: Sequence[int], models: Mapping[str, ModelStatistics]
) -> Result:
    """Figures of some stages.

    Returns:
        "seconds", "rows" by the name of each kind of request, "total" of all kinds, and "triton",
        by ensemble.
    """
    seconds = sum(plan.stages[stage].seconds for stage in stages)
    names = [request.name for request in plan.requests]
    ensembles = {request.model: share_of(request.model, models) for request in plan.requests}
    return {
        "seconds": seconds,
        "rows": {name: _row(tally, stages, {name}, seconds) for name in names},
        "total": _row(tally, stages, names, seconds),
        "triton": {name: share._asdict() for name, share in ensembles.items() if share},
    }


def _row(tally: Tally, stages: Container[int], names: Container[str], seconds: float) -> Result:
    """Counts of requests that were due in some stages, and milliseconds of those that went well.

    Answers a second are those that came within the stages, whenever their requests were due.
    """
    cells = [cell for cell in tally.latencies if cell.stage in stages and cell.name in names]
    counts = {
        outcome: sum(len(tally.latencies[cell]) for cell in cells if cell.outcome == outcome)
        for outcome in _OUTCOMES
    }
    good = _merged(tally, (cell for cell in cells if cell.outcome in GOOD))
    completed = sum(
        count
        for (stage, name), count in tally.completed.items()
        if stage in stages and name in names
    )
    return {
        "sent": sum(counts.values()),
        **counts,
        "per_second": completed / seconds,
        **{f"p{percent}_ms": good.percentile(percent) for percent in PERCENTILES},
        "mean_ms": good.mean_ms,
        "max_ms": good.max_ms if good else None,
    }


def _merged(tally: Tally, cells: Iterable[Cell]) -> Latencies:
    merged = Latencies()
    for cell in cells:
        merged.merge(tally.latencies[cell])
    return merged


def _generator(plan: Plan, servers: Sequence[str], tally: Tally, num_processes: int) -> Result:
    return {
        "num_processes": num_processes,
        "cores": tally.cpu_seconds / plan.seconds,
        "shares_machine": any(server.startswith(_LOOPBACK) for server in servers),
        "late_p99_ms": tally.lateness.percentile(99),
        "late_max_ms": tally.lateness.max_ms,
    }


def _course(
    plan: Plan, tally: Tally, readings: Sequence[Reading], started_at: float
) -> list[Result]:
    length = slot_seconds(plan.seconds)
    course = []
    for slot in sorted({cell.slot for cell in tally.latencies}):
        cells = [cell for cell in tally.latencies if cell.slot == slot]
        good = _merged(tally, (cell for cell in cells if cell.outcome in GOOD))
        start = started_at + slot * length
        shares = [
            share_of(request.model, between(readings, start, start + length))
            for request in plan.requests
        ]
        course.append(
            {
                "seconds": slot * length,
                "sent_per_second": sum(len(tally.latencies[cell]) for cell in cells) / length,
                "bad_per_second": sum(
                    len(tally.latencies[cell]) for cell in cells if cell.outcome not in GOOD
                )
                / length,
                "p50_ms": good.percentile(50),
                "p95_ms": good.percentile(95),
                "queue_ms": max((share.queue_ms for share in shares if share), default=None),
            }
        )
    return course
