import json
import random

import pytest

from load_tests.tally import Cell, Latencies, Tally

CELL = Cell(0, 3, "caption", "answered")


def latencies(values: list[float]) -> Latencies:
    made = Latencies()
    for value in values:
        made.add(value)
    return made


def test_percentiles_are_right_to_a_per_cent() -> None:
    draw = random.Random(0)
    values = sorted(draw.lognormvariate(4, 1) for _ in range(10_001))
    counted = latencies(values)
    for percent in (1, 50, 95, 99, 99.9):
        exact = values[round(percent / 100 * 10_000)]
        assert counted.percentile(percent) == pytest.approx(exact, rel=0.01)
    assert counted.max_ms == values[-1] == counted.percentile(100)
    assert counted.mean_ms == pytest.approx(sum(values) / len(values))


def test_of_nothing_nothing_is_known() -> None:
    assert Latencies().percentile(50) is None
    assert Latencies().mean_ms is None
    assert not Latencies()


def test_a_latency_of_nothing_counts() -> None:
    assert len(latencies([0.0, 0.0])) == 2


def test_parts_add_up_to_the_whole_also_through_json() -> None:
    draw = random.Random(1)
    whole, merged = Tally(), Tally()
    for _ in range(3):
        part = Tally()
        for _ in range(50):
            milliseconds = draw.uniform(1, 1000)
            cell = CELL._replace(slot=draw.randrange(4))
            for tally in (whole, part):
                tally.add(cell, milliseconds)
                tally.completed[0, "caption"] += 1
                tally.errors["ServerError: broken"] += 1
                tally.lateness.add(milliseconds / 100)
                tally.cpu_seconds += 0.5
        merged.merge(Tally.from_table(json.loads(json.dumps(part.to_table()))))
    assert merged.completed == whole.completed
    assert merged.errors == whole.errors
    assert merged.cpu_seconds == whole.cpu_seconds
    assert merged.lateness.counts == whole.lateness.counts
    assert {cell: each.counts for cell, each in merged.latencies.items()} == {
        cell: each.counts for cell, each in whole.latencies.items()
    }
