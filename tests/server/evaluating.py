"""`ofa evaluate` as a user runs it, on annotations that a test writes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.server.processes import OFA


def evaluate(task: str, images: Path, annotations: Path, server: str) -> list[str]:
    """The lines of its standard output."""
    files: list[str | Path] = ["--images", images, "--annotations", annotations]
    command = [OFA, "evaluate", "--task", task, *files, "--server", server]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    return finished.stdout.splitlines()


def write_truth(path: Path, examples: Iterable[Mapping[str, Any]]) -> Path:
    """JSON Lines."""
    path.write_text("".join(json.dumps(example) + "\n" for example in examples), "utf-8")
    return path
