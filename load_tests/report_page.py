"""A summary as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

#: Of a chart, in pixels.
_WIDTH, _HEIGHT, _MARGIN = 860, 200, 48

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.missed { color: #b00020; font-weight: bold; }
.reached { color: #1b6e2d; }
svg text { font-size: 11px; fill: #555; }
"""

_LATENCIES = (
    "Latencies as a caller sees them, in milliseconds (in an open loop from the moment at which a "
    "request was due), beside the server's own means for the same model."
)


def make_page(result: Mapping[str, Any]) -> str:
    """The whole page."""
    is_met = all(check["is_met"] for check in result["checks"])
    verdict = ("reached", "passed") if is_met else ("missed", "failed")
    began = datetime.fromtimestamp(result["started_at"], UTC)
    setting = (
        f"{began:%Y-%m-%d %H:%M:%S} UTC, {result['whole']['seconds']} s, against "
        f"{', '.join(result['servers'])}, from {result['machine']}."
    )
    body = [
        f'<h1>Load test: <span class="{verdict[0]}">{verdict[1]}</span></h1>',
        f"<p>{escape(setting)} {escape(describe_generator(result['generator']))}</p>",
        "<h2>What was to be reached</h2>",
        _checks(result["checks"]),
        "<h2>Requests</h2>",
        f"<p>{_LATENCIES}</p>",
        _requests(result),
        "<h2>Stages</h2>",
        _stages(result["stages"]),
        "<h2>Course</h2>",
        *_charts(result["course"]),
        "<h2>Models</h2>",
        _models(result["triton"]),
        "<h2>Errors</h2>",
        _table(("error", "requests"), result["errors"].items()) if result["errors"] else "None.",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Load test</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def describe_generator(generator: Mapping[str, Any]) -> str:
    """What making the load cost, and whether it kept up."""
    shares = ", on the server's machine" if generator["shares_machine"] else ""
    count = generator["num_processes"]
    processes = "1 process" if count == 1 else f"{count} processes"
    late, latest = generator["late_p99_ms"] or 0.0, generator["late_max_ms"]
    return (
        f"The load itself took {generator['cores']:.2f} cores in {processes}{shares}; requests "
        f"left at most {latest:.1f} ms late (p99 {late:.1f} ms)."
    )


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for check in checks:
        name = "reached" if check["is_met"] else "missed"
        value = (check["what"], _number(check["value"]), check["limit"])
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in value)
        rows.append(f'<tr>{cells}<td class="{name}">{name}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _requests(result: Mapping[str, Any]) -> str:
    header = (
        *("request", "sent", "answered", "refused as they should", "overloaded", "failed"),
        *("answers/s", "p50", "p95", "p99", "Triton: queue", "compute", "batch"),
    )
    models = {request["name"]: request["model"] for request in result["plan"]["requests"]}
    columns = (
        *("sent", "answered", "refused", "overloaded", "failed"),
        *("per_second", "p50_ms", "p95_ms", "p99_ms"),
    )
    rows = []
    for name, row in result["whole"]["rows"].items():
        share = result["whole"]["triton"].get(models[name], {})
        server = (share.get(key) for key in ("queue_ms", "compute_ms", "batch"))
        rows.append((name, *(row[column] for column in columns), *server))
    return _table(header, rows)


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    header = (
        *("stage", "users", "requests/s due", "s", "sent", "overloaded", "failed", "answers/s"),
        *("p50", "p95", "p99", "Triton: queue", "compute", "batch"),
    )
    rows = []
    for number, stage in enumerate(stages, 1):
        load = (stage["users"] or "", stage["rate"] or "", stage["seconds"])
        columns = ("sent", "overloaded", "failed", "per_second", "p50_ms", "p95_ms", "p99_ms")
        # The model that waits longest stands for all of them.
        share: Mapping[str, float] = max(
            stage["triton"].values(), key=lambda each: each["queue_ms"], default={}
        )
        server = (share.get(key) for key in ("queue_ms", "compute_ms", "batch"))
        rows.append((number, *load, *(stage["total"][column] for column in columns), *server))
    return _table(header, rows)


def _models(models: Mapping[str, Mapping[str, Any]]) -> str:
    header = ("model", "requests", "failures", "executions", "total, ms", "queue, ms", "infer, ms")
    rows = []
    for name, model in models.items():
        counts = (model["num_requests"], model["num_failures"], model["num_executions"])
        requests = 1e6 * max(model["num_requests"], 1)
        times = (model[key] / requests for key in ("total", "queue", "compute_infer"))
        rows.append((name, *counts, *times))
    return _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = ("".join(f"<td>{escape(_number(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _number(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _charts(course: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield _chart(
        "milliseconds",
        course,
        {"p95_ms": "p95", "p50_ms": "p50", "queue_ms": "in Triton's queues (mean)"},
    )
    yield _chart(
        "requests a second",
        course,
        {"sent_per_second": "due", "bad_per_second": "overloaded or failed"},
    )


def _chart(unit: str, course: Sequence[Mapping[str, Any]], lines: Mapping[str, str]) -> str:
    colours = ("#b3541e", "#2b6cb0", "#777")
    values = [each[key] for each in course for key in lines if each[key] is not None]
    top, end = (
        max(values, default=0) or 1,
        max((each["seconds"] for each in course), default=0) or 1,
    )

    def place(seconds: float, value: float) -> str:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * seconds / end
        return f"{x:.1f},{_HEIGHT - _MARGIN / 2 - (_HEIGHT - _MARGIN) * value / top:.1f}"

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 16}" role="img" aria-label="{unit} by time">',
        f'<text x="0" y="12">{unit}</text>',
        f'<text x="0" y="{_MARGIN / 2 + 12}">{top:.4g}</text>',
        f'<text x="0" y="{_HEIGHT - _MARGIN / 2}">0</text>',
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT}">{end:.4g} s</text>',
        f'<path d="M{place(0, 0)} L{place(end, 0)}" stroke="#bbb"/>',
    ]
    for number, ((key, name), colour) in enumerate(zip(lines.items(), colours, strict=False)):
        points = [place(each["seconds"], each[key]) for each in course if each[key] is not None]
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
            f'stroke-width="1.5"/><text x="{_MARGIN + 180 * number}" y="{_HEIGHT + 12}" '
            f'style="fill:{colour}">{escape(name)}</text>'
        )
    return "".join((*parts, "</svg>"))
