"""What the running services must do."""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from check import CheckError, begin, require, wait_until
from stack import Stack

from ofa_client import OFAClient

#: A sample that the bundled checkpoint describes by the name of its file.
_PICTURE = "an_ambulance_to_the_left_of_a_doughnut.jpg"
_CAPTION = "an ambulance to the left of a doughnut"
_CONFINED = ("server", "gateway", "prometheus")
_READY = "import urllib.request as r; r.urlopen('http://127.0.0.1:8003/ready', timeout=3)"


def check_stack(stack: Stack, root: Path) -> None:
    """Asks every service for what it is there for, and ends with the server's drain.

    Raises:
        CheckError: something is not as it should be.
    """
    picture = root / "samples" / _PICTURE
    check_confinement(stack)
    check_captions(stack, picture)
    check_prometheus(stack, root)
    check_load(stack)
    check_drain(stack, picture)


def check_confinement(stack: Stack) -> None:
    begin("confinement")
    for service in _CONFINED:
        inspected = stack.inspect(service)
        host = inspected["HostConfig"]
        require(host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"], f"{service} is confined")
        status = stack.compose("exec", "-T", service, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        users = fields["Uid"].split()
        require("0" not in users, f"{service} runs as user {users[0]}")
        rights = {fields[name] for name in ("CapPrm", "CapEff", "CapBnd")}
        require(rights == {"0" * 16} and fields["NoNewPrivs"] == "1", f"{service} has no rights")
        write = "echo >/etc/written && echo written || echo refused"
        answer = stack.compose("exec", "-T", service, "sh", "-c", f"({write}) 2>/dev/null")
        require(answer.strip() == "refused", f"{service} cannot write into its image")
        published = {
            binding["HostIp"]
            for bindings in inspected["NetworkSettings"]["Ports"].values()
            for binding in bindings or []
        }
        require(published == {"127.0.0.1"}, f"{service} is published on the loopback interface")
    require(stack.inspect("export")["State"]["ExitCode"] == 0, "export has filled the repository")


def check_captions(stack: Stack, picture: Path) -> None:
    begin("captions")
    with OFAClient(f"127.0.0.1:{stack.ports['server']}", timeout=60) as client:
        require(client.caption(picture).text == _CAPTION, f"gRPC: {_CAPTION}")
    image = base64.b64encode(picture.read_bytes()).decode()
    answer = json.loads(_http(stack, "gateway", "/v1/captions", json.dumps({"image": image})))
    require(answer["captions"][0]["text"] == _CAPTION, f"gateway: {_CAPTION}")
    require(b"<html" in _http(stack, "gateway", "/"), "the gateway has its page")
    ready = json.loads(_http(stack, "gateway", "/readyz"))
    require(ready == {"status": "ready"}, "the gateway is ready")


def check_prometheus(stack: Stack, root: Path) -> None:
    begin("prometheus")

    def up() -> bool:
        targets = _prometheus(stack, "/api/v1/targets")["activeTargets"]
        return {target["labels"]["job"] for target in targets if target["health"] == "up"} == {
            "ofa-triton",
            "ofa-gateway",
        }

    wait_until(up, "server and gateway are up as targets")
    file = root / "kubernetes" / "ofa-triton" / "files" / "rules.yaml"
    rules = [
        rule
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]
    names = sorted(rule.get("record") or rule["alert"] for rule in rules)

    def evaluated() -> list[str]:
        groups = _prometheus(stack, "/api/v1/rules")["groups"]
        return sorted(
            rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "ok"
        )

    wait_until(lambda: evaluated() == names, f"all {len(names)} rules are loaded and evaluated")


def check_load(stack: Stack) -> None:
    begin("load")
    report = stack.compose(
        *("--profile", "load", "run", "--rm", "--no-TTY", "load"),
        *("--server", "server:8001", "--users", "4", "--seconds", "5"),
    )
    require("caption_generator" in report, "a short run was answered without a failure")

    def answers() -> float:
        rows = _prometheus(stack, "/api/v1/query?query=model:ofa_answers:rate5m")["result"]
        return sum(float(row["value"][1]) for row in rows if row["metric"]["model"] == "caption")

    wait_until(lambda: answers() > 0, "and is seen by Prometheus as answers a second")


def check_drain(stack: Stack, picture: Path) -> None:
    begin("drain")
    container = stack.container("server")
    stack.engine.docker("exec", container, "python3", "-c", _READY)
    stack.engine.docker("kill", "--signal", "TERM", container)

    def is_ready() -> bool:
        try:
            stack.engine.docker("exec", container, "python3", "-c", _READY)
        except CheckError:
            return False
        return True

    wait_until(lambda: not is_ready(), "after SIGTERM the server is not ready", patience=5)
    with OFAClient(f"127.0.0.1:{stack.ports['server']}", timeout=60) as client:
        require(client.caption(picture).text == _CAPTION, "while it drains it still answers")
    require(stack.engine.docker("wait", container).strip() == "0", "then it ends with status 0")
    stack.compose("stop", "gateway")
    require(stack.inspect("gateway")["State"]["ExitCode"] == 0, "so does the gateway")


def _http(stack: Stack, service: str, path: str, body: str | None = None) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.ports[service]}{path}",
        data=body.encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def _prometheus(stack: Stack, path: str) -> dict[str, Any]:
    return dict(json.loads(_http(stack, "prometheus", path))["data"])
