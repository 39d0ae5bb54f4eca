"""The published figures come out of `make bench`, and say what they are about."""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import PARTS, QUICK
from benchmarks.limits import ARITHMETIC
from benchmarks.machine import DTYPES
from benchmarks.plots import draw_loads, draw_stages
from benchmarks.report import COMMAND, RECORD, generators, render, select
from benchmarks.sections import END, begin, replace_section
from ofa.lowering import PRECISIONS

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/precision.md")
BEGIN = begin(COMMAND)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(RECORD.read_text())
    return loaded


def section_of(page: str) -> str:
    text = (ROOT / page).read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def tables(section: str) -> list[list[list[str]]]:
    """The cells of each table, header first, without the rule below it."""
    found: list[list[list[str]]] = [[]]
    for line in section.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[table[0], *table[2:]] for table in found if table]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_what_the_record_says(page: str, record: dict[str, Any]) -> None:
    assert section_of(page) == render(record)[page]


def test_the_text_is_a_function_of_the_record(record: dict[str, Any]) -> None:
    again = json.loads(json.dumps(record))
    assert render(again) == render(record)
    # Also of nothing but its content.
    assert render(dict(reversed(again.items()))) == render(record)


def test_another_figure_gives_another_text(record: dict[str, Any]) -> None:
    other = json.loads(json.dumps(record))
    generators(other, "cpu")[0]["ours"]["whole"] *= 2
    assert all(render(other)[page] != render(record)[page] for page in PAGES)


def test_readme_has_what_a_gpu_did(record: dict[str, Any]) -> None:
    result = json.loads(json.dumps(generators(record, "cpu")[-1]))
    result |= {"device": "cuda", "reference": {}, "commit": "", "batch_size": 32}
    result["machine"]["gpu"] = "Some GPU"
    section = render({**record, "gpu-large-float16-batch-32": result})["README.md"]
    assert "Some GPU" in section
    assert len(tables(section)) == 1 + len(tables(render(record)["README.md"]))
    row = tables(section)[1][1]
    assert row[2] == "32"
    assert float(row[3]) * float(row[4]) == pytest.approx(1000, rel=0.5)


def test_readme_has_a_row_for_each_size(record: dict[str, Any]) -> None:
    generator, labels, serving = tables(section_of("README.md"))
    assert [row[0] for row in generator[1:]] == [each["name"] for each in generators(record, "cpu")]
    assert {"tiny", "base", "large"} <= {row[0] for row in generator}
    assert len(labels) == 1 + 5
    assert {row[0] for row in serving[1:]} == {"bundled", "tiny", "large"}
    assert {row[1] for row in serving[1:] if row[0] == "bundled"} == {"1", "4", "16"}
    for table in (generator, labels, serving):
        assert {len(row) for row in table} == {len(table[0])}


def test_the_readme_claims_no_more_than_was_measured(record: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    claim = r"(\d+) times ModelScope's speed for the large size in float32, (\d+) in bfloat16"
    [stated] = re.findall(claim, readme)
    for precision, times in zip(("float32", "bfloat16"), stated, strict=True):
        result = record[f"generator-large-{precision}"]
        ratio = result["reference"]["whole"] / result["ours"]["whole"]
        assert int(times) <= ratio < int(times) + 3


@pytest.mark.parametrize(("part", "device"), [("generator", "cpu"), ("gpu", "cuda")])
def test_every_precision_is_measured(part: str, device: str) -> None:
    words = {word for run in PARTS[part] for word in run}
    assert words & {*PRECISIONS["cpu"], *PRECISIONS["cuda"]} == set(PRECISIONS[device])


@pytest.mark.parametrize("device", PRECISIONS)
def test_every_precision_has_a_limit(device: str) -> None:
    assert set(ARITHMETIC[device]) == set(PRECISIONS[device])
    assert set(chain(*ARITHMETIC[device].values())) <= set(DTYPES)


def test_every_run_is_of_a_module() -> None:
    for module, *_ in chain(*PARTS.values(), *QUICK.values()):
        assert (ROOT / "benchmarks" / f"{module}.py").is_file()


@pytest.mark.parametrize("page", ["no markers", BEGIN, f"{BEGIN}{END}" * 2, begin("other") + END])
def test_a_page_without_one_pair_of_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="one pair of markers"):
        replace_section(page, COMMAND, "text")


def test_only_what_is_between_the_markers_is_replaced() -> None:
    other = f"before\n{begin('other')}\nkept\n{END}\n"
    page = replace_section(f"{other}{BEGIN}\nold\n{END}\nafter\n", COMMAND, r"new \1")
    assert page == f"{other}{BEGIN}\n\nnew \\1\n\n{END}\nafter\n"


def test_the_plots_are_a_function_of_the_record(record: dict[str, Any], tmp_path: Path) -> None:
    for number in "12":
        draw_stages(generators(record, "cpu"), tmp_path / f"stages{number}.svg")
        draw_loads(select(record, "serving"), tmp_path / f"loads{number}.svg")
    for plot in ("stages", "loads"):
        first, second = (tmp_path / f"{plot}{number}.svg" for number in "12")
        assert first.read_bytes() == second.read_bytes()
