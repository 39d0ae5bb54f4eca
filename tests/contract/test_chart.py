"""The Helm chart: what helm, the API's schemas and those of custom resources accept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.chart import (
    CASES,
    CHART,
    RECIPES,
    ROOT,
    Manifest,
    of_kind,
    render,
    template,
    values_of,
)
from tests.contract.kserve_schema import faults
from tests.contract.tools import TOOLS, run

#: Groups of custom resources, whose schemas are in .venv-ops/crd_models.
CUSTOM = ("gateway.networking.k8s.io/", "keda.sh/", "monitoring.coreos.com/")
#: Kubernetes ends side cars after the server from 1.29 on.
SECURED_SINCE = (1, 29)


def is_custom(manifest: Manifest) -> bool:
    return bool(manifest["apiVersion"].startswith(CUSTOM))


def faults_of_custom(manifests: list[Manifest]) -> list[str]:
    checked = run("node", TOOLS.parent / "crd_models" / "validate.js", text=json.dumps(manifests))
    assert checked.returncode == 0, checked.stderr
    return checked.stdout.splitlines()


def check_core(manifests: list[Manifest], kubernetes: str, folder: Path) -> tuple[int, str]:
    file = folder / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    checked = run("kubernetes-validate", "-k", kubernetes, "--strict", file)
    return checked.returncode, checked.stdout + checked.stderr


@pytest.mark.parametrize("case", CASES)
def test_helm_lint_is_clean(case: str) -> None:
    linted = run("helm", "lint", "--strict", CHART, "--kube-version", "1.31.0", *values_of(case))
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("kubernetes", ["1.25.0", "1.31.0", "1.37.0"])
@pytest.mark.parametrize("case", CASES)
def test_manifests_are_valid(case: str, kubernetes: str, tmp_path: Path) -> None:
    if case == "secured" and tuple(map(int, kubernetes.split(".")[:2])) < SECURED_SINCE:
        refused = template(*values_of(case), kubernetes=kubernetes)
        assert refused.returncode != 0
        assert "security needs Kubernetes 1.29 or later" in refused.stderr
        return
    manifests = [manifest for manifest in render(case) if not is_custom(manifest)]
    status, report = check_core(manifests, kubernetes, tmp_path)
    assert status == 0, report
    # A kind that it does not know only makes it warn.
    assert "WARN" not in report
    assert report.count("passed for resource") == len(manifests)


@pytest.mark.parametrize("case", CASES)
def test_custom_resources_are_valid(case: str) -> None:
    custom = [manifest for manifest in render(case) if is_custom(manifest)]
    kinds = {manifest["kind"] for manifest in custom}
    monitored = {"GRPCRoute", "PodMonitor", "PrometheusRule"}
    assert kinds == (monitored if case == "monitored" else set())
    assert faults_of_custom(custom) == []


@pytest.mark.parametrize("recipe", ["canary.yaml", "keda.yaml"])
def test_recipes_are_valid(recipe: str) -> None:
    manifests = list(yaml.safe_load_all((RECIPES / recipe).read_text()))
    assert manifests
    assert all(map(is_custom, manifests))
    assert faults_of_custom(manifests) == []


def test_an_unknown_field_would_be_refused(tmp_path: Path) -> None:
    manifests = render("monitored")
    [core] = of_kind(manifests, "PodDisruptionBudget")
    core["spec"]["maxUnavailble"] = 1
    status, report = check_core([core], "1.37.0", tmp_path)
    assert status != 0
    assert "maxUnavailble" in report

    [custom] = of_kind(manifests, "PodMonitor")
    custom["spec"]["podMetricsEndpoints"][0]["prt"] = "metrics"
    assert [fault.partition(": ")[2] for fault in faults_of_custom([custom])] == [
        "spec.podMetricsEndpoints.0.prt is no field"
    ]
    assert faults_of_custom([core]) == [
        f"policy/v1 PodDisruptionBudget {core['metadata']['name']}: no schema is known"
    ]


@pytest.mark.parametrize(
    "values",
    [
        "replicaz=2",
        "replicas=-1",
        "replicas=many",
        "image.tagg=1",
        "modelRepository.from=disk",
        "modelRepository.claim=",
        "modelRepository.from=export",
        "modelRepository.from=s3",
        "modelRepository.from=s3,modelRepository.s3.url=https://files,modelRepository.s3.secret=key",
        "modelRepository.hostPath.path=/models",
        "resources.memory=4GGi",
        "resources.memory=4096",
        "resources.cpu=4cores",
        "resources.gpus=0.5",
        "sharedMemory.size=512",
        "sharedMemory.ensembles=0",
        "startupSeconds=601",
        "drainSeconds=0",
        "rollingUpdate.maxSurge=0",
        "rollingUpdate.maxSurge=1x",
        "arguments=--http-port",
        "otlpEndpoint=collector:4318",
        "service.type=ExternalName",
        "security.tlsSecret=tls",
        "security.clientsSecret=clients",
        "security.tlsSecret=tls,security.clientsSecret=clients,grpcRoute.parentRefs[0].name=public",
        "networkPolicy.clients[0].pods=all",
        "grpcRoute.parentRefs[0].namespace=gateways",
        "autoscaling.queueToComputeRatio=much",
        "monitoring.enabled=yes please",
        "gateway.replicas=-1",
        "tolerations=all",
    ],
)
def test_wrong_values_are_refused(values: str) -> None:
    rendered = template("--set", values)
    assert rendered.returncode != 0
    assert "values don't meet the specifications of the schema" in rendered.stderr


def test_the_page_names_values_and_files_that_there_are() -> None:
    page = ROOT / "docs" / "kubernetes.md"
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    named = re.findall(r"`(?:--set )?([a-z]\w+(?:\.\w+)*)(?:=[^`]*)?`", page.read_text())
    paths = [name.split(".") for name in named if name.split(".")[0] in values]
    assert len(paths) > 20
    for path in paths:
        found: Any = values
        for key in path:
            assert key in found, ".".join(path)
            found = found[key]
    links = re.findall(r"\]\((\.\./[^)#]+)", page.read_text())
    assert len(links) > 5
    assert [link for link in links if not (page.parent / link).exists()] == []


def kserve_service() -> Manifest:
    manifest: Manifest = yaml.safe_load((RECIPES / "kserve.yaml").read_text())
    return manifest


def test_the_kserve_recipe_is_valid(tmp_path: Path) -> None:
    service = kserve_service()
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert list(faults(service, "V1beta1InferenceService")) == []
    # A predictor is a pod and a few fields of KServe's own.
    own = {"minReplicas", "maxReplicas"}
    spec = {key: value for key, value in service["spec"]["predictor"].items() if key not in own}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": spec}
    status, report = check_core([pod], "1.37.0", tmp_path)
    assert status == 0, report


def test_a_wrong_kserve_recipe_would_be_refused() -> None:
    service = kserve_service()
    service["spec"]["predictor"] |= {"minReplica": 1, "maxReplicas": "8", "containers": {}}
    assert list(faults(service, "V1beta1InferenceService")) == [
        ".spec.predictor.maxReplicas is no int",
        ".spec.predictor.containers is no list",
        ".spec.predictor.minReplica is no field",
    ]
