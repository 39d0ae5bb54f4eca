"""The chart's containers without a cluster: what they run and ask, against a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_client import OFAClient
from tests.contract.chart import pods, render, server_container, server_pod
from tests.server.envoy_process import ENVOY, TOKEN, EnvoyProcess, envoy_in_front_of
from tests.server.processes import STOP_DEADLINE_S, ServeProcess, serving, wait_until
from tests.server.requests import encoded, picture


@pytest.fixture
def envoy(server: ServeProcess, tmp_path: Path) -> Iterator[EnvoyProcess]:
    with envoy_in_front_of(server.ports[0], tmp_path) as envoy:
        yield envoy


def helm_test(case: str, folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    """Runs the program of the pod that `helm test` starts, with its files in `folder`."""
    _, pod = pods(render(case))["test"]
    [container] = pod["containers"]
    assert container["command"] == ["python3", "-c"]
    program, asked, *arguments = container["args"]
    assert asked == f"captioner.vision.svc:{8443 if case == 'secured' else 8001}"
    for mount in container.get("volumeMounts", []):
        program = program.replace(f'"{mount["mountPath"]}/', f'"{folder}{mount["mountPath"]}/')
    return subprocess.run(
        [sys.executable, "-c", program, address, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_helm_test_has_a_caption(server: ServeProcess, tmp_path: Path) -> None:
    asked = helm_test("default", tmp_path, server.grpc_address)
    assert asked.returncode == 0, asked.stderr
    model, version, text = asked.stdout.strip().split(" ", 2)
    assert (model, version) == ("caption", "1")
    assert text


def test_helm_test_fails_where_nobody_answers(tmp_path: Path) -> None:
    asked = helm_test("default", tmp_path, "127.0.0.1:1")
    assert asked.returncode != 0
    assert "UnavailableError" in asked.stderr


def test_helm_test_has_a_caption_through_envoy(envoy: EnvoyProcess, tmp_path: Path) -> None:
    (tmp_path / "tls" / "ca.crt").write_bytes(envoy.servers.root)
    (tmp_path / "clients" / "token").write_text(f"{TOKEN}\n")
    asked = helm_test("secured", tmp_path, envoy.address)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("caption 1 ")

    envoy.tokens.write_text(f"another-{TOKEN}\n")
    refused = helm_test("secured", tmp_path, envoy.address)
    assert refused.returncode != 0
    assert "AuthenticationError" in refused.stderr


def test_envoy_takes_the_chart_s_arguments(envoy: EnvoyProcess) -> None:
    [container] = server_pod("secured")["initContainers"]
    shipped = "/etc/envoy/configuration/envoy.yaml"
    assert shipped in container["args"]
    there = str(envoy.folder / "envoy.yaml")
    arguments = [there if word == shipped else word for word in container["args"]]
    checked = subprocess.run(
        [ENVOY, *arguments, "--mode", "validate"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_the_container_lives_by_its_probes(repository: Path, tmp_path: Path) -> None:
    container = server_container("cpu", "drainSeconds=600")
    asked = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")]
    # Where it listens and what it reads is the test's own.
    elsewhere = ("--repository=", "--host=", "--health-port=")
    arguments = [word for word in container["args"] if not word.startswith(elsewhere)]
    with serving(repository, tmp_path / "server.log", arguments) as server:
        assert [server.probe(path)[0] for path in asked] == [200, 200]
        server.process.terminate()
        wait_until(lambda: "draining: " in server.output, "drain", STOP_DEADLINE_S)
        assert [server.probe(path)[0] for path in asked] == [503, 200]
        with OFAClient(server.grpc_address, retry=None) as client:
            assert client.caption(encoded(picture(1))).captions
        server.process.terminate()
        assert server.wait_until_stopped() == 0
