"""The reference is asked now, in its own environment, and ours compared: `make parity`.

PARITY_SIZES says which sizes or single cases: `make parity PARITY_SIZES="tiny ofasys"`.
"""

import os
from pathlib import Path

import pytest

from tests.reference.cases import CASES
from tests.reference.parity_all import compare_now

SIZES = os.environ.get("PARITY_SIZES", "tiny small base bundled").split()

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("size", SIZES)
def test_answers_as_the_reference_does_now(
    size: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [name for name, case in CASES.items() if case.size == size] or [size]
    sizes = sorted({case.size for case in CASES.values()})
    assert names[0] in CASES, f"{size} is no case and none of the sizes {sizes}"
    with capfd.disabled():  # progress: a case takes from seconds to minutes
        compare_now(names, tmp_path)
