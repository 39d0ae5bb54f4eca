"""What a server tells of itself: figures, rules and dashboard over them, traces, log lines."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as grpcclient
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from ofa_client import InvalidImageError, OFAClient
from tests.server.collector import Collector, collecting
from tests.server.processes import ServeProcess, bare_triton, serving, wait_until
from tests.server.prometheus import Prometheus, prometheus_scraping
from tests.server.requests import (
    TIMEOUT_S,
    caption,
    encoded,
    headed_png,
    picture,
    refusal,
    request_inputs,
)

FILES = Path(__file__).parents[2] / "kubernetes" / "ofa-triton" / "files"
RULES = FILES / "rules.yaml"
RULE_LIST: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text("utf-8"))
#: Panels that stay empty where there is no GPU; their queries are parsed all the same.
OF_GPUS = ("nv_gpu_utilization", "nv_gpu_memory_used_bytes")
#: A metric with its labels, and one without that no function and no keyword can be taken for.
SELECTOR = re.compile(r"[a-zA-Z_:][\w:]*\{[^}]*\}|\b(?:ofa_|model:|member:|job:)[\w:]+")

DEADLINE_S = 120
IMAGE = encoded(picture(0))


@pytest.fixture(scope="module")
def watched(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServeProcess, Collector]]:
    """A server with a cache, and the collector of its traces."""
    log = tmp_path_factory.mktemp("watched_logs") / "watched.log"
    with collecting() as collector:
        arguments = ["--response-cache-bytes", "1048576", "--otlp-endpoint", collector.url]
        with serving(repository, log, arguments) as server:
            yield server, collector


@pytest.fixture
def watched_server(watched: tuple[ServeProcess, Collector]) -> ServeProcess:
    return watched[0]


@pytest.fixture
def watched_client(watched_server: ServeProcess) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(watched_server.grpc_address) as connected:
        yield connected


def read_figures(metrics_port: int) -> dict[str, dict[str, float]]:
    """Samples of the metrics port: by name and model, and by what tells those of one apart."""
    url = f"http://127.0.0.1:{metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=60) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    figures: dict[str, dict[str, float]] = {}
    for sample in itertools.chain.from_iterable(family.samples for family in families):
        labels = sample.labels
        key = labels.get("outcome", "") + " " + labels.get("reason", labels.get("stage", ""))
        key = f"{key} {labels.get('le', '')}"
        figures.setdefault(f"{sample.name} {labels.get('model', '')}", {})[key.strip()] = (
            sample.value
        )
    return figures


def gained(
    server: ServeProcess, before: dict[str, dict[str, float]], name: str, model: str = "caption"
) -> dict[str, float]:
    """What each sample of a family has gained; what has gained nothing is left out."""
    now, then = read_figures(server.ports[2])[f"{name} {model}"], before[f"{name} {model}"]
    return {key: value - then[key] for key, value in now.items() if value != then[key]}


def has_settled(server: ServeProcess) -> bool:
    """Whether the figures hold all warm-up requests: two of each process, one of `ofa serve`."""
    figures = read_figures(server.ports[2])
    return (
        figures["ofa_requests_total caption"]["ok none"] >= 3
        and figures["ofa_preprocess_stage_runs_total caption"]["resize"] >= 5
    )


def test_every_outcome_is_counted_once_and_both_processes_add_up(
    watched_server: ServeProcess, watched_client: grpcclient.InferenceServerClient
) -> None:
    wait_until(lambda: has_settled(watched_server), "the warm-up's figures", DEADLINE_S)
    before = read_figures(watched_server.ports[2])
    images = [encoded(picture(number)) for number in range(100, 124)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: caption(watched_client, image), images))
    for bad in (b"no picture", b"", headed_png(4000, 4000)):
        refusal(watched_client, "caption", request_inputs(image=bad))
    for options in ({"beam_size": 99}, {"max_length": 0}):
        refusal(watched_client, "caption", request_inputs(image=IMAGE, **options))
    expected = {
        "ok none": 24,
        "refused unreadable_image": 2,
        "refused image_too_large": 1,
        "refused invalid_option": 2,
    }
    wait_until(
        lambda: gained(watched_server, before, "ofa_requests_total") == expected,
        "the figures of 29 requests",
        DEADLINE_S,
    )
    runs = gained(watched_server, before, "ofa_preprocess_stage_runs_total")
    # An option is refused before the picture is looked at.
    assert runs == {"admission": 29, "decode": 27, "resize": 24, "tokenize": 24}
    lengths = [len(answer.token_log_probs[0]) - 1 for answer in answers]
    assert gained(watched_server, before, "ofa_answer_tokens_count") == {"": 24}
    assert gained(watched_server, before, "ofa_answer_tokens_sum") == {"": sum(lengths)}
    # What the rules rely on: Triton counts a failure of an ensemble twice. The parser adds _total.
    assert gained(watched_server, before, "nv_inference_request_failure_total") == {"OTHER": 10}


def test_the_checkpoint_is_told(watched_server: ServeProcess, repository: Path) -> None:
    manifest = json.loads((repository / "caption" / "1" / "manifest.json").read_text())
    url = f"http://127.0.0.1:{watched_server.ports[2]}/metrics"
    with urllib.request.urlopen(url, timeout=60) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    [info] = [family for family in families if family.name == "ofa_model_info"]
    [sample] = info.samples
    assert sample.value == 1
    assert sample.labels == {
        "model": "caption",
        "version": "1",
        "task": manifest["task"],
        "language": manifest["language"],
        "checkpoint": manifest["checkpoint"],
        "weights": manifest["weights_sha256"][:12],
        "precision": "float32",
        "device": "cpu",
        "torch": manifest["versions"]["torch"],
    }


def test_figures_go_with_their_model_and_come_back(repository: Path, tmp_path: Path) -> None:
    members = tmp_path / "repository"
    shutil.copytree(repository / "caption_preprocess", members / "caption_preprocess")
    arguments = ["--model-control-mode=explicit", "--load-model=caption_preprocess"]
    python_bin = Path(sys.executable).parent
    with (
        bare_triton(members, tmp_path, python_bin, arguments) as triton,
        grpcclient.InferenceServerClient(triton.address) as client,
    ):

        def refusals() -> float | None:
            families = read_figures(triton.metrics_port)
            return families.get("ofa_requests_total caption", {}).get("refused unreadable_image")

        def refuse(expected: int) -> None:
            refusal(client, "caption_preprocess", request_inputs(image=b"no picture"))
            wait_until(lambda: refusals() == expected, "a refusal's figure", DEADLINE_S)

        refuse(1)
        client.unload_model("caption_preprocess")
        wait_until(lambda: refusals() is None, "the end of the figures", DEADLINE_S)
        client.load_model("caption_preprocess")
        refuse(1)
        # Loaded again while it is loaded: the new processes are there before the old ones go.
        client.load_model("caption_preprocess")
        refusal(client, "caption_preprocess", request_inputs(image=b"no picture"))
        wait_until(lambda: (refusals() or 0) >= 1, "a refusal's figure", DEADLINE_S)


@pytest.fixture(scope="module")
def prometheus(
    watched: tuple[ServeProcess, Collector], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus with our rules, after a while of mixed requests."""
    server, _ = watched
    folder = tmp_path_factory.mktemp("prometheus")
    numbers = itertools.count(1000)

    def ask() -> None:
        # A fresh picture, one that the cache knows, and one that is none.
        for image in (encoded(picture(next(numbers))), IMAGE):
            caption(client, image)
        with pytest.raises(InferenceServerException):
            client.infer("caption", request_inputs(image=b"no picture"), client_timeout=TIMEOUT_S)

    def has_data(expression: str) -> bool:
        ask()
        return bool(running.query(expression))

    with (
        prometheus_scraping(server.ports[2], RULES, folder) as running,
        grpcclient.InferenceServerClient(server.grpc_address) as client,
    ):
        # A rate takes two scrapes, a rule another evaluation.
        for name in ("model:ofa_errors:ratio_rate6h", "model:ofa_answer_tokens:mean5m"):
            wait_until(lambda name=name: has_data(name), name, DEADLINE_S)  # type: ignore[misc]
        yield running


@pytest.mark.parametrize("name", [rule["record"] for rule in RULE_LIST if "record" in rule])
def test_every_recording_rule_has_data(prometheus: Prometheus, name: str) -> None:
    assert prometheus.query(name)


@pytest.mark.parametrize(
    "rule", [rule for rule in RULE_LIST if "alert" in rule], ids=lambda r: r["alert"]
)
def test_every_alert_looks_at_data(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    prometheus.query(rule["expr"])
    selectors = SELECTOR.findall(re.sub(r"(by|on) \([^)]*\)", "", rule["expr"]))
    assert selectors
    for selector in selectors:
        assert prometheus.query(selector), selector


def dashboard_queries() -> list[str]:
    queries = {
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    }
    return sorted(queries)


@pytest.mark.parametrize("query", dashboard_queries())
def test_every_panel_has_data(prometheus: Prometheus, query: str) -> None:
    samples = prometheus.query(query.replace("$job", ".+").replace("$model", ".+"))
    assert bool(samples) != query.startswith(OF_GPUS)


def test_the_dashboards_variables_have_values(prometheus: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(
                r"label_values\((.+), (\w+)\)", variable["definition"]
            ).groups()  # type: ignore[union-attr]
            series = prometheus.query(selector.replace("$job", ".+"))
            assert [sample["metric"][label] for sample in series], variable["name"]


def test_a_trace_leads_from_the_client_to_every_step(
    watched: tuple[ServeProcess, Collector],
) -> None:
    from opentelemetry import context, trace

    server, collector = watched
    trace_id, span_id = 0xA0B1C2D3E4F5061728394A5B6C7D8E9F, 0x0123456789ABCDEF
    ours = trace.SpanContext(trace_id, span_id, False, trace.TraceFlags(1))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(ours)))
    try:
        with OFAClient(server.grpc_address, timeout=TIMEOUT_S) as client:
            call = client.caption(encoded(picture(9))).call
    finally:
        context.detach(token)
    names = {
        "InferRequest",
        "caption",
        "caption_preprocess",
        "caption_generator",
        "caption_postprocess",
        "compute",
    }
    wait_until(lambda: set(collector.trace(f"{trace_id:032x}")) == names, "spans", DEADLINE_S)
    spans = collector.trace(f"{trace_id:032x}")
    [request], [ensemble] = spans["InferRequest"], spans["caption"]
    assert request["parentSpanId"] == f"{span_id:016x}"
    assert ensemble["parentSpanId"] == request["spanId"]
    steps = [spans[f"caption_{step}"] for step in ("preprocess", "generator", "postprocess")]
    assert [step["parentSpanId"] for [step] in steps] == [ensemble["spanId"]] * 3
    assert {each["parentSpanId"] for each in spans["compute"]} == {
        step["spanId"] for [step] in steps
    }
    attributes = {each["key"]: each["value"] for each in ensemble["attributes"]}
    assert attributes["triton.request_id"] == {"stringValue": call.request_id}


def test_a_refused_request_is_found_in_the_log_by_its_id(watched_server: ServeProcess) -> None:
    with (
        OFAClient(watched_server.grpc_address, timeout=TIMEOUT_S) as client,
        pytest.raises(InvalidImageError) as refused,
    ):
        client.caption(b"no picture")
    [line] = [
        line for line in watched_server.output.splitlines() if refused.value.request_id in line
    ]
    assert f"request '{refused.value.request_id}' was refused: image cannot be read" in line
