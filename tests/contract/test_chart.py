"""The Helm chart: what helm and the API's schemas accept, and what neither of them looks at."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "kubernetes" / "ofa-triton"
TOOLS = ROOT / ".venv-ops" / "bin"

VARIANTS = {
    "default": [],
    "headless": ["service.headless=true"],
    "gpu": ["resources.limits.nvidia\\.com/gpu=1", "nodeSelector.accelerator=l4"],
    "nfs": ["modelRepository.persistentVolumeClaim=null", "modelRepository.nfs.server=files",
            "modelRepository.nfs.path=/models"],
    "ports": ["service.type=LoadBalancer", "service.grpcPort=443", "replicas=3"],
}  # fmt: skip


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = TOOLS / tool
    assert program.is_file(), f"{program} is missing: run `make ops-tools`"
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def render(*values: str) -> str:
    settings = [argument for value in values for argument in ("--set", value)]
    rendered = run("helm", "template", "captioner", str(CHART), "--namespace", "vision", *settings)
    assert rendered.returncode == 0, rendered.stderr
    return rendered.stdout


def deployment(*values: str) -> dict[str, Any]:
    [manifest] = [
        document
        for document in yaml.safe_load_all(render(*values))
        if document["kind"] == "Deployment"
    ]
    return manifest


def service(*values: str) -> dict[str, Any]:
    [manifest] = [
        document
        for document in yaml.safe_load_all(render(*values))
        if document["kind"] == "Service"
    ]
    return manifest


def container(*values: str) -> dict[str, Any]:
    [only] = deployment(*values)["spec"]["template"]["spec"]["containers"]
    return only


def test_helm_lint_is_clean() -> None:
    linted = run("helm", "lint", "--strict", str(CHART))
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("kubernetes", ["1.25.0", "1.31.0", "1.37.0"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_manifests_are_valid(variant: str, kubernetes: str, tmp_path: Path) -> None:
    manifests = tmp_path / "rendered.yaml"
    manifests.write_text(render(*VARIANTS[variant]))
    checked = run("kubernetes-validate", "-k", kubernetes, "--strict", str(manifests))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # An unknown kind only warns.
    assert "WARN" not in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "value",
    [
        "replicaz=2",
        "replicas=-1",
        "replicas=many",
        "sharedMemorySize=4GGi",
        "resources.limits.memory=4GGi",
        "service.grpcPort=70000",
        "service.headless=true,service.type=NodePort",
        "image.tagg=1",
    ],
)
def test_wrong_values_are_refused(value: str) -> None:
    rendered = run("helm", "template", "captioner", str(CHART), "--set", value)
    assert rendered.returncode != 0
    assert "values don't meet the specifications of the schema" in rendered.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_service_finds_the_pods(variant: str) -> None:
    spec = deployment(*VARIANTS[variant])["spec"]
    labels = spec["template"]["metadata"]["labels"]
    for selector in (
        spec["selector"]["matchLabels"],
        service(*VARIANTS[variant])["spec"]["selector"],
    ):
        assert selector
        assert selector.items() <= labels.items()
    named = {port["name"] for port in container(*VARIANTS[variant])["ports"]}
    targets = {port["targetPort"] for port in service(*VARIANTS[variant])["spec"]["ports"]}
    assert targets == named == {"grpc", "http", "metrics"}


def test_a_headless_service_has_no_address() -> None:
    assert service("service.headless=true")["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in service()["spec"]


def test_volumes_are_mounted_and_sized() -> None:
    pod = deployment("sharedMemorySize=2Gi")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container()["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    shared_memory = volumes[mounts["/dev/shm"]["name"]]["emptyDir"]
    assert shared_memory == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert mounts["/models"]["readOnly"] is True


def test_the_pod_has_no_privileges() -> None:
    pod = deployment()["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_shutdown_leaves_time_to_drain() -> None:
    values = ("shutdown.delaySeconds=20", "shutdown.drainSeconds=60")
    spec = deployment(*values)["spec"]["template"]["spec"]
    assert container(*values)["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "20"]
    assert spec["terminationGracePeriodSeconds"] > 20 + 60


def test_startup_may_take_as_long_as_it_says() -> None:
    probe = container("startupSeconds=92")["startupProbe"]
    assert 92 <= probe["periodSeconds"] * probe["failureThreshold"] < 92 + probe["periodSeconds"]


def test_the_user_and_ports_are_those_of_the_image() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile.server").read_text()
    pod = deployment()["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {pod['runAsUser']}:{pod['runAsGroup']}" in dockerfile
    exposed = re.search(r"^EXPOSE (.+)$", dockerfile, re.MULTILINE)
    assert exposed is not None
    assert set(exposed[1].split()) == {str(port["containerPort"]) for port in container()["ports"]}
