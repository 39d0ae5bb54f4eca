"""What fails when a process is killed under load (kill -9), who notices, and what comes then?

Every process of a server in turn, with plain gRPC calls that are not sent again; whoever watches
over the server does what Docker or Kubernetes do, and starts it again when it has ended. Then the
same with two servers and `ofa_client`. Then a client, a worker of a load test, and the gateway.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.serving import linked
from chaos.figures import Figure, at_most, none
from chaos.load import Load, Outcome, failed
from chaos.processes import is_alive, shared_memory, tree, usage
from chaos.servers import (
    OFA,
    START_DEADLINE_S,
    STOP_DEADLINE_S,
    Server,
    http_status,
    serving,
    wait_until,
)
from load_tests.triton_statistics import read_statistics, subtract
from ofa_server.background import free_ports

#: Processes of a server, as `chaos.processes.kind` names them, and as people do.
_KINDS = {
    "preprocess": "preprocess",
    "postprocess": "postprocess",
    "generator": "generator",
    "Triton": "Triton",
    "ofa serve": "`ofa serve`",
}
#: Requests a second: far below the capacity, so that nothing is refused for another reason.
_RATE = 10.0
#: Of load before and after each kill.
_SETTLE_S = 2.0
_NUM_CLIENTS = 60
_ANSWER_DEADLINE_S = 120.0
_LOAD_TEST_S = 10


@dataclass(frozen=True)
class _Aftermath:
    """What came of a kill. The times are seconds since it.

    Attributes:
        until_not_live: until the health port said so, or was gone.
        until_ended: until `ofa serve` had ended.
        status: that it ended with.
        sentence: that it said last.
        until_ready: until it was ready again.
        processes: of before that still run.
        regions: of before in /dev/shm that are still there.
    """

    until_not_live: float
    until_ended: float
    status: int
    sentence: str
    until_ready: float
    processes: int
    regions: int


def run(repository: Path, quick: bool) -> list[Figure]:
    """Kills processes of servers of its own."""
    kinds = list(_KINDS)[:1] if quick else list(_KINDS)
    with linked(repository, "caption") as own:
        first, second = Server(own, "kills-first"), Server(own, "kills-second")
        with serving(first):
            figures = _one_server(first, kinds)
            if not quick:
                figures += [*_client(first), *_load_worker(first), *_gateway(first)]
                with serving(second):
                    figures += _two_servers([first, second], kinds)
    return figures


def _one_server(server: Server, kinds: Sequence[str]) -> list[Figure]:
    figures, aftermaths = [], []
    for kind in kinds:
        with Load([server.address], rate=_RATE) as load:
            time.sleep(_SETTLE_S)
            killed_at = time.monotonic()
            aftermath = _kill(server, kind)
            back_at = _next_answer(load, killed_at + aftermath.until_ended)
            outcomes = load.finish()
        aftermaths.append(aftermath)
        killed = f"{_KINDS[kind]} killed"
        said = f"status {aftermath.status}: {aftermath.sentence}".removesuffix(": ")
        figures += [
            at_most(f"{killed}: probes of `/live` fail after", aftermath.until_not_live, 1, "s"),
            at_most(f"{killed}: `ofa serve` has ended after", aftermath.until_ended, 10, "s", said),
            at_most(
                f"{killed}: answers again after", back_at - killed_at, 60, "s", _failures(outcomes)
            ),
        ]
    return [
        *figures,
        none("processes left behind", sum(each.processes for each in aftermaths)),
        none("regions left in /dev/shm", sum(each.regions for each in aftermaths)),
    ]


def _two_servers(servers: Sequence[Server], kinds: Sequence[str]) -> list[Figure]:
    addresses = [server.address for server in servers]
    with Load(addresses, rate=_RATE, by="client") as load:
        for number, kind in enumerate(kinds):
            time.sleep(_SETTLE_S)
            _kill(servers[number % len(servers)], kind)
        time.sleep(_SETTLE_S)
        outcomes = load.finish()
    return [
        none(
            "two servers and `ofa_client`, each of these killed in turn: failed calls",
            len(failed(outcomes)),
            f"{len(outcomes):,} calls",
        )
    ]


def _kill(server: Server, kind: str) -> _Aftermath:
    """Kills one process of a server, and starts the server again until it is ready."""
    processes, regions = tree(server.process.pid), shared_memory(server.process.pid)
    killed_at = time.monotonic()
    os.kill(server.pids(kind)[0], signal.SIGKILL)
    wait_until(lambda: server.health("/live") != 200, "a failing probe", STOP_DEADLINE_S)
    until_not_live = time.monotonic() - killed_at
    status = server.process.wait(STOP_DEADLINE_S)
    until_ended, sentence = time.monotonic() - killed_at, server.last_sentence
    server.start_until_ready()
    return _Aftermath(
        until_not_live,
        until_ended,
        status,
        sentence,
        time.monotonic() - killed_at,
        sum(is_alive(pid) for pid in processes),
        sum(region.exists() for region in regions),
    )


def _next_answer(load: Load, after: float) -> float:
    """When the first request was answered that was sent after a moment."""
    answers: list[float] = []

    def look() -> bool:
        answers.extend(each.ended for each in load.outcomes() if each.is_ok and each.sent > after)
        return bool(answers)

    wait_until(look, "an answer", _ANSWER_DEADLINE_S)
    return min(answers)


def _failures(outcomes: Sequence[Outcome]) -> str:
    codes = Counter(each.code for each in failed(outcomes)).most_common()
    counts = ", ".join(f"{count} {code}" for code, count in codes)
    return f"failed of {len(outcomes)} calls: {counts or 'none'}"


def _client(server: Server) -> list[Figure]:
    """A client with many requests under way is killed beside another."""
    [triton] = server.pids("Triton")
    with Load([server.address], rate=_RATE / 2) as other:
        time.sleep(_SETTLE_S)
        handles = usage(triton).handles
        with Load([server.address], clients=_NUM_CLIENTS) as load:
            time.sleep(_SETTLE_S)
            load.process.kill()
            until_gone = wait_until(
                lambda: usage(triton).handles <= handles, "its connections gone", STOP_DEADLINE_S
            )
        time.sleep(_SETTLE_S)
        outcomes = other.finish()
    killed = f"a client with {_NUM_CLIENTS} calls under way killed"
    return [
        none(f"{killed}: failed calls of its neighbour", len(failed(outcomes))),
        at_most(f"{killed}: the server has closed its connections after", until_gone, 10, "s"),
    ]


def _load_worker(server: Server) -> list[Figure]:
    """One of two Locust workers is killed while a load test runs."""
    [port] = free_ports(1)
    folder = ROOT / "load_tests"
    worker_command = [
        *(sys.executable, "-m", "locust", "--locustfile", str(folder / "locustfile.py")),
        *("--worker", "--master-host", "127.0.0.1", "--master-port", str(port)),
    ]
    command = [
        *(sys.executable, str(folder / "run.py"), "--server", server.address),
        *("--rate", str(_RATE), "--seconds", str(_LOAD_TEST_S)),
        *("--", "--master", "--expect-workers", "2", "--master-bind-port", str(port)),
    ]
    nowhere = subprocess.DEVNULL
    before = read_statistics(server.address)
    workers = [
        subprocess.Popen(worker_command, cwd=ROOT, stdout=nowhere, stderr=nowhere) for _ in range(2)
    ]
    test = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_until(
            lambda: bool(subtract(read_statistics(server.address), before)),
            "a request of the load test",
            START_DEADLINE_S,
        )
        workers[0].kill()
        said, _ = test.communicate(timeout=_LOAD_TEST_S + START_DEADLINE_S)
    finally:
        test.kill()
        test.wait()
        for worker in workers:
            worker.kill()
            worker.wait()
    about = [line.strip() for line in said.splitlines() if "worker" in line]
    return [
        Figure(
            "a load worker killed: the load test's status",
            test.returncode,
            bound="1",
            within=test.returncode == 1 and "workers lost" in said,
            note=about[-1] if about else "it says nothing of it",
        )
    ]


def _gateway(server: Server) -> list[Figure]:
    """The gateway is killed beside a client that asks the server itself, and started again."""
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [OFA, "gateway", "--server", server.address, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready = f"http://{address}/readyz"
        wait_until(lambda: http_status(ready) == 200, "a ready gateway", START_DEADLINE_S)
        return process

    process = start()
    try:
        with (
            Load([server.address], rate=_RATE / 2) as beside,
            Load([address], rate=_RATE / 2, by="gateway") as load,
        ):
            time.sleep(_SETTLE_S)
            killed_at = time.monotonic()
            process.kill()
            process.wait()
            process = start()
            back_at = _next_answer(load, killed_at)
            failures = _failures(load.finish())
            outcomes = beside.finish()
    finally:
        process.terminate()
        process.wait(STOP_DEADLINE_S)
    return [
        at_most("gateway killed: answers again after", back_at - killed_at, 60, "s", failures),
        none("gateway killed: failed calls of a client of the server", len(failed(outcomes))),
    ]
