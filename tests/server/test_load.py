"""The load test against a server, for a moment: each kind of loop, every outcome, and the gate."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from load_tests.plan import Stage
from load_tests.schedule import arrivals
from load_tests.triton_statistics import read_statistics
from ofa_server.background import free_ports
from ofa_server.repository import MEMBERS
from tests.server.conftest import ENGLISH
from tests.server.processes import OFA, ServeProcess, descendants, serving, wait_until
from tests.server.requests import encoded, picture

RUN = Path(__file__).parents[2] / "load_tests" / "run.py"
TIMEOUT_S = 300
#: Models that each take part once in every request for a caption.
CAPTION_MODELS = ("caption", *(f"caption_{member}" for member in MEMBERS))


@pytest.fixture(scope="module")
def load_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """The bundled checkpoint, with two of its tasks."""
    repository = tmp_path_factory.mktemp("repository")
    for export in ([ENGLISH], [ENGLISH, "--configuration", ENGLISH / "tasks" / "vqa.json"]):
        command = [OFA, "export", *export, "--precision", "float32", "--repository", repository]
        subprocess.run(command, check=True, timeout=180)
    with serving(repository, tmp_path_factory.mktemp("logs") / "load.log") as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(encoded(picture(seed)))
    return folder


def run_load(
    servers: list[str], pictures: Path, *settings: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RUN, "--server", *servers, "--pictures", pictures]
    return subprocess.run(
        [*command, "--timeout", str(TIMEOUT_S), *settings],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * TIMEOUT_S,
    )


def report_of(
    server: ServeProcess, pictures: Path, tmp_path: Path, *settings: str, exit_code: int = 0
) -> dict[str, Any]:
    """The summary of a run that ends with a code."""
    place = ["--report", str(tmp_path / "report")]
    finished = run_load([server.grpc_address], pictures, *place, *settings)
    assert finished.returncode == exit_code, finished.stdout
    loaded: dict[str, Any] = json.loads((tmp_path / "report" / "report.json").read_text())
    return loaded


def profile(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "profile.toml"
    file.write_text(text)
    return ["--profile", str(file)]


def requests_of(report: dict[str, Any], model: str) -> int:
    return int(report["triton"][model]["num_requests"])


def count_captions(server: ServeProcess) -> int:
    return read_statistics(server.grpc_address)["caption"].num_requests


CLOSED = ["--users", "3", "--seconds", "3"]
OPEN = ["--rate", "5", "--seconds", "4"]
TWO_PROCESSES = ["--", "--processes", "2"]


@pytest.mark.parametrize(
    "load",
    [CLOSED, OPEN, [*CLOSED, *TWO_PROCESSES], [*OPEN, *TWO_PROCESSES]],
    ids=["closed", "open", "closed-processes", "open-processes"],
)
def test_locust_and_triton_count_the_same_requests(
    load: list[str], load_server: ServeProcess, pictures: Path, tmp_path: Path
) -> None:
    report = report_of(load_server, pictures, tmp_path, *load)
    total = report["whole"]["total"]
    assert total["answered"] == total["sent"] >= 3
    assert {model: requests_of(report, model) for model in CAPTION_MODELS} == dict.fromkeys(
        CAPTION_MODELS, total["sent"]
    )
    assert report["generator"]["num_processes"] == (2 if "--" in load else 1)
    assert report["generator"]["cores"] > 0
    # What a caller waits for is at least what the server spends.
    assert total["mean_ms"] >= report["whole"]["triton"]["caption"]["total_ms"]


def test_all_processes_together_send_the_schedule(
    load_server: ServeProcess, pictures: Path, tmp_path: Path
) -> None:
    alone, together = (
        report_of(load_server, pictures, tmp_path, *OPEN, *more)["whole"]["total"]["sent"]
        for more in ([], ["--", "--processes", "3"])
    )
    assert alone == together


@contextmanager
def two_workers(tmp_path: Path) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[str]]]:
    """As on several machines: workers that are started by themselves, and their master's words."""
    [port] = free_ports(1)
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", str(RUN.with_name("locustfile.py"))),
        *("--worker", "--master-host", "127.0.0.1", "--master-port", str(port)),
    ]
    with (tmp_path / "workers.log").open("wb") as log:
        workers = [subprocess.Popen(command, stdout=log, stderr=log) for _ in range(2)]
    try:
        yield workers, ["--", "--master", "--expect-workers", "2", "--master-bind-port", str(port)]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_workers_join_a_master(load_server: ServeProcess, pictures: Path, tmp_path: Path) -> None:
    with two_workers(tmp_path) as (workers, as_master):
        report = report_of(load_server, pictures, tmp_path, *CLOSED, *as_master)
        for worker in workers:
            worker.wait(60)
    assert report["generator"]["num_processes"] == 2
    assert report["whole"]["total"]["sent"] == requests_of(report, "caption") >= 3


def test_a_lost_worker_fails_the_run(
    load_server: ServeProcess, pictures: Path, tmp_path: Path
) -> None:
    before = count_captions(load_server)
    load = ["--rate", "4", "--seconds", "10"]
    with two_workers(tmp_path) as (workers, as_master), ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_load, [load_server.grpc_address], pictures, *load, *as_master)
        wait_until(lambda: count_captions(load_server) > before, "the first request", TIMEOUT_S)
        workers[0].kill()
        finished = run.result()
    assert finished.returncode == 1, finished.stdout
    assert "MISSED   workers lost, and their share of the load: 1 (at most 0)" in finished.stdout


MIX = """
stages = [{ seconds = 2, users = 2 }, { seconds = 2 }, { seconds = 2, users = 4 }]
requests = [
  { task = "caption", weight = 2, options = { num_captions = 2 } },
  { task = "caption", pictures = "large" },
  { task = "caption", pictures = "bad" },
  { task = "vqa", text = "how many things are there?" },
]
"""


def test_a_mix_in_stages_with_bad_pictures(
    load_server: ServeProcess, pictures: Path, tmp_path: Path
) -> None:
    report = report_of(load_server, pictures, tmp_path, *profile(tmp_path, MIX))
    rows = report["whole"]["rows"]
    assert list(rows) == ["caption", "caption, large pictures", "caption, bad pictures", "vqa"]
    bad = rows.pop("caption, bad pictures")
    assert bad["sent"] == bad["refused"] >= 1
    assert all(row["sent"] == row["answered"] >= 1 for row in rows.values())
    assert report["errors"] == {}
    captions = rows["caption"]["sent"] + rows["caption, large pictures"]["sent"]
    assert requests_of(report, "caption_generator") == captions
    assert requests_of(report, "vqa_generator") == rows["vqa"]["sent"]
    assert requests_of(report, "caption_preprocess") == captions + bad["sent"]
    first, pause, last = (stage["total"]["sent"] for stage in report["stages"])
    assert pause == 0
    assert first > 0 < last
    with (tmp_path / "report" / "report.csv").open() as file:
        counted = {row["request"]: row["sent"] for row in csv.DictReader(file)}
    assert set(counted) == {*rows, "caption, bad pictures"}
    assert (tmp_path / "report" / "locust.html").stat().st_size > 0


def test_a_picture_that_should_not_be_refused_fails_the_run(
    load_server: ServeProcess, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    finished = run_load([load_server.grpc_address], tmp_path, *CLOSED)
    assert finished.returncode == 1, finished.stdout
    assert "InvalidImageError: image cannot be read" in finished.stdout
    assert "MISSED   share of errors: 1 (at most 0)" in finished.stdout


def test_a_bad_picture_that_is_answered_fails_the_run(
    load_server: ServeProcess, tmp_path: Path
) -> None:
    # Half of a file that ends after its first frame is a good picture.
    frames = [picture(seed).convert("P") for seed in range(4)]
    for number in range(8):
        frames[0].save(tmp_path / f"{number}.gif", save_all=True, append_images=frames[1:])
    text = """
    stages = [{ seconds = 2, users = 4 }]
    requests = [{ task = "caption", pictures = "bad" }]
    """
    settings = profile(tmp_path, text)
    report = report_of(load_server, tmp_path, tmp_path, *settings, exit_code=1)
    assert set(report["errors"]) == {"NotRefusedError: a bad picture was not refused"}
    assert report["whole"]["total"]["failed"] >= 1


@pytest.mark.parametrize(
    ("limit", "missed"),
    [
        ("requests = [{ p50_ms = 0.001 }]", "caption: p50, ms"),
        ("slo = { min_per_second = 1e6 }", "answers a second"),
    ],
)
def test_the_gate_fails_a_run_that_misses_a_limit(
    limit: str, missed: str, load_server: ServeProcess, pictures: Path, tmp_path: Path
) -> None:
    text = f"{limit}\nstages = [{{ seconds = 1, users = 1 }}]"
    report = report_of(load_server, pictures, tmp_path, *profile(tmp_path, text), exit_code=1)
    assert [check["what"] for check in report["checks"] if not check["is_met"]] == [missed]
    assert "failed</span>" in (tmp_path / "report" / "report.html").read_text()


def test_a_server_that_stands_still_cannot_hide_its_queue(
    load_server: ServeProcess, pictures: Path, tmp_path: Path
) -> None:
    """Open loop: what is due meanwhile is sent, and waits from the moment at which it was due."""
    rate, seconds, stopped_s = 10, 6, 3.0
    [triton] = [
        pid
        for pid, command in descendants(load_server.process.pid).items()
        if Path(command[0]).name == "tritonserver"
    ]
    before = count_captions(load_server)
    load = ["--rate", str(rate), "--seconds", str(seconds), "--report", str(tmp_path)]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_load, [load_server.grpc_address], pictures, *load)
        wait_until(lambda: count_captions(load_server) > before, "the first request", TIMEOUT_S)
        os.kill(triton, signal.SIGSTOP)
        try:
            time.sleep(stopped_s)
        finally:
            os.kill(triton, signal.SIGCONT)
    assert run.result().returncode == 0, run.result().stdout
    total = json.loads((tmp_path / "report.json").read_text())["whole"]["total"]
    # Nothing was left out because nobody answered ...
    due = list(arrivals([Stage(seconds, rate=rate)], "poisson", seed=0))
    assert total["answered"] == len(due)
    # ... and more than one in twenty had to wait for half of the time at least.
    assert total["p95_ms"] >= 1000 * stopped_s / 2


def test_two_servers_share_the_load(
    load_server: ServeProcess, pictures: Path, tmp_path: Path
) -> None:
    with serving(load_server.repository, tmp_path / "second.log") as second:
        addresses = [load_server.grpc_address, second.grpc_address]
        finished = run_load(addresses, pictures, *CLOSED, "--report", str(tmp_path))
    assert finished.returncode == 0, finished.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert requests_of(report, "caption") == report["whole"]["total"]["sent"]


def test_a_server_that_is_not_there_fails_the_run(pictures: Path) -> None:
    finished = run_load(["127.0.0.1:1"], pictures, *CLOSED)
    assert finished.returncode == 1, finished.stdout
    assert "127.0.0.1:1: no answer" in finished.stdout


@pytest.mark.parametrize("more", [[], TWO_PROCESSES], ids=["alone", "processes"])
def test_pictures_that_cannot_be_scaled_end_the_run(
    more: list[str], load_server: ServeProcess, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_bytes(b"not a picture")
    text = 'stages = [{ seconds = 1, users = 2 }]\nrequests = [{ pictures = "large" }]'
    settings = profile(tmp_path, text)
    finished = run_load([load_server.grpc_address], tmp_path, *settings, *more)
    assert finished.returncode == 1, finished.stdout
    assert "cannot identify image file" in finished.stdout
    assert "Locust has failed: nothing was sent" in finished.stdout


def test_a_command_that_makes_no_sense_is_refused(pictures: Path, tmp_path: Path) -> None:
    for settings, message in (
        (["--profile", "nothing"], "nothing: No such file or directory"),
        (["--task", "sing"], "there is no task 'sing'"),
        (["--profile", "smoke", "--seconds", "3"], "--seconds and --task are for runs without"),
        (["--users", "0"], "no stage has users or a rate"),
    ):
        finished = run_load(["127.0.0.1:1"], pictures, *settings)
        assert finished.returncode == 2, finished.stdout
        assert message in finished.stdout
