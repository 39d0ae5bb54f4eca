"""`ofa serve` as a child of a scenario: started, waited for, killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from benchmarks.common import ROOT
from chaos.processes import is_alive, kind, tree
from ofa_server.background import free_ports

#: For logs, and for whatever else a scenario writes.
OUTPUT = ROOT / "build" / "chaos"
OFA = Path(sys.executable).with_name("ofa")
CHECKPOINT = ROOT / "checkpoints" / "ofa-emoji-tiny_en"
START_DEADLINE_S = 120
#: More than `ofa serve` allows Triton for ending its requests.
STOP_DEADLINE_S = 60
_POLL_INTERVAL_S = 0.02
_PROBE_TIMEOUT_S = 5
#: Before a server that has ended is started once more.
_RESTART_S = 1.0
_NUM_LOG_LINES = 30


class ChaosError(Exception):
    """A scenario cannot go on: what it needs did not happen."""


class Server:
    """One `ofa serve` on free ports of its own; its output and Triton's are in `log`."""

    def __init__(
        self,
        repository: Path,
        name: str,
        arguments: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        """Makes a server that does not run yet.

        Args:
            repository: folder of models.
            name: of the log.
            arguments: for `ofa serve`.
            prefix: what is put in front of the command, such as `taskset`.
        """
        OUTPUT.mkdir(parents=True, exist_ok=True)
        self.log = OUTPUT / f"{name}.log"
        self.grpc_port, self.metrics_port, self.health_port = free_ports(3)
        self._command = [
            *(*prefix, str(OFA), "serve", "--repository", str(repository)),
            *("--grpc-port", str(self.grpc_port), "--http-port", "0"),
            *("--metrics-port", str(self.metrics_port), "--health-port", str(self.health_port)),
            *arguments,
        ]
        self.process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """HOST:PORT of the gRPC port."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def output(self) -> str:
        """Everything that was said since the last start."""
        return self.log.read_text(errors="replace")

    @property
    def last_sentence(self) -> str:
        """The last line that `ofa serve` itself has said; empty if there is none."""
        said = [line for line in self.output.splitlines() if line.startswith("ofa serve: ")]
        return said[-1].removeprefix("ofa serve: ") if said else ""

    def start(self) -> None:
        """Start the server, and do not wait."""
        # What is left of one that was killed goes on writing to its own file.
        self.log.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches us alone, and we stop it in order.
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until the server says so.

        Raises:
            ChaosError: it has ended instead, or takes too long.
        """
        wait_until(
            lambda: self.is_ready or self.process.poll() is not None, "ready", START_DEADLINE_S
        )
        if self.process.poll() is not None:
            end = "\n".join(self.output.splitlines()[-_NUM_LOG_LINES:])
            raise ChaosError(f"ofa serve has ended; the end of {self.log}:\n{end}")

    @property
    def is_ready(self) -> bool:
        """Whether the server has said so."""
        return any(line.startswith("ready: ") for line in self.output.splitlines())

    def health(self, path: str) -> int:
        """HTTP status of the health port at a path, such as /ready; 0 where nobody answers."""
        return http_status(f"http://127.0.0.1:{self.health_port}{path}")

    def start_until_ready(self) -> None:
        """Start the server, again and again if it ends, as whoever watches over servers does.

        Raises:
            ChaosError: it is not ready within the deadline.
        """
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            self.start()
            wait_until(
                lambda: self.is_ready or self.process.poll() is not None, "ready", START_DEADLINE_S
            )
            if self.process.poll() is None:
                return
            if time.monotonic() > deadline:
                raise ChaosError(f"ofa serve has ended again and again; see {self.log}")
            time.sleep(_RESTART_S)

    def pids(self, wanted: str) -> list[int]:
        """Processes of one kind, as `chaos.processes.kind` names them."""
        return [pid for pid in tree(self.process.pid) if kind(pid) == wanted]

    def stop(self) -> None:
        """Let the server end in order; kill what does not end."""
        pids = tree(self.process.pid)
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


def is_listening(port: int) -> bool:
    """Whether a port of the loopback interface takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def http_status(url: str) -> int:
    """Status of the answer to a GET; 0 where nobody answers."""
    try:
        with urlopen(url, timeout=_PROBE_TIMEOUT_S) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@contextmanager
def serving(*servers: Server) -> Iterator[None]:
    """Starts servers, waits until all are ready, and stops them at the end of the block."""
    with ExitStack() as stack:
        for server in servers:
            server.start()
            stack.callback(server.stop)
        for server in servers:
            server.wait_until_ready()
        yield


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float) -> float:
    """Wait until a condition holds, and return the seconds that it took.

    Raises:
        ChaosError: it does not within `deadline_s`.
    """
    start = time.monotonic()
    while not condition():
        if time.monotonic() > start + deadline_s:
            raise ChaosError(f"{what}: not within {deadline_s:g} s")
        time.sleep(_POLL_INTERVAL_S)
    return time.monotonic() - start
