"""Prometheus' rules and the dashboard: what promtool says, and a run-book line for each alert."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = ROOT / "kubernetes" / "ofa-triton" / "files"
RULES = FILES / "rules.yaml"
UNIT_TESTS = Path(__file__).parent / "rules_test.yaml"
PAGE = ROOT / "docs" / "observability.md"

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text("utf-8"))


def promtool(*arguments: str | Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    completed = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def test_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)


def test_alerts_fire_when_they_should_and_are_silent_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_firing_and_silent(name: str) -> None:
    checks = [
        check
        for test in yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]
        for check in test["promql_expr_test"]
    ]
    fired = [sample["labels"] for check in checks for sample in check["exp_samples"]]
    assert [labels for labels in fired if f'alertname="{name}"' in labels]
    assert {"expr": "ALERTS", "eval_time": "59m", "exp_samples": []} in checks


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_to_do_first(name: str) -> None:
    annotations = ALERTS[name]["annotations"]
    assert annotations["summary"].endswith(".")
    assert annotations["runbook"].endswith(f"docs/observability.md, {name}.")
    assert f"### {name}\n" in PAGE.read_text("utf-8")
    assert ALERTS[name]["labels"]["severity"] in ("info", "warning", "critical")


def test_the_run_book_is_about_alerts_that_exist() -> None:
    assert set(re.findall(r"^### (Ofa\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)) == set(ALERTS)


def test_the_page_has_every_recorded_figure() -> None:
    page = PAGE.read_text("utf-8")
    recorded = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    assert not {name for name in recorded if f"`{name}`" not in page}


def test_panels_have_an_id_a_place_and_a_query_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert not cells & taken
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]
        assert place["x"] + place["w"] <= 24


def test_the_dashboards_variables_are_defined() -> None:
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used == defined
