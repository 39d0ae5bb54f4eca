"""From counts and readings to figures, the gate, and the report."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from load_tests.plan import Plan, Request, Slo, Stage
from load_tests.report import csv_rows, format_text, write_report
from load_tests.summary import Result, summarize
from load_tests.tally import Cell, Tally
from load_tests.triton_statistics import ModelStatistics, Reading

MS = 1_000_000
START = 1_000.0
STAGES = [Stage(10, rate=2), Stage(20, rate=1)]
REQUESTS = [Request(p95_ms=50), Request(pictures="bad")]


def reading(seconds: float, count: int) -> Reading:
    """A server that has answered some requests: 30 ms in the queue, 20 in the generator."""
    members = {
        "caption_preprocess": ModelStatistics(
            count, 0, count, 5 * MS * count, 0, 0, 5 * MS * count
        ),
        "caption_generator": ModelStatistics(
            count, 0, count // 2, 50 * MS * count, 30 * MS * count, 0, 20 * MS * count, 0
        ),
        "caption_postprocess": ModelStatistics(count, 0, count, MS * count, 0, 0, MS * count, 0),
    }
    whole = ModelStatistics(num_requests=count, total=60 * MS * count)
    return Reading(START + seconds, {"caption": whole, **members})


def outcome(
    answered: dict[int, int],
    refused: int = 0,
    overloaded: int = 0,
    failed: int = 0,
    num_lost: int = 0,
) -> dict[str, Any]:
    """What Locust counted: answers of 40 ms by stage, and what else came in the first one."""
    tally = Tally()
    for stage, count in answered.items():
        for _ in range(count):
            tally.add(Cell(stage, 10 * stage, "caption", "answered"), 40.0)
        tally.completed[stage, "caption"] += count
    for kind, count in (("overloaded", overloaded), ("failed", failed)):
        for _ in range(count):
            tally.add(Cell(0, 0, "caption", kind), 3.0)
            tally.errors[f"{kind}: <b>"] += 1
    for _ in range(refused):
        tally.add(Cell(0, 0, "caption, bad pictures", "refused"), 2.0)
        tally.completed[0, "caption, bad pictures"] += 1
    tally.cpu_seconds = 3.0
    tally.lateness.add(0.5)
    return {
        "started_at": START,
        "num_processes": 2,
        "num_lost": num_lost,
        "tally": tally.to_table(),
    }


def summary(seen: dict[str, Any], slo: Slo | None = None) -> Result:
    plan = Plan(STAGES, REQUESTS, slo or Slo())
    readings = [reading(-1, 0), reading(10.2, 20), reading(31, 40)]
    return summarize(plan, ["127.0.0.1:8001"], seen, readings)


def missed(result: Result) -> list[str]:
    return [check["what"] for check in result["checks"] if not check["is_met"]]


def test_a_part_has_its_requests_beside_tritons_times() -> None:
    result = summary(outcome({0: 20, 1: 18}, refused=5))
    assert not missed(result)
    whole, (first, second) = result["whole"], result["stages"]
    assert whole["total"]["sent"] == 43
    assert whole["rows"]["caption"]["answered"] == 38
    assert whole["rows"]["caption"]["p95_ms"] == pytest.approx(40, rel=0.01)
    assert whole["rows"]["caption, bad pictures"]["refused"] == 5
    assert first["total"]["per_second"] == 2.5
    assert second["total"]["per_second"] == 0.9
    for part in (whole, first, second):
        assert part["triton"]["caption"] == pytest.approx(
            {"total_ms": 60, "queue_ms": 30, "compute_ms": 26, "infer_ms": 20, "batch": 2}
        )
    assert result["generator"] == {
        "num_processes": 2,
        "cores": 0.1,
        "shares_machine": True,
        "late_p99_ms": pytest.approx(0.5, rel=0.01),
        "late_max_ms": 0.5,
    }
    assert json.loads(json.dumps(result)) == result


def test_a_server_that_says_nothing_of_itself_leaves_the_requests() -> None:
    plan = Plan(STAGES, REQUESTS)
    result = summarize(plan, ["far:8001"], outcome({0: 20}), [])
    assert result["whole"]["triton"] == {}
    assert not result["generator"]["shares_machine"]
    assert "caption" in format_text(result)


@pytest.mark.parametrize(
    ("seen", "slo", "expected"),
    [
        (outcome({0: 10}), Slo(), []),
        (outcome({0: 9}, failed=1), Slo(), ["share of errors"]),
        (outcome({0: 9}, failed=1), Slo(max_error_ratio=0.1), []),
        (outcome({0: 9}, overloaded=1), Slo(), ["share of overload refusals"]),
        (outcome({0: 9}, overloaded=1), Slo(max_overload_ratio=0.1), []),
        (outcome({0: 9}, overloaded=1), Slo(0, 0.09), ["share of overload refusals"]),
        # 10 answers in 30 seconds.
        (outcome({0: 10}), Slo(min_per_second=0.33), []),
        (outcome({0: 10}), Slo(min_per_second=0.34), ["answers a second"]),
        (outcome({0: 10}, num_lost=1), Slo(), ["workers lost, and their share of the load"]),
        (outcome({}), Slo(), ["answers and expected refusals", "caption: p95, ms"]),
        # Of what was never answered it is not known that it was fast.
        (outcome({}, refused=3), Slo(), ["caption: p95, ms"]),
    ],
)  # fmt: skip
def test_the_gate(seen: dict[str, Any], slo: Slo, expected: list[str]) -> None:
    assert missed(summary(seen, slo)) == expected


@pytest.mark.parametrize("percentile", ["p50_ms", "p95_ms", "p99_ms"])
def test_the_gate_has_limits_for_each_kind_of_request(percentile: str) -> None:
    for limit, is_met in ((41, True), (39, False)):
        plan = Plan(STAGES, [Request(**{percentile: limit})])
        [check] = [
            check
            for check in summarize(plan, ["a:1"], outcome({0: 10}), [])["checks"]
            if check["what"].startswith("caption: ")
        ]
        assert check["is_met"] == is_met


def test_the_report_says_the_same_in_every_form(tmp_path: Path) -> None:
    result = summary(outcome({0: 20, 1: 18}, refused=5, overloaded=1, failed=1))
    write_report(result, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == result

    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [(row["part"], row["request"]) for row in rows] == [
        (part, name)
        for part in ("whole", "stage 1", "stage 2")
        for name in ("caption", "caption, bad pictures")
    ]
    assert (rows[0]["sent"], rows[0]["overloaded"], rows[0]["failed"]) == ("40", "1", "1")
    assert (rows[0]["triton_queue_ms"], rows[0]["triton_compute_ms"]) == ("30", "26")

    page = (tmp_path / "report.html").read_text()
    assert "failed</span>" in page
    assert "failed: &lt;b&gt;" in page
    assert "://" not in page, "the page needs nothing from elsewhere"

    text = format_text(result)
    assert "MISSED   share of errors" in text
    assert "0.10 cores in 2 processes" in text
    assert "open loop, poisson arrivals: 2 stages, 30 s, at 127.0.0.1:8001" in text


def test_a_table_has_a_cell_for_each_column() -> None:
    header, *rows = csv_rows(summary(outcome({0: 3})))
    assert rows
    assert {len(row) for row in rows} == {len(header)}
