"""A summary for people and for tables: text, `report.html`, `report.csv` and `report.json`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.report_page import describe_generator, make_page
from load_tests.summary import Result
from load_tests.triton_statistics import ModelStatistics, Share
from load_tests.triton_statistics import format_table as format_statistics

#: Of a row of a summary, in the order of the columns.
COUNTS = ("sent", "answered", "refused", "overloaded", "failed")
RATES = ("per_second", "p50_ms", "p95_ms", "p99_ms", "mean_ms", "max_ms")


def write_report(result: Result, folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (folder / "report.html").write_text(make_page(result), "utf-8")
    with (folder / "report.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(csv_rows(result))
    print(f"\nwrote report.html, report.csv and report.json to {folder}")


def csv_rows(result: Result) -> Iterator[Sequence[Any]]:
    """A header and a line for each kind of request, of the whole run and of each of its stages."""
    triton = [f"triton_{name}" for name in Share._fields]
    yield ("part", "users", "rate", "seconds", "request", *COUNTS, *RATES, *triton)
    models = {request["name"]: request["model"] for request in result["plan"]["requests"]}
    parts = [("whole", result["whole"])]
    parts += [(f"stage {number}", part) for number, part in enumerate(result["stages"], 1)]
    for name, part in parts:
        load = (part.get("users", ""), part.get("rate", ""), part["seconds"])
        for request, row in part["rows"].items():
            share = part["triton"].get(models[request], {})
            figures = (row[column] for column in (*COUNTS, *RATES))
            shares = (share.get(field) for field in Share._fields)
            yield (name, *load, request, *map(_plain, (*figures, *shares)))


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def format_text(result: Result) -> str:
    """The summary for a terminal."""
    parts = [describe_load(result)]
    parts.append(_table("request", result["whole"]["rows"]))
    if len(result["stages"]) > 1:
        stages = {
            f"{number}: {describe_stage(stage)}": stage["total"]
            for number, stage in enumerate(result["stages"], 1)
        }
        parts.append(_table("stage", stages))
    if result["errors"]:
        lines = [f"{count:>7}  {message}" for message, count in result["errors"].items()]
        parts.append("\n".join(["Errors:", *lines]))
    models = {name: ModelStatistics(**model) for name, model in result["triton"].items()}
    parts.append("Triton's own means, in milliseconds a request:\n\n" + format_statistics(models))
    parts.append(describe_generator(result["generator"]))
    parts.append("\n".join(map(describe_check, result["checks"])))
    return "\n\n".join(parts)


def describe_load(result: Result) -> str:
    """One line: what kind of load, how long, and against whom."""
    stages = result["stages"]
    kind = f"open loop, {result['plan']['arrivals']} arrivals" if is_open(result) else "closed loop"
    what = describe_stage(stages[0]) if len(stages) == 1 else f"{len(stages)} stages"
    servers = ", ".join(result["servers"])
    return f"{kind}: {what}, {result['whole']['seconds']} s, at {servers}, from {result['machine']}"


def is_open(result: Result) -> bool:
    """Whether requests arrived at a rate."""
    return any(stage["rate"] for stage in result["stages"])


def describe_stage(stage: Mapping[str, Any]) -> str:
    """Users or rate."""
    if stage["rate"]:
        return f"{stage['rate']:g} requests/s"
    return "1 user" if stage["users"] == 1 else f"{stage['users']} users"


def describe_check(check: Mapping[str, Any]) -> str:
    """One line."""
    value = "nothing" if check["value"] is None else f"{check['value']:.4g}"
    verdict = "reached" if check["is_met"] else "MISSED "
    return f"{verdict}  {check['what']}: {value} ({check['limit']})"


def _table(heading: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    width = max(map(len, (heading, *rows)))
    columns = (*COUNTS, "answers/s", "p50, ms", "p95, ms", "p99, ms", "mean, ms", "max, ms")
    lines = [f"{heading:{width}}" + "".join(f"{column:>12}" for column in columns)]
    for name, row in rows.items():
        cells = [str(row[column]) for column in COUNTS]
        cells += ["-" if row[rate] is None else f"{row[rate]:.1f}" for rate in RATES]
        lines.append(f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)
