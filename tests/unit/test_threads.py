"""Threads of the models: as many as there is time for, and what a user sets stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ofa_server import threads
from ofa_server.threads import thread_variables, usable_cores


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7})


def limit(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "cpu.max").write_text(text)
    monkeypatch.setattr(threads, "_CPU_MAX", folder / "cpu.max")


def test_without_a_limit_every_allowed_core_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(threads, "_CPU_MAX", tmp_path / "missing")
    assert usable_cores() == 4


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", 4),
        ("200000 100000\n", 2),
        ("350000 100000\n", 3),
        ("50000 100000\n", 1),
        ("800000 100000\n", 4),
    ],
)
def test_a_containers_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, cores: int
) -> None:
    limit(monkeypatch, tmp_path, text)
    assert usable_cores() == cores


def test_the_generator_gets_the_cores_and_the_others_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit(monkeypatch, tmp_path, "300000 100000\n")
    variables = thread_variables({})
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize("name", thread_variables({}))
def test_what_is_set_already_stays(name: str) -> None:
    others = thread_variables({})
    del others[name]
    given = thread_variables({name: "7", "PATH": "/bin"})
    assert given == {**others, name: "7"}
