"""Every claim of docs/security.md has its test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
CLAIMS = PAGE.partition("## What is checked where")[2].partition("\n## ")[0]
ROWS = [line.split(" | ") for line in CLAIMS.splitlines() if line.startswith("| ")][1:]


def test_every_claim_names_a_test_that_is_there() -> None:
    assert len(ROWS) > 10
    for claim, _, tests in ROWS:
        names = re.findall(r"`(tests/[\w/]+\.py)?::(test_\w+)`", tests)
        assert names, claim
        file = ""
        for path, name in names:
            file = path or file
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), (file, name)


def test_every_port_of_the_server_has_its_row() -> None:
    ports = set(re.findall(r"^\| (\d{4}), ", PAGE, re.MULTILINE))
    assert ports == {"8000", "8001", "8002", "8003", "8080", "8443"}
