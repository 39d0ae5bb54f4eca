"""Load from a process of its own, and how its requests ended."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.common import ROOT
from chaos.processes import cpu_seconds
from chaos.servers import ChaosError, wait_until

#: For the first answer. A server with a full queue takes its time.
_FIRST_DEADLINE_S = 60
#: For the answers that are under way at the end: the patience of a request and some more.
_LAST_DEADLINE_S = 150


@dataclass(frozen=True)
class Outcome:
    """How one request ended. The times are seconds of the system's monotonic clock.

    Attributes:
        due: when it was to be sent.
        sent: when it was.
        ended: when its answer or its refusal was there.
        code: gRPC's status, the name of `ofa_client`'s error, or HTTP's status.
        details: the message of either.
    """

    due: float
    sent: float
    ended: float
    code: str
    details: str

    @property
    def seconds(self) -> float:
        """What the caller has waited, counted from when it wanted to send."""
        return self.ended - self.due

    @property
    def is_ok(self) -> bool:
        """Whether it was answered, or refused for a fault of its own that was expected."""
        return self.code in {"OK", "EXPECTED"}


@dataclass
class Load:
    """Requests to one or several servers while the block runs.

    Attributes:
        servers: HOST:PORT of each.
        mix: name of what is sent, of `chaos.mixes`.
        rate: arrivals a second, whatever becomes of them; None for clients that wait.
        clients: how many of those.
        by: "grpc" for plain calls that are not sent again, "client" for `ofa_client`, "gateway" for
            HTTP; then `servers` has the gateway's HOST:PORT.
        prefix: what is put in front of the command, such as `taskset`.
    """

    servers: Sequence[str]
    mix: str = "captions"
    rate: float | None = None
    clients: int | None = None
    by: str = "grpc"
    prefix: Sequence[str] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        """Starts it and waits for its first answer."""
        self._folder = tempfile.TemporaryDirectory(prefix="ofa-chaos-")
        self._file = Path(self._folder.name) / "outcomes"
        amount = ["--rate", str(self.rate)] if self.rate else ["--clients", str(self.clients)]
        command = [
            *(*self.prefix, sys.executable, "-m", "chaos.load_process", *self.servers),
            *("--by", self.by, "--mix", self.mix, *amount, "--outcomes", str(self._file)),
        ]
        # Ctrl-C reaches us alone.
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_until(self._has_begun, "a first answer", _FIRST_DEADLINE_S)
        except BaseException:
            self.__exit__()
            raise
        self._cpu, self._since = cpu_seconds(self.process.pid), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it, whatever is under way."""
        self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def _has_begun(self) -> bool:
        if self.process.poll() is not None:
            raise ChaosError("the load has ended at its start")
        return self._file.exists() and self._file.stat().st_size > 0

    @property
    def cores(self) -> float:
        """Processor cores that it has kept busy on average since its first answer."""
        used = cpu_seconds(self.process.pid) - self._cpu
        return used / (time.monotonic() - self._since)

    def outcomes(self) -> list[Outcome]:
        """Of the requests that have ended so far."""
        lines = self._file.read_text().split("\n")[:-1]  # the last can be half a line
        return [Outcome(*json.loads(line)) for line in lines]

    def finish(self) -> list[Outcome]:
        """Send no more, wait for those under way, and return all outcomes."""
        self.process.terminate()
        if status := self.process.wait(_LAST_DEADLINE_S):
            raise ChaosError(f"the load has ended with status {status}")
        return self.outcomes()


def between(outcomes: Iterable[Outcome], start: float, end: float) -> list[Outcome]:
    """Those that were due within a time."""
    return [outcome for outcome in outcomes if start <= outcome.due < end]


def failed(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that were not answered."""
    return [outcome for outcome in outcomes if not outcome.is_ok]


def percentile_ms(outcomes: Iterable[Outcome], percent: float) -> float:
    """What that share of the callers waited at most, in milliseconds.

    Raises:
        ChaosError: there is no outcome.
    """
    seconds = [outcome.seconds for outcome in outcomes]
    if not seconds:
        raise ChaosError("there is nothing whose times could be told")
    return 1000 * float(np.percentile(seconds, percent))
