import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sections import replace_section
from load_tests import capacity_page
from load_tests.capacity import (
    BatchCost,
    CapacityError,
    Point,
    describe,
    num_replicas,
    rate_of_replica,
    read_batch_cost,
    read_points,
)

CAPACITY = Path(__file__).parents[2] / "load_tests" / "capacity.py"


def stage(
    rate: float,
    p95_ms: float | None,
    per_second: float | None = None,
    batch: float = 1.0,
    **more: int,
) -> dict[str, Any]:
    """Of 10 seconds; a batch takes 10 ms and 5 ms a row, everything else 3 ms."""
    infer_ms = 10 + 5 * batch
    total = {
        "sent": round(10 * rate),
        "per_second": rate if per_second is None else per_second,
        "p95_ms": p95_ms,
        "failed": 0,
        "overloaded": 0,
        **more,
    }
    share = {"batch": batch, "infer_ms": infer_ms, "compute_ms": infer_ms + 3}
    return {"seconds": 10, "rate": rate, "users": 0, "total": total, "triton": {"caption": share}}


CURVE = [
    stage(10, 20.0, batch=1),
    stage(50, 40.0, batch=2),
    stage(100, 100.0, batch=4),
    stage(140, 2000.0, per_second=110, batch=8),
]


def test_points_are_what_was_sent_and_whether_it_was_kept_up_with() -> None:
    points = read_points(reversed_curve := CURVE[::-1], "p95_ms")
    assert reversed_curve
    assert [point.rate for point in points] == [10, 50, 100, 140]
    assert [point.is_sustained for point in points] == [True, True, True, False]
    [refusing] = read_points([stage(10, 20.0, overloaded=1)], "p95_ms")
    assert not refusing.is_sustained
    # One or two answers may always come a little late; a tenth is a queue.
    for sent, answered, is_sustained in (
        (4, 2, True),
        (4, 1, False),
        (100, 90, True),
        (100, 89, False),
    ):
        [point] = read_points([stage(sent / 10, 20.0, per_second=answered / 10)], "p95_ms")
        assert point.is_sustained == is_sustained
    [silent] = read_points([stage(10, None, per_second=0)], "p95_ms")
    assert silent.latency_ms == math.inf


@pytest.mark.parametrize(
    ("latency_ms", "rate"),
    [
        (20, 10),
        (40, 50),
        # Between two points: on the line.
        (70, 75),
        (100, 100),
        # Beyond the last point that was kept up with nothing is promised.
        (1000, 100),
        (10_000, 100),
    ],
)
def test_the_rate_of_a_replica_is_read_off_its_curve(latency_ms: float, rate: float) -> None:
    assert rate_of_replica(read_points(CURVE, "p95_ms"), latency_ms) == pytest.approx(rate)


def test_a_rate_that_was_met_by_luck_beyond_a_miss_does_not_count() -> None:
    points = [Point(10, 20, True), Point(20, 80, True), Point(30, 40, True)]
    assert rate_of_replica(points, 50) == pytest.approx(15)


def test_more_replicas_do_not_make_a_request_faster() -> None:
    with pytest.raises(CapacityError, match="misses 15 ms or does not keep up at 10 requests/s"):
        rate_of_replica(read_points(CURVE, "p95_ms"), 15)


@pytest.mark.parametrize(
    ("rate", "spare", "count"), [(100, 0, 1), (101, 0, 2), (250, 0, 3), (250, 1, 4), (1, 2, 3)]
)
def test_replicas_are_enough_also_when_some_are_lost(rate: float, spare: int, count: int) -> None:
    assert num_replicas(rate, 100, spare) == count
    assert (count - spare) * 100 >= rate


def test_the_cost_of_a_batch_is_found_again() -> None:
    cost = read_batch_cost(CURVE)
    assert cost is not None
    assert (cost.fixed_ms, cost.row_ms, cost.other_ms, cost.largest) == pytest.approx((10, 5, 3, 8))
    assert read_batch_cost([CURVE[0], CURVE[0]]) is None


def test_batches_that_were_quicker_the_larger_cost_nothing_that_is_known() -> None:
    slow_when_small = copy.deepcopy(CURVE)
    for stage in slow_when_small:
        for share in stage["triton"].values():
            share["infer_ms"] = 100 / share["batch"]
    assert read_batch_cost(slow_when_small) is None


def test_a_batch_size_keeps_up_and_is_in_time() -> None:
    cost = BatchCost(fixed_ms=10, row_ms=5, other_ms=3, largest=8)
    # The definition of each bound, and that it is the last to fulfil it.
    for rate in (20, 60, 100, 150, 190):
        rows = cost.smallest(rate)
        assert rows is not None
        assert rows / cost.milliseconds(rows) * 1000 >= rate
        assert rows == 1 or (rows - 1) / cost.milliseconds(rows - 1) * 1000 < rate
    assert cost.smallest(200) is None
    for latency_ms in (40, 50, 103, 500):
        rows = cost.most(latency_ms)
        assert 2 * cost.milliseconds(rows) + cost.other_ms <= latency_ms
        assert 2 * cost.milliseconds(rows + 1) + cost.other_ms > latency_ms
    assert cost.most(20) == 0


def test_the_calculation_in_words() -> None:
    text = describe(CURVE, 250, "p95_ms", 100, spare=1)
    assert "One replica answers 100 requests/s with a p95 of 100 ms." in text
    assert "250 requests/s need 3 of them; with 1 to be lost: 4." in text
    assert "max_batch_size: from 2 (to keep up) to 7 (to wait for one and be in one)." in text


def run_capacity(report: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CAPACITY, report, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"stages": CURVE}))
    finished = run_capacity(report, "--rate", "250", "--p95", "100", "--spare", "0")
    assert finished.returncode == 0, finished.stderr
    assert "with 0 to be lost: 3." in finished.stdout
    impossible = run_capacity(report, "--rate", "250", "--p95", "5")
    assert (impossible.returncode, impossible.stdout) == (1, "")
    assert impossible.stderr.startswith("one replica misses 5 ms")
    report.write_text("[]")
    assert run_capacity(report, "--rate", "1", "--p95", "5").returncode == 2


def test_the_page_has_what_the_record_says() -> None:
    record = json.loads(capacity_page.RECORD.read_text("utf-8"))
    page = capacity_page.PAGE.read_text("utf-8")
    assert replace_section(page, capacity_page.COMMAND, capacity_page.render(record)) == page
    assert set(record) == {"curves", "replicas", "perf_analyzer"}


def test_another_figure_gives_another_page() -> None:
    record = json.loads(capacity_page.RECORD.read_text("utf-8"))
    before = capacity_page.render(record)
    record["perf_analyzer"]["ours"]["per_second"] *= 2
    assert capacity_page.render(record) != before
