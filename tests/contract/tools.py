"""The programs of .venv-ops, which judge files of docker/ and kubernetes/."""

import os
import subprocess
from pathlib import Path

TOOLS = Path(__file__).parents[2] / ".venv-ops" / "bin"


def run(tool: str, *arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    program = TOOLS / tool
    assert program.is_file(), f"{program} is missing: run `make ops-tools`"
    return subprocess.run(
        [program, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": "/nonexistent"},
    )
