"""What both sides of a comparison need; imports neither torch nor our library."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: For everything that a benchmark writes.
OUTPUT = ROOT / "build" / "benchmarks"


def progress(line: str) -> None:
    """Say what is going on, apart from the tables."""
    print(line, file=sys.stderr, flush=True)
