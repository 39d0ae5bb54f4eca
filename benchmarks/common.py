"""What all benchmarks and both sides of a comparison need; imports neither torch nor `ofa`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: For everything that a benchmark writes.
OUTPUT = ROOT / "build" / "benchmarks"

#: What a benchmark found out, as JSON holds it.
Result = Mapping[str, Any]


def progress(line: str) -> None:
    """Say what is going on, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


def write_result(folder: Path, name: str, result: Result, text: str) -> None:
    """Write `NAME.json` and what it says in Markdown, `NAME.md`, and print the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text + "\n")
    print(text)
    progress(f"wrote {folder / name}.json and .md")


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
