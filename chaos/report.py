"""Writes what scenarios have measured into docs/reliability.md.

    .venv/bin/python -m chaos.report    again, from `measured.json`

`measured.json` holds what was found last, by scenario. The text between a scenario's markers is a
function of it and of nothing else; a test renders it again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, format_table
from benchmarks.machine import Machine
from benchmarks.sections import replace_section
from chaos.figures import Figure

RECORD = Path(__file__).with_name("measured.json")
PAGE = ROOT / "docs" / "reliability.md"

#: What is known of one run of a scenario, as JSON holds it.
Entry = Mapping[str, Any]


def make_entry(machine: Machine, commit: str, minutes: float, figures: Sequence[Figure]) -> Entry:
    """What is recorded of a run."""
    return {
        "machine": asdict(machine),
        "commit": commit,
        "minutes": round(minutes, 1),
        "figures": [asdict(figure) for figure in figures],
    }


def publish(record: Mapping[str, Entry]) -> None:
    """Write the record, and the page's sections that follow from it."""
    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")
    page = PAGE.read_text("utf-8")
    for name, entry in record.items():
        page = replace_section(page, command(name), render(entry))
    PAGE.write_text(page, "utf-8")


def command(name: str) -> str:
    """What measures a scenario and writes its section."""
    return f"python -m chaos {name}"


def render(entry: Entry) -> str:
    """A scenario's section: where and when it was measured, and its figures."""
    commit = f"; commit {entry['commit']}" if entry["commit"] else ""
    where = f"{Machine(**entry['machine'])}{commit}; {entry['minutes']:g} minutes."
    figures = [Figure(**figure) for figure in entry["figures"]]
    return f"{where}\n\n{figure_table(figures)}"


def figure_table(figures: Sequence[Figure]) -> str:
    """A row for each figure, in Markdown; the last column only where something is to be said."""
    header = ["what", "measured", "bound", "seen with it"]
    rows = [
        [
            figure.what,
            f"{format_value(figure.value)} {figure.unit}".rstrip(),
            f"{figure.bound}{'' if figure.within else ': **not kept**'}",
            figure.note.replace("|", "\\|"),
        ]
        for figure in figures
    ]
    if not any(figure.note for figure in figures):
        header, rows = header[:3], [row[:3] for row in rows]
    return format_table(header, rows)


def format_value(value: float) -> str:
    """Three digits that count of a measure, all of a count."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    """Writes the page again."""
    publish(json.loads(RECORD.read_text()))


if __name__ == "__main__":
    main()
