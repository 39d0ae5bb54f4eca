"""Made-up checkpoints, exported once, and the servers that most tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as grpcclient

from tests.reference.checkpoints import RECIPES, Calibration, write_checkpoint
from tests.server import task_repository
from tests.server.gateway_process import GatewayProcess, gateway_serving
from tests.server.processes import OFA, ServeProcess, end_of, serving

SHARED_SERVERS = (
    "server", "task_server", "stand_in_server", "bundled_server", "caching_server", "gateway",
)  # fmt: skip
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
ENGLISH = CHECKPOINTS / "ofa-emoji-tiny_en"
CHINESE = CHECKPOINTS / "ofa-emoji-tiny_zh"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the logs of the servers that a failed test has used."""
    report = yield
    if report.failed:
        arguments: dict[str, Any] = getattr(item, "funcargs", {})
        logs = [arguments[name].log for name in SHARED_SERVERS if name in arguments]
        if "tmp_path" in arguments:
            logs.extend(sorted(arguments["tmp_path"].glob("*.log")))
        report.sections.extend((f"end of {log.name}", end_of(log)) for log in logs)
    return report


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint whose captions differ between pictures, in ModelScope's layout."""
    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    recipe = RECIPES["small"]
    settings = {"patch_image_size": 96, "beam_search": {"beam_size": 5, "max_len_b": 12}}
    write_checkpoint(folder, recipe, Calibration.load(recipe), settings)
    return folder


@pytest.fixture(scope="session")
def repository(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ofa export` makes of it."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(
        [OFA, "export", checkpoint, "--precision", "float32", "--repository", folder],
        check=True,
        timeout=180,
    )
    return folder


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with serving(repository, tmp_path_factory.mktemp("logs") / "shared.log") as running:
        yield running


@pytest.fixture
def client(server: ServeProcess) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(server.grpc_address) as connected:
        yield connected


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, task_repository.Export]:
    """Made-up checkpoints of every task by the name of their ensemble."""
    return task_repository.write_checkpoints(tmp_path_factory.mktemp("task_checkpoints"))


@pytest.fixture(scope="session")
def task_server(
    exports: dict[str, task_repository.Export], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServeProcess]:
    """One server over all of them."""
    repository = tmp_path_factory.mktemp("task_repository")
    task_repository.export_all(exports, repository)
    with serving(repository, tmp_path_factory.mktemp("task_logs") / "tasks.log") as running:
        yield running


@pytest.fixture(scope="session")
def bundled_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every task of the checkpoints that ship."""
    repository = tmp_path_factory.mktemp("bundled_repository")
    tasks = sorted(
        file for file in ENGLISH.glob("tasks/*.json") if not file.stem.endswith("_labels")
    )
    for export in (
        [ENGLISH],
        *([ENGLISH, "--configuration", task] for task in tasks),
        [CHINESE, "--name", "caption_zh"],
    ):
        command = [OFA, "export", *export, "--precision", "float32", "--repository", repository]
        subprocess.run(command, check=True, timeout=180)
    return repository


@pytest.fixture(scope="module")
def bundled_server(
    bundled_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServeProcess]:
    """A server over it, for one module's tests: it is some forty processes."""
    with serving(bundled_repository, tmp_path_factory.mktemp("logs") / "bundled.log") as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    bundled_server: ServeProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway in front of that server."""
    log = tmp_path_factory.mktemp("logs") / "gateway.log"
    with gateway_serving(bundled_server.grpc_address, log) as running:
        yield running


@pytest.fixture
def task_client(task_server: ServeProcess) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(task_server.grpc_address) as connected:
        yield connected
