"""What became of the requests of a run: small enough to be sent, easy to be merged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

#: Latencies are counted in steps of 1 %, so that a percentile is right to half of that.
_STEP = math.log(1.01)


class Latencies:
    """A histogram of times.

    Attributes:
        counts: by the number of the step.
        sum_ms: of all.
        max_ms: the longest.
    """

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.sum_ms = 0.0
        self.max_ms = 0.0

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, milliseconds: float) -> None:
        """Count one."""
        # A microsecond stands for what is shorter.
        self.counts[math.floor(math.log(max(milliseconds, 1e-3)) / _STEP)] += 1
        self.sum_ms += milliseconds
        self.max_ms = max(self.max_ms, milliseconds)

    def merge(self, other: Latencies) -> None:
        """Count what another one has counted."""
        self.counts += other.counts
        self.sum_ms += other.sum_ms
        self.max_ms = max(self.max_ms, other.max_ms)

    def percentile(self, percent: float) -> float | None:
        """Milliseconds that this share does not exceed; None if nothing was counted."""
        rank, seen = percent / 100 * len(self), 0
        for step, count in sorted(self.counts.items()):
            seen += count
            if seen >= rank:
                return min(math.exp((step + 0.5) * _STEP), self.max_ms)
        return None

    @property
    def mean_ms(self) -> float | None:
        """None if nothing was counted."""
        return self.sum_ms / len(self) if self.counts else None

    def to_table(self) -> list[Any]:
        """What `from_table` reads."""
        return [list(self.counts.items()), self.sum_ms, self.max_ms]

    @classmethod
    def from_table(cls, table: Iterable[Any]) -> Latencies:
        """Read what `to_table` wrote, also through JSON."""
        made = cls()
        counts, made.sum_ms, made.max_ms = table
        made.counts = Counter(dict(counts))
        return made


class Cell(NamedTuple):
    """What is counted together.

    Attributes:
        stage: in which the requests were due.
        slot: of time in which they were due, for the course of the run.
        name: of the kind of request.
        outcome: as `calls.py` names them.
    """

    stage: int
    slot: int
    name: str
    outcome: str


class Tally:
    """What one process saw, or all of them.

    Attributes:
        latencies: by cell.
        completed: answers and expected refusals that came within a stage, by stage and name.
        errors: by what went wrong.
        lateness: milliseconds that requests were sent after they were due: the generator's fault.
        cpu_seconds: that generating the load took.
    """

    def __init__(self) -> None:
        self.latencies: dict[Cell, Latencies] = {}
        self.completed: Counter[tuple[int, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self.lateness = Latencies()
        self.cpu_seconds = 0.0

    def add(self, cell: Cell, milliseconds: float) -> None:
        """Count a request that has ended."""
        self.latencies.setdefault(cell, Latencies()).add(milliseconds)

    def merge(self, other: Tally) -> None:
        """Count what another process has seen."""
        for cell, latencies in other.latencies.items():
            self.latencies.setdefault(cell, Latencies()).merge(latencies)
        self.completed += other.completed
        self.errors += other.errors
        self.lateness.merge(other.lateness)
        self.cpu_seconds += other.cpu_seconds

    def to_table(self) -> dict[str, Any]:
        """What `from_table` reads."""
        return {
            "latencies": [[*cell, each.to_table()] for cell, each in self.latencies.items()],
            "completed": [[*key, count] for key, count in self.completed.items()],
            "errors": dict(self.errors),
            "lateness": self.lateness.to_table(),
            "cpu_seconds": self.cpu_seconds,
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Tally:
        """Read what `to_table` wrote, also through JSON."""
        made = cls()
        for *cell, latencies in table["latencies"]:
            made.latencies[Cell(*cell)] = Latencies.from_table(latencies)
        made.completed = Counter({(stage, name): n for stage, name, n in table["completed"]})
        made.errors = Counter(table["errors"])
        made.lateness = Latencies.from_table(table["lateness"])
        made.cpu_seconds = table["cpu_seconds"]
        return made
