"""The Dockerfiles and the compose file: what hadolint and compose accept, and our own rules."""

import argparse
import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ofa_server.serve_settings import add_arguments
from ofa_server.triton_process import EXIT_TIMEOUT_S
from tests.contract.tools import run

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
CHART_FILES = ROOT / "kubernetes" / "ofa-triton" / "files"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))


def compose_config(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("docker-compose", "--file", file, "--profile", "*", "config", *arguments)


@functools.cache
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
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    }
    assert copied
    assert copied <= allowed
    assert all((ROOT / source).exists() for source in copied)


def test_compose_accepts_the_file() -> None:
    assert set(services()) == {"export", "server", "gateway", "prometheus", "grafana", "load"}


def test_compose_gives_the_server_a_gpu() -> None:
    files = [
        word for file in ("compose.yaml", "compose.gpu.yaml") for word in ("--file", DOCKER / file)
    ]
    resolved = run("docker-compose", *files, "config", "--format", "json")
    assert resolved.returncode == 0, resolved.stderr
    server = json.loads(resolved.stdout)["services"]["server"]
    [device] = server["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert server["read_only"] is True


def test_compose_would_refuse_an_unknown_key(tmp_path: Path) -> None:
    broken = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    broken["services"]["server"]["shm_sze"] = "1g"
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump(broken))
    refused = compose_config(file)
    assert refused.returncode != 0
    assert "shm_sze" in refused.stderr


@pytest.mark.parametrize("name", list(services()))
def test_containers_have_no_privileges(name: str) -> None:
    container = services()[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    if "build" in container:
        dockerfile = (ROOT / container["build"]["dockerfile"]).read_text()
        assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["1000:1000"]
    else:
        assert int(container["user"].split(":")[0]) > 0


def test_images_that_are_not_ours_are_pinned() -> None:
    images = [container["image"] for container in services().values() if "build" not in container]
    assert len(images) == 2
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in images), images


def test_the_server_image_is_of_one_pinned_release() -> None:
    dockerfile = (DOCKER / "Dockerfile.server").read_text()
    [base] = re.findall(r"^ARG TRITON_IMAGE=(.*)$", dockerfile, re.MULTILINE)
    assert base.startswith("nvcr.io/nvidia/tritonserver:26.09-")
    assert dockerfile.count("\nFROM ${TRITON_IMAGE}\n") == 1


def test_what_is_published_is_published_on_this_machine_only() -> None:
    published = {
        (name, port["host_ip"], port["published"], port["target"])
        for name, container in services().items()
        for port in container.get("ports", [])
    }
    assert published == {
        ("server", "127.0.0.1", "8001", 8001),
        ("gateway", "127.0.0.1", "8080", 8080),
        ("prometheus", "127.0.0.1", "9090", 9090),
        ("grafana", "127.0.0.1", "3000", 3000),
    }


def test_the_server_has_room_for_tensors() -> None:
    assert int(services()["server"]["shm_size"]) == 1 << 30


def test_the_server_is_given_time_to_drain() -> None:
    server = services()["server"]
    arguments = ServeArguments.of(server["command"])
    assert arguments.http_port == 0
    needed = arguments.drain_seconds + EXIT_TIMEOUT_S
    assert needed < seconds(server["stop_grace_period"]) < needed + 30


def test_the_image_serves_as_compose_does_but_for_the_drain() -> None:
    dockerfile = (DOCKER / "Dockerfile.server").read_text()
    [command] = re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)
    composed = services()["server"]["command"]
    assert composed[: composed.index("--drain-seconds")] == json.loads(command)


@pytest.mark.parametrize(
    ("dockerfile", "port", "path"), [("server", 8003, "/ready"), ("gateway", 8080, "/healthz")]
)
def test_health_is_asked_for_where_it_is_told(dockerfile: str, port: int, path: str) -> None:
    text = (DOCKER / f"Dockerfile.{dockerfile}").read_text()
    assert "\nHEALTHCHECK " in text
    assert re.findall(r"urlopen\('http://127\.0\.0\.1:(\d+)(\S+)',", text) == [(str(port), path)]
    assert any(str(port) in line.split() for line in text.splitlines() if line.startswith("EXPOSE"))


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_the_health_of_the_others_is_asked_for(name: str) -> None:
    assert services()[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize(
    ("name", "awaited", "condition"),
    [
        ("server", "export", "service_completed_successfully"),
        ("gateway", "server", "service_healthy"),
        ("load", "server", "service_healthy"),
        ("grafana", "prometheus", "service_healthy"),
    ],
)
def test_services_start_in_order(name: str, awaited: str, condition: str) -> None:
    assert services()[name]["depends_on"][awaited]["condition"] == condition


def test_the_load_test_is_not_part_of_up() -> None:
    assert {name for name, container in services().items() if container.get("profiles")} == {"load"}


def test_files_that_are_mounted_exist() -> None:
    mounted = [
        Path(volume["source"])
        for container in services().values()
        for volume in container.get("volumes", [])
        if volume["type"] == "bind"
    ]
    assert len(mounted) >= 7
    assert [source for source in mounted if not source.exists()] == []


def test_prometheus_scrapes_the_services() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }
    assert targets == {"ofa-triton": ["server:8002"], "ofa-gateway": ["gateway:8080"]}
    assert config["rule_files"] == [target(services()["prometheus"], "rules.yaml")]
    assert mounted_file(services()["prometheus"], "rules.yaml") == CHART_FILES / "rules.yaml"


def test_grafana_finds_prometheus_and_the_chart_s_dashboard() -> None:
    grafana = services()["grafana"]
    [source] = yaml.safe_load((DOCKER / "grafana/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((DOCKER / "grafana/dashboards/ofa-triton.yaml").read_text())[
        "providers"
    ]
    dashboard = target(grafana, "ofa-triton.json")
    assert Path(dashboard).parent == Path(provider["options"]["path"])
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == dashboard
    assert mounted_file(grafana, "ofa-triton.json") == CHART_FILES / "dashboard.json"
    # Whatever it asks, it asks the source that is chosen on the page: there is but one.
    panels = json.loads((CHART_FILES / "dashboard.json").read_text())["panels"]
    asked = {panel["datasource"]["uid"] for panel in panels if panel.get("datasource")}
    assert asked == {"${datasource}"}
    for kind in ("datasources", "dashboards"):
        assert target(grafana, kind) == f"/etc/grafana/provisioning/{kind}"


class ServeArguments(argparse.Namespace):
    """The arguments of `ofa serve`, as it reads them."""

    http_port: int
    drain_seconds: float

    @classmethod
    def of(cls, command: list[str]) -> "ServeArguments":
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return parser.parse_args(command, cls())


def seconds(duration: str) -> float:
    """Of compose's form: 45s, 1m30s."""
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert parts, duration
    return int(parts[1] or 0) * 60 + int(parts[2] or 0)


def _volume(container: dict[str, Any], name: str) -> dict[str, Any]:
    [volume] = [one for one in container["volumes"] if Path(one["target"]).name == name]
    return volume


def target(container: dict[str, Any], name: str) -> str:
    return str(_volume(container, name)["target"])


def mounted_file(container: dict[str, Any], name: str) -> Path:
    return Path(_volume(container, name)["source"])
