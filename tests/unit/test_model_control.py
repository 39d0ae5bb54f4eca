"""Which end of a stub is a death, where versions come and go."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_server import model_control
from ofa_server.model_configs import read_configs
from ofa_server.model_control import (
    PollingTriton,
    model_control_arguments,
    triton_process,
    versions_at_once,
)
from ofa_server.triton_process import Death, TritonProcess
from tests.server.echo_repository import write_echo_repository

Child = subprocess.Popen[bytes]


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Three processes that stand for Triton and two stubs."""
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    yield started
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def triton(children: list[Child], monkeypatch: pytest.MonkeyPatch) -> PollingTriton:
    monkeypatch.setattr(model_control, "_REAP_S", 0.2)
    monkeypatch.setattr(model_control, "_LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr(PollingTriton, "stubs", lambda self: {})
    made = PollingTriton.__new__(PollingTriton)
    monkeypatch.setattr(made, "_process", children[0], raising=False)
    return made


def test_a_stub_that_is_reaped_was_unloaded(triton: PollingTriton, children: list[Child]) -> None:
    _, first, second = children
    stubs = {first.pid: "first_0_0", second.pid: "second_0_0"}
    first.kill()
    first.wait()
    assert triton.wait_for_death(stubs, 0.3) is None
    second.kill()
    assert triton.wait_for_death(stubs, 30) == Death(second.pid, "second_0_0")


def test_a_stub_that_has_come_since_is_watched(
    triton: PollingTriton, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, newcomer, stillborn = children
    stillborn.kill()
    seen = []

    def stubs(_: object) -> dict[int, str]:
        if seen:
            # It was alive when it was first seen.
            newcomer.kill()
        seen.append(True)
        return {newcomer.pid: "new_0_0", stillborn.pid: "stillborn"}

    monkeypatch.setattr(PollingTriton, "stubs", stubs)
    assert triton.wait_for_death({}, 30) == Death(newcomer.pid, "new_0_0")


def test_the_death_of_triton_is_one(triton: PollingTriton, children: list[Child]) -> None:
    children[0].kill()
    assert triton.wait_for_death({children[1].pid: "stub"}, 30) == Death(children[0].pid, None)


def test_only_a_server_that_polls_is_watched_so() -> None:
    assert triton_process("none") is TritonProcess
    assert triton_process("poll") is PollingTriton
    assert model_control_arguments("none") == []
    assert "--model-control-mode=poll" in model_control_arguments("poll")


def test_versions_that_are_loaded_at_once_are_counted(tmp_path: Path) -> None:
    repository = write_echo_repository(tmp_path)
    (repository / "echo_member" / "2").mkdir()
    (repository / "echo_member" / "2" / "model.py").touch()
    (repository / "echo_member" / "warmup").mkdir()
    configs = read_configs(repository)
    assert versions_at_once(repository, configs, "none") == {"echo": 1, "echo_member": 1}
    configs["echo_member"].version_policy.all.SetInParent()
    assert versions_at_once(repository, configs, "none") == {"echo": 1, "echo_member": 2}
    assert versions_at_once(repository, configs, "poll") == {"echo": 1, "echo_member": 3}
