"""Threads of the models: as many as there is time for, and what a user sets stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ofa_server import threads
from ofa_server.model_configs import ModelConfig
from ofa_server.threads import thread_variables, usable_cores


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7})
    monkeypatch.setattr(threads, "_CPU_MAX", Path("/nowhere/cpu.max"))


def test_without_a_limit_every_allowed_core_is_used() -> None:
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
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(threads, "_CPU_MAX", tmp_path / "cpu.max")
    assert usable_cores() == cores


def model(backend: str, num_instances: int) -> ModelConfig:
    text = f'backend: "{backend}" instance_group [ {{ kind: KIND_CPU  count: {num_instances} }} ]'
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(("num_instances", "threads_each"), [(1, 4), (2, 2), (3, 1), (9, 1)])
def test_the_instances_of_a_generator_share_the_cores(
    num_instances: int, threads_each: int
) -> None:
    configs = {
        "preprocess": model("python", 4),
        "generator": model("pytorch", num_instances),
        "other_generator": model("pytorch", 1),
    }
    variables = thread_variables({}, configs)
    assert variables["OMP_NUM_THREADS"] == str(threads_each)
    assert variables["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize("name", thread_variables({}, {}))
def test_what_is_set_already_stays(name: str) -> None:
    others = thread_variables({}, {})
    del others[name]
    given = thread_variables({name: "7", "PATH": "/bin"}, {})
    assert given == {**others, name: "7"}
