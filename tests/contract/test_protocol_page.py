"""docs/protocol.md names every task and every tensor that a client sends or gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ofa.clip_tokenizer import CONTEXT_LENGTH
from ofa.image import MAX_IMAGE_BYTES, MAX_IMAGE_SIDE, MAX_JPEG_SCANS
from ofa.options import COUNT_OPTION, OPTION_DTYPES
from ofa.tasks import TASKS, Task
from ofa.tasks.task import MAX_TEXT_BYTES
from tests.unit import tiny

MODEL_REPOSITORY = Path(__file__).parents[2] / "model_repository"
PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_task_has_a_row_and_a_section() -> None:
    tasks = {task.ensemble: name for name, task in TASKS.items()}
    assert SECTIONS.keys() == tasks.keys()
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\) \| (?:`([\w-]+)`|none)", PAGE, re.MULTILINE)
    assert {anchor: (name, task or "generate") for name, anchor, task in rows} == {
        ensemble: (ensemble, name) for ensemble, name in tasks.items()
    }


def named(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.ensemble)
def test_a_section_names_what_a_request_and_an_answer_hold(task: type[Task]) -> None:
    section = named(SECTIONS[task.ensemble])
    for search in {task.search("generation"), task.search("traverse")}:
        tensors = task.tensors_for(tiny.make_settings(task, search=search))
        assert {spec.name for spec in tensors.request} <= section | set(OPTION_DTYPES)
        assert {spec.name for spec in tensors.answer} <= section


def test_the_options_of_beam_search_are_described() -> None:
    options = PAGE[PAGE.index("### Options") : PAGE.index("## Outputs")]
    rows = re.findall(r"^\| `(\w+)` \|", options, re.MULTILINE)
    assert rows == [name for name in OPTION_DTYPES if name != COUNT_OPTION]


def test_the_limits_are_the_library_s() -> None:
    for limit in (MAX_IMAGE_BYTES, MAX_IMAGE_SIDE, MAX_TEXT_BYTES):
        assert f"{limit:,}" in PAGE
    assert f"{MAX_JPEG_SCANS} scans in a JPEG" in PAGE
    assert f"more than {CONTEXT_LENGTH - 2} of its tokens is refused" in PAGE


def test_the_queue_is_that_of_the_configurations() -> None:
    config = (MODEL_REPOSITORY / "preprocess" / "config.pbtxt").read_text("utf-8")
    [size] = set(re.findall(r"max_queue_size: (\d+)", config))
    [microseconds] = set(re.findall(r"default_timeout_microseconds: (\d+)", config))
    assert f"{size} requests wait already" in PAGE
    assert f"or {int(microseconds) // 1_000_000} s |" in PAGE
