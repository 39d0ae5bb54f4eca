"""How many replicas, and which batch size, does a load need?

    python load_tests/run.py --server HOST:PORT --profile steps --report build/load    the curve
    python load_tests/capacity.py build/load/report.json --rate 200 --p95 500

The curve is the report of an open loop in stages against ONE replica, on the machine and with the
requests that it is to have. docs/capacity.md explains the calculation and what it was checked with.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import linear_regression
from typing import Any

#: Requests of a stage that may be unanswered at its end, as a share or in number: more mean that
#: a queue was growing. The last ones always get their answers in the next stage.
UNANSWERED_SHARE, UNANSWERED_COUNT = 0.1, 2


class CapacityError(Exception):
    """A curve does not allow the calculation; the message says why."""


@dataclass(frozen=True)
class Point:
    """One stage of a curve.

    Attributes:
        rate: requests a second that were sent.
        latency_ms: the percentile that the objective is about.
        is_sustained: whether nothing failed, and the answers kept up with the requests.
    """

    rate: float
    latency_ms: float
    is_sustained: bool


@dataclass(frozen=True)
class BatchCost:
    """What the generator takes for a batch: `fixed_ms + row_ms * rows`.

    Attributes:
        fixed_ms: however many rows there are.
        row_ms: for each row more.
        other_ms: of a request outside of the generator: the other members, and transfers.
        largest: mean batch that was seen; beyond it the line is a guess.
    """

    fixed_ms: float
    row_ms: float
    other_ms: float
    largest: float

    def milliseconds(self, rows: float) -> float:
        """Of a batch."""
        return self.fixed_ms + self.row_ms * rows

    def smallest(self, rate: float) -> int | None:
        """Fewest rows with which a generator that never pauses does a rate; None if none do."""
        # Share of the time that the rows leave for what a batch takes however many there are.
        left = 1 - rate / 1000 * self.row_ms
        return max(1, math.ceil(rate / 1000 * self.fixed_ms / left)) if left > 0 else None

    def most(self, latency_ms: float) -> int:
        """Most rows with which a request that waits for one batch and is in the next is in time."""
        available = (latency_ms - self.other_ms) / 2 - self.fixed_ms
        return max(0, math.floor(available / self.row_ms)) if self.row_ms > 0 else 0


def read_points(stages: Sequence[Mapping[str, Any]], percentile: str) -> list[Point]:
    """The points of a curve, by rising rate.

    Args:
        stages: of a report.
        percentile: "p50_ms", "p95_ms" or "p99_ms".

    Raises:
        CapacityError: there are no stages of an open loop.
    """
    points = []
    for stage in stages:
        total = stage["total"]
        if stage["rate"] and total["sent"]:
            rate = total["sent"] / stage["seconds"]
            num_unanswered = total["sent"] - total["per_second"] * stage["seconds"]
            keeps_up = num_unanswered <= max(UNANSWERED_SHARE * total["sent"], UNANSWERED_COUNT)
            has_failed = bool(total["failed"] + total["overloaded"])
            latency = total[percentile]
            points.append(
                Point(
                    rate=rate,
                    latency_ms=math.inf if latency is None else latency,
                    is_sustained=keeps_up and not has_failed,
                )
            )
    if not points:
        raise CapacityError("a curve needs stages with a rate: an open loop")
    return sorted(points, key=lambda point: point.rate)


def rate_of_replica(points: Sequence[Point], latency_ms: float) -> float:
    """Requests a second that one replica answers within an objective.

    It is read off the line between the last point of the curve that is within the objective and
    the next one. That one must be sustained: where a queue grows, a latency only says how long the
    stage was. If it is not, or there is none, nothing beyond the last good point is promised.

    Raises:
        CapacityError: already the lowest rate of the curve is too much.
    """
    good = list(takewhile(lambda each: each.is_sustained and each.latency_ms <= latency_ms, points))
    if not good:
        raise CapacityError(
            f"one replica misses {latency_ms:g} ms or does not keep up at {points[0].rate:.3g} "
            "requests/s already, the lowest rate of the curve; more replicas do not make a single "
            "request faster"
        )
    last = good[-1]
    if len(good) < len(points) and (beyond := points[len(good)]).is_sustained:
        share = (latency_ms - last.latency_ms) / (beyond.latency_ms - last.latency_ms)
        return last.rate + share * (beyond.rate - last.rate)
    return last.rate


def num_replicas(rate: float, replica_rate: float, spare: int) -> int:
    """Replicas that answer a rate, also while `spare` of them are lost."""
    return math.ceil(rate / replica_rate) + spare


def read_batch_cost(stages: Sequence[Mapping[str, Any]]) -> BatchCost | None:
    """The cost of a batch, by least squares.

    None if all stages had batches of the same size, or larger ones were quicker: that is noise.
    """
    shares = list(_shares(stages))
    batches = [share["batch"] for share in shares]
    if len(set(batches)) < 2:
        return None
    times = [share["infer_ms"] for share in shares]
    fit = linear_regression(batches, times)
    if fit.intercept < 0:  # which no batch costs: it is the noise of a row's time
        fit = linear_regression(batches, times, proportional=True)
    if fit.slope <= 0:
        return None
    return BatchCost(
        fixed_ms=fit.intercept,
        row_ms=fit.slope,
        other_ms=min(share["compute_ms"] - share["infer_ms"] for share in shares),
        largest=max(batches),
    )


def _shares(stages: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, float]]:
    """Triton's figures of the ensemble that infers longest, for each stage that has any."""
    for stage in stages:
        if stage["triton"]:
            yield max(stage["triton"].values(), key=lambda share: share["infer_ms"])


def describe(
    stages: Sequence[Mapping[str, Any]], rate: float, percentile: str, latency_ms: float, spare: int
) -> str:
    """The calculation in words.

    Raises:
        CapacityError: the curve does not allow it.
    """
    replica_rate = rate_of_replica(read_points(stages, percentile), latency_ms)
    count = num_replicas(rate, replica_rate, spare)
    name = percentile.removesuffix("_ms")
    lines = [
        f"One replica answers {replica_rate:.3g} requests/s with a {name} of {latency_ms:g} ms.",
        f"{rate:g} requests/s need {count - spare} of them; with {spare} to be lost: {count}.",
    ]
    if cost := read_batch_cost(stages):
        lines += _describe_batch(cost, rate / max(1, count - spare), latency_ms)
    return "\n".join(lines)


def _describe_batch(cost: BatchCost, rate: float, latency_ms: float) -> Iterator[str]:
    yield (
        f"A batch takes the generator {cost.fixed_ms:.3g} ms and {cost.row_ms:.3g} ms a row; a "
        f"request spends {cost.other_ms:.3g} ms elsewhere in the server."
    )
    smallest, most = cost.smallest(rate), cost.most(latency_ms)
    if smallest is None or smallest > most:
        yield f"No max_batch_size does {rate:.3g} requests/s a replica within {latency_ms:g} ms."
        return
    yield f"max_batch_size: from {smallest} (to keep up) to {most} (to wait for one and be in one)."
    if smallest > cost.largest:
        yield f"(Batches beyond {cost.largest:.2g} were not seen on the curve.)"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="report.json of an open loop, one replica")
    parser.add_argument("--rate", type=float, required=True, metavar="R", help="requests a second")
    objective = parser.add_mutually_exclusive_group(required=True)
    for name in ("p50", "p95", "p99"):
        objective.add_argument(f"--{name}", type=float, metavar="MS", help="the objective")
    parser.add_argument(
        "--spare", type=int, default=1, metavar="N", help="replicas to be lost; default: 1"
    )
    arguments = parser.parse_args()
    [(name, latency_ms)] = [
        (name, limit) for name in ("p50", "p95", "p99") if (limit := getattr(arguments, name))
    ]
    try:
        stages = json.loads(arguments.report.read_text("utf-8"))["stages"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        parser.error(f"{arguments.report} is no report of a load test: {error}")
    try:
        print(describe(stages, arguments.rate, f"{name}_ms", latency_ms, arguments.spare))
    except CapacityError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
