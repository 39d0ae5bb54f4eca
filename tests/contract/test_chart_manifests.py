"""What the chart's manifests say to one another, which no schema looks at."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.chart import (
    CASES,
    CHART,
    NAMESPACE,
    Manifest,
    containers,
    deployment,
    of_kind,
    pods,
    quantity,
    render,
    server_container,
    server_pod,
    values_of,
    walk,
)

#: Where the selector of pods stands, by kind.
SELECTORS = {
    "Deployment": "selector.matchLabels",
    "Service": "selector",
    "PodDisruptionBudget": "selector.matchLabels",
    "NetworkPolicy": "podSelector.matchLabels",
}


def at(node: Any, path: str) -> Any:
    for key in path.split("."):
        node = node[key]
    return node


def selected(manifests: list[Manifest], labels: dict[str, str]) -> list[str]:
    """Components of the pods with these labels."""
    assert labels
    return [
        component
        for component, (pod_labels, _) in pods(manifests).items()
        if labels.items() <= pod_labels.items()
    ]


def port_names(manifests: list[Manifest], component: str) -> dict[str, int]:
    _, pod = pods(manifests)[component]
    return {
        port["name"]: port["containerPort"]
        for container in containers(pod)
        for port in container.get("ports", [])
    }


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_their_own_pods_and_no_others(case: str) -> None:
    manifests = render(case)
    for manifest in manifests:
        if manifest["kind"] in SELECTORS:
            component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
            labels = at(manifest["spec"], SELECTORS[manifest["kind"]])
            assert selected(manifests, labels) == [component], manifest["metadata"]["name"]
    for constraint in server_pod(case)["topologySpreadConstraints"]:
        assert selected(manifests, constraint["labelSelector"]["matchLabels"]) == ["server"]


def test_two_releases_do_not_see_each_other() -> None:
    first, second = render(), render(release="captioner-canary")
    for manifest in first:
        if manifest["kind"] in SELECTORS:
            labels = at(manifest["spec"], SELECTORS[manifest["kind"]])
            assert selected(second, labels) == []
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in first}
    assert not names & {(manifest["kind"], manifest["metadata"]["name"]) for manifest in second}


@pytest.mark.parametrize("case", CASES)
def test_ports_have_names_that_exist(case: str) -> None:
    manifests = render(case)
    for component, (_, pod) in pods(manifests).items():
        named = port_names(manifests, component)
        assert all(len(name) <= 15 for name in named)
        assert len(set(named.values())) == len(named)
        for container in containers(pod):
            own = {port["name"] for port in container.get("ports", [])}
            for path, value in walk(container):
                if path.endswith((".httpGet.port", ".tcpSocket.port")):
                    assert value in own
    for service in of_kind(manifests, "Service"):
        component = service["metadata"]["labels"]["app.kubernetes.io/component"]
        targets = [port["targetPort"] for port in service["spec"]["ports"]]
        assert set(targets) <= set(port_names(manifests, component))
    for policy in of_kind(manifests, "NetworkPolicy"):
        component = policy["metadata"]["labels"]["app.kubernetes.io/component"]
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= set(port_names(manifests, component))
    for monitor in of_kind(manifests, "PodMonitor"):
        monitored = selected(manifests, monitor["spec"]["selector"]["matchLabels"])
        assert {"server", "gateway"} <= set(monitored)
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert any(endpoint["port"] in port_names(manifests, name) for name in monitored)


@pytest.mark.parametrize("case", CASES)
def test_services_offer_one_way_in(case: str) -> None:
    services = {
        service["metadata"]["name"]: service["spec"] for service in of_kind(render(case), "Service")
    }
    way_in = ("grpcs", 8443) if case == "secured" else ("grpc", 8001)
    for name in ("captioner", "captioner-headless"):
        assert [(port["name"], port["port"]) for port in services[name]["ports"]] == [way_in]
    assert services["captioner-headless"]["clusterIP"] == "None"
    assert "clusterIP" not in services["captioner"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_named_is_there(case: str) -> None:
    manifests = render(case)
    own = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    keys = {
        ".serviceAccountName": "ServiceAccount",
        ".configMap.name": "ConfigMap",
        ".secret.secretName": "Secret",
        ".secretRef.name": "Secret",
        ".claimName": "PersistentVolumeClaim",
    }
    # What the chart does not make is what its values name.
    files = [CHART / "values.yaml", *map(Path, values_of(case)[1:])]
    values = "\n".join(file.read_text() for file in files)
    for path, value in walk(manifests):
        for end, kind in keys.items():
            if path.endswith(end) and (kind, value) not in own:
                assert kind in {"Secret", "PersistentVolumeClaim"}
                assert re.search(rf": {value}$", values, re.MULTILINE)
    for path, value in walk(manifests):
        if path.endswith((".scaleTargetRef", ".backendRefs[0]")):
            assert (value.get("kind", "Service"), value["name"]) in own


@pytest.mark.parametrize("case", CASES)
def test_volumes_and_mounts_belong_together(case: str) -> None:
    for _, pod in pods(render(case)).values():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        mounts = [
            mount for container in containers(pod) for mount in container.get("volumeMounts", [])
        ]
        assert {mount["name"] for mount in mounts} == volumes
        for container in containers(pod):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("case", CASES)
def test_quantities_are_quantities_and_requests_within_limits(case: str) -> None:
    for _, pod in pods(render(case)).values():
        for container in containers(pod):
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert set(requests) == {"cpu", "memory"} <= set(limits)
            # Servers before 1.21 take no numbers for them from helm 4, which applies on the server.
            assert all(isinstance(value, str) for value in (requests | limits).values())
            for resource, value in requests.items():
                assert 0 < quantity(value) <= quantity(limits[resource])
    # /dev/shm counts as the server's memory.
    memory = quantity(server_container(case)["resources"]["limits"]["memory"])
    [shared] = [
        volume["emptyDir"]["sizeLimit"]
        for volume in server_pod(case)["volumes"]
        if volume["name"] == "shared-memory"
    ]
    assert 0 < quantity(shared) < memory / 2


def test_a_wrong_quantity_is_noticed() -> None:
    for wrong in ("4GGi", "Gi", "4 Gi", "-1", "1e"):
        with pytest.raises((AssertionError, KeyError)):
            quantity(wrong)


@pytest.mark.parametrize("case", CASES)
def test_names_fit_in_dns_labels(case: str) -> None:
    longest = "a" * 53  # what helm allows
    for manifest in render(case, release=longest):
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", manifest["metadata"]["name"])
        assert manifest["metadata"].get("namespace") == NAMESPACE


def test_replicas_are_left_to_whoever_counts_them() -> None:
    assert deployment()["spec"]["replicas"] == 1
    assert deployment("default", "replicas=0")["spec"]["replicas"] == 0
    assert "replicas" not in deployment("default", "replicas=null")["spec"]
    assert "replicas" not in deployment("default", "autoscaling.enabled=true")["spec"]


def test_servers_that_need_no_network_open_no_connection() -> None:
    def egress(case: str) -> Any:
        [policy] = [
            policy["spec"]
            for policy in of_kind(render(case), "NetworkPolicy")
            if policy["metadata"]["name"] == "captioner"
        ]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        return policy["egress"]

    assert {case: egress(case) for case in CASES} == {
        case: [{}] if case in {"export", "monitored", "s3"} else [] for case in CASES
    }


def test_gpus_are_asked_for_where_they_are_used() -> None:
    def gpus(case: str) -> int:
        return int(server_container(case)["resources"]["limits"].get("nvidia.com/gpu", 0))

    assert [gpus(case) for case in ("default", "gpu", "cpu", "minimal")] == [1, 2, 0, 0]
    [term] = server_pod()["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    # 16000 MB of the model card in MiB; Gt is "more than".
    assert int(term["matchExpressions"][0]["values"][0]) + 1 == 16000 * 10**6 // 2**20
    assert "affinity" not in server_pod("cpu")
    assert "affinity" not in server_pod("gpu", "resources.gpuMemoryMiB=0")
    assert "affinity" in server_pod("gpu")


def test_the_large_model_gets_what_its_card_says() -> None:
    limits = server_container()["resources"]["limits"]
    assert limits == {"cpu": "4", "memory": "43G", "nvidia.com/gpu": "1"}
    assert server_container()["resources"]["requests"] == {"cpu": "4", "memory": "43G"}


def test_the_files_of_others_arrive_unchanged() -> None:
    monitored = render("monitored")
    [rules] = of_kind(monitored, "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    [dashboard] = of_kind(monitored, "ConfigMap")
    assert dashboard["data"]["ofa-triton.json"].strip() == (
        (CHART / "files" / "dashboard.json").read_text().strip()
    )
    [envoy] = of_kind(render("secured"), "ConfigMap")
    assert envoy["data"]["envoy.yaml"].strip() == (
        (CHART / "files" / "envoy.yaml").read_text().strip()
    )


def test_envoy_finds_its_files_and_its_port() -> None:
    configuration = yaml.safe_load((CHART / "files" / "envoy.yaml").read_text())
    [envoy] = server_pod("secured")["initContainers"]
    # A side car: it ends after the server, so what is drained still comes through.
    assert envoy["restartPolicy"] == "Always"
    mounts = {mount["mountPath"] for mount in envoy["volumeMounts"]}
    text = (CHART / "files" / "envoy.yaml").read_text()
    files = set(re.findall(r"/etc/envoy/(?:tls|clients)/[\w.]+\w", text))
    assert len(files) == 4
    assert {file.rpartition("/")[0] for file in files} <= mounts
    configured = envoy["args"][envoy["args"].index("--config-path") + 1]
    assert configured.removesuffix("/envoy.yaml") in mounts
    [listener] = configuration["static_resources"]["listeners"]
    [port] = envoy["ports"]
    assert listener["address"]["socket_address"]["port_value"] == port["containerPort"]
    heap = configuration["overload_manager"]["resource_monitors"][0]["typed_config"]
    limit = quantity(envoy["resources"]["limits"]["memory"])
    assert heap["max_heap_size_bytes"] < limit
