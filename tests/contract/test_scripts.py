import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLCHECK = ROOT / ".venv-ops" / "bin" / "shellcheck"


@pytest.mark.parametrize(
    "script", [ROOT / ".ci" / "run", *sorted(ROOT.glob("scripts/*.sh"))], ids=lambda path: path.name
)
def test_shellcheck_is_clean(script: Path) -> None:
    assert SHELLCHECK.is_file(), f"{SHELLCHECK} is missing: run `make ops-tools`"
    checked = subprocess.run([SHELLCHECK, script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
