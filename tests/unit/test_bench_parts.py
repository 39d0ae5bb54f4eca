"""`python -m benchmarks` with benchmarks that only write what they were asked for."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as parts

PUBLISHED = {"labels-tiny": {"is": "kept"}, "serving-old": {"is": "gone"}}

Run = Callable[..., dict[str, Any] | None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns what was published, None for nothing."""
    record = tmp_path / "measured.json"
    record.write_text(json.dumps(PUBLISHED))
    published: list[dict[str, Any]] = []

    def benchmark(command: list[str], **_: object) -> None:
        folder = Path(command[command.index("--results") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        module = command[2].removeprefix("benchmarks.")
        number = len(list(folder.iterdir()))
        (folder / f"{module}-{number}.json").write_text(json.dumps(command[3:-2]))

    monkeypatch.setattr(parts, "OUTPUT", tmp_path)
    monkeypatch.setattr(parts, "RECORD", record)
    monkeypatch.setattr(parts, "publish", published.append)
    monkeypatch.setattr(subprocess, "run", benchmark)

    def run(*arguments: str) -> dict[str, Any] | None:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        parts.main()
        return published[0] if published else None

    return run


def test_a_part_replaces_its_own_results_and_no_others(run: Run) -> None:
    runs = {f"serving-{number}": each[1:] for number, each in enumerate(parts.PARTS["serving"])}
    assert len(runs) > 1
    assert run("serving") == {"labels-tiny": {"is": "kept"}, **runs}


def test_results_of_an_earlier_run_are_not_published(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "published" / "serving"
    folder.mkdir(parents=True)
    (folder / "serving-earlier.json").write_text("{}")
    published = run("serving")
    assert published is not None
    own = {f"serving-{number}" for number in range(len(parts.PARTS["serving"]))}
    assert set(published) == {"labels-tiny", *own}


def test_all_parts_but_a_gpus_are_run(run: Run) -> None:
    published = run()
    assert published is not None
    assert {name.partition("-")[0] for name in published} == set(parts.PARTS) - {"gpu"}


def test_a_quick_run_publishes_nothing(run: Run) -> None:
    assert run("--quick") is None


def test_an_unknown_part_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("server")
    assert "there is no part 'server'" in capsys.readouterr().err
