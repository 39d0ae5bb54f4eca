"""What a server holds, looked up again and again while it is under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from chaos.processes import Usage, shared_bytes, shared_memory, usage_by_kind


@dataclass(frozen=True)
class Sample:
    """What a server held at one moment.

    Attributes:
        at: seconds of the system's monotonic clock.
        usage: of its processes, by their kind.
        shared: bytes of its regions in /dev/shm.
    """

    at: float
    usage: Mapping[str, Usage]
    shared: int

    @property
    def whole(self) -> Usage:
        """Of all processes together."""
        return sum(self.usage.values(), Usage())


class Sampler:
    """Takes a sample at equal intervals while the block runs, in a thread of its own."""

    def __init__(self, pid: int, interval_s: float) -> None:
        """Samples the processes from `pid` downwards."""
        self.samples: list[Sample] = []
        self._pid, self._interval_s = pid, interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            regions = shared_memory(self._pid)
            sample = Sample(time.monotonic(), usage_by_kind(self._pid), shared_bytes(regions))
            self.samples.append(sample)
