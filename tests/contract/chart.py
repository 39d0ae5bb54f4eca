"""Renders the chart, and takes what it rendered apart."""

import functools
import json
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from tests.contract.tools import run

ROOT = Path(__file__).parents[2]
CHART = ROOT / "kubernetes" / "ofa-triton"
RECIPES = ROOT / "kubernetes" / "recipes"
NAMESPACE, RELEASE = "vision", "captioner"

#: The matrix: values.yaml alone, and each file of values that the chart brings along.
CASES = ["default", *sorted(file.name.partition("-")[0] for file in CHART.glob("ci/*-values.yaml"))]

UNITS = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}  # fmt: skip

Manifest = dict[str, Any]


def values_of(case: str) -> list[str]:
    return [] if case == "default" else ["--values", str(CHART / "ci" / f"{case}-values.yaml")]


def template(
    *arguments: str, release: str = RELEASE, kubernetes: str = "1.31.0"
) -> subprocess.CompletedProcess[str]:
    versions = ("--kube-version", kubernetes)
    return run("helm", "template", release, CHART, "--namespace", NAMESPACE, *versions, *arguments)


@functools.cache
def _rendered(case: str, values: tuple[str, ...], release: str) -> str:
    settings = [argument for value in values for argument in ("--set", value)]
    rendered = template(*values_of(case), *settings, release=release)
    assert rendered.returncode == 0, rendered.stderr
    return json.dumps([document for document in yaml.safe_load_all(rendered.stdout) if document])


def render(case: str = "default", *values: str, release: str = RELEASE) -> list[Manifest]:
    manifests: list[Manifest] = json.loads(_rendered(case, values, release))
    return manifests


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def deployment(case: str = "default", *values: str) -> Manifest:
    [server] = [
        manifest
        for manifest in of_kind(render(case, *values), "Deployment")
        if manifest["metadata"]["labels"]["app.kubernetes.io/component"] == "server"
    ]
    return server


def server_pod(case: str = "default", *values: str) -> dict[str, Any]:
    pod: dict[str, Any] = deployment(case, *values)["spec"]["template"]["spec"]
    return pod


def server_container(case: str = "default", *values: str) -> dict[str, Any]:
    [container] = server_pod(case, *values)["containers"]
    return dict(container)


def pods(manifests: list[Manifest]) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """Labels and spec of each kind of pod, by its component."""
    found = {}
    for manifest in manifests:
        pod = (
            manifest if manifest["kind"] == "Pod" else manifest.get("spec", {}).get("template", {})
        )
        if "containers" in pod.get("spec", {}):
            labels = pod["metadata"]["labels"]
            found[labels["app.kubernetes.io/component"]] = (labels, pod["spec"])
    return found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a manifest with the path to it."""
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, f"{path}[{index}]")


def quantity(value: float | str) -> Decimal:
    """What Kubernetes takes a quantity for."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", str(value))
    assert match is not None, f"{value} is no quantity"
    return Decimal(match[1]) * UNITS[match[2]]
