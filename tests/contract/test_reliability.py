"""docs/reliability.md has what the scenarios found, and every scenario its section."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from benchmarks.sections import begin, replace_section
from chaos.__main__ import LONG, SCENARIOS
from chaos.report import PAGE, RECORD, command, render

CHAOS = Path(__file__).parents[2] / "chaos"


def test_the_page_has_what_the_record_says() -> None:
    page, record = PAGE.read_text("utf-8"), json.loads(RECORD.read_text())
    assert set(record) == set(SCENARIOS)
    for name, entry in record.items():
        assert replace_section(page, command(name), render(entry)) == page


def test_the_page_has_a_section_for_every_scenario() -> None:
    markers = re.findall(r"`python -m chaos (\w+)` writes", PAGE.read_text("utf-8"))
    assert markers == list(dict.fromkeys(markers))
    assert set(markers) == set(SCENARIOS)
    assert set(LONG) < set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_asks_a_question_and_is_run_like_the_others(name: str) -> None:
    scenario = importlib.import_module(f"chaos.{name}")
    assert scenario.__doc__.splitlines()[0].endswith("?")
    assert list(inspect.signature(scenario.run).parameters) == ["repository", "quick"]


def test_every_file_with_a_run_is_a_scenario() -> None:
    files = {
        file.stem
        for file in CHAOS.glob("*.py")
        if "\ndef run(repository: Path, quick: bool)" in file.read_text()
    }
    assert files == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_markers_name_the_command_that_exists(name: str) -> None:
    assert begin(command(name)) in PAGE.read_text("utf-8")
