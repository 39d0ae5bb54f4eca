"""The Dockerfiles and the compose file: what hadolint and compose accept, and our own rules."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
TOOLS = ROOT / ".venv-ops" / "bin"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))


def run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = TOOLS / tool
    assert program.is_file(), f"{program} is missing: run `make ops-tools`"
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )


def compose_config(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("docker-compose", "--file", file, "--profile", "*", "config", *arguments)


def services() -> dict[str, Any]:
    resolved = compose_config(DOCKER / "compose.yaml", "--format", "json")
    assert resolved.returncode == 0, resolved.stderr
    return json.loads(resolved.stdout)["services"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_is_clean(dockerfile: Path) -> None:
    linted = run("hadolint", dockerfile)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_in_the_build_context(dockerfile: Path) -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in dockerfile.read_text().splitlines()
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    }
    assert copied
    assert copied <= allowed
    assert all((ROOT / source).exists() for source in copied)


def test_compose_accepts_the_file() -> None:
    assert set(services()) == {"server", "load"}


def test_compose_would_refuse_an_unknown_key(tmp_path: Path) -> None:
    broken = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    broken["services"]["server"]["shm_sze"] = "1g"
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump(broken))
    refused = compose_config(file)
    assert refused.returncode != 0
    assert "shm_sze" in refused.stderr


@pytest.mark.parametrize("name", ["server", "load"])
def test_containers_have_no_privileges(name: str) -> None:
    container = services()[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    dockerfile = (ROOT / container["build"]["dockerfile"]).read_text()
    assert "\nUSER 1000:1000\n" in dockerfile


def test_the_server_is_published_on_this_machine_only() -> None:
    server = services()["server"]
    assert {(port["host_ip"], port["published"], port["target"]) for port in server["ports"]} == {
        ("127.0.0.1", str(port), port) for port in (8000, 8001, 8002)
    }
    assert int(server["shm_size"]) == 1 << 30


def test_the_load_test_waits_for_a_healthy_server() -> None:
    assert services()["load"]["depends_on"]["server"]["condition"] == "service_healthy"
    assert "\nHEALTHCHECK " in (DOCKER / "Dockerfile.server").read_text()
