"""What becomes of requests, accepted and refused, when ten times as many come as can be answered?

The generator computes on one core, and searches long captions with a wide beam, as slow as a larger
network would be, so that ten times its capacity can be sent from the same machine. Arrivals are an
open loop: they come at their time whatever the server does. One load follows another on one server:

- a client alone: the usual time of a request;
- 16 clients that wait for their answers: the capacity;
- arrivals at 3 times the capacity: the queue is full, and a third is answered;
- arrivals at 10 times the capacity, then a client alone again, and the capacity again.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.figures import Figure, at_least, at_most, growth, none, reported
from chaos.load import Load, Outcome, between, percentile_ms
from chaos.mixes import WIDE_BEAM
from chaos.processes import SHARED_MEMORY
from chaos.sampler import Sample, Sampler
from chaos.servers import CHECKPOINT, OFA, Server, serving
from load_tests.triton_statistics import read_statistics, subtract

_NUM_CLIENTS = 16
_FULL, _OVERLOAD = 3, 10
#: Until clients run evenly, and until a queue of some 90 requests is full.
_SETTLE_S, _FILL_S = 2.0, 6.0
_SAMPLE_INTERVAL_S = 0.25
#: Arrivals that are sent later than that are not an open loop's.
_LATE_MS = 10
#: A lone request is back to normal when it takes at most this many times its usual median.
_USUAL = 2.0
#: In which it has to be.
_RECOVERY_S = 5.0
_MB = 1e6


@dataclass(frozen=True)
class Phase:
    """A load, and the part of it in which it ran evenly.

    Attributes:
        outcomes: of all of it.
        start: of the part.
        end: of the part; nothing is sent afterwards.
        cores: that the load kept busy.
    """

    outcomes: list[Outcome]
    start: float
    end: float
    cores: float

    @property
    def due(self) -> list[Outcome]:
        """What was to be sent in that part."""
        return between(self.outcomes, self.start, self.end)

    @property
    def answered(self) -> list[Outcome]:
        """What was answered of it."""
        return [each for each in self.due if each.is_ok]

    @property
    def refused(self) -> list[Outcome]:
        """What was not."""
        return [each for each in self.due if not each.is_ok]

    @property
    def per_second(self) -> float:
        """Answers a second, whenever their requests were sent."""
        ended = [each for each in self.outcomes if each.is_ok and each.ended >= self.start]
        return sum(each.ended < self.end for each in ended) / (self.end - self.start)


def run(repository: Path, quick: bool) -> list[Figure]:
    """Loads a server of its own."""
    seconds = 6.0 if quick else 24.0
    with tempfile.TemporaryDirectory(prefix="ofa-overload-") as folder:
        own = Path(folder)
        export = [str(OFA), "export", str(CHECKPOINT), "--precision", "float32"]
        export += ["--repository", folder, "--max-beam-size", str(WIDE_BEAM)]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        server = Server(own, "overload", prefix=["env", "OMP_NUM_THREADS=1"])
        with serving(server):
            alone = _load(server, _SETTLE_S, seconds / 4, num_clients=1)
            peak = _load(server, _SETTLE_S, seconds, num_clients=_NUM_CLIENTS)
            full = _load(server, _FILL_S, seconds / 2, rate=_FULL * peak.per_second)
            before = read_statistics(server.address)
            with Sampler(server.process.pid, _SAMPLE_INTERVAL_S) as sampler:
                flood = _load(server, _FILL_S, seconds, rate=_OVERLOAD * peak.per_second)
            models = subtract(read_statistics(server.address), before)
            later = _load(server, 0.0, seconds / 4, num_clients=1)
            # A shared machine is not as fast at one time as at another.
            again = _load(server, _SETTLE_S, seconds, num_clients=_NUM_CLIENTS)
    capacity = (peak.per_second + again.per_second) / 2
    decoded, generator = models["caption_preprocess"].num_requests, models["caption_generator"]
    return [
        reported(
            "capacity",
            capacity,
            "pictures/s",
            f"{_NUM_CLIENTS} clients; {peak.per_second:.1f} before, {again.per_second:.1f} after",
        ),
        *_load_figures(flood, capacity),
        *_answer_figures(flood, full, capacity),
        reported("rows in a batch", generator.num_requests / generator.num_executions),
        *_refusal_figures(flood),
        none(
            "pictures decoded and then refused",
            decoded - sum(each.is_ok for each in flood.outcomes),
            f"{decoded:,} decoded of {len(flood.outcomes):,} sent",
        ),
        *_memory_figures([each for each in sampler.samples if flood.start < each.at < flood.end]),
        recovery_figure(alone, flood, later),
    ]


def _load(
    server: Server,
    settle_s: float,
    seconds: float,
    num_clients: int | None = None,
    rate: float | None = None,
) -> Phase:
    """Loads a server from the last core, and waits for the answers under way at the end."""
    prefix = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]
    with Load([server.address], "long_captions", rate, num_clients, prefix=prefix) as load:
        time.sleep(settle_s)
        start = time.monotonic()
        time.sleep(seconds)
        end, cores = time.monotonic(), load.cores
        return Phase(load.finish(), start, end, cores)


def _load_figures(flood: Phase, capacity: float) -> list[Figure]:
    sent_per_second = len(flood.due) / (flood.end - flood.start)
    lateness = [1000 * (each.sent - each.due) for each in flood.due]
    late = sum(ms > _LATE_MS for ms in lateness) / len(lateness)
    return [
        at_least("arrivals", sent_per_second / capacity, 0.95 * _OVERLOAD, "times the capacity"),
        at_most(f"of them sent more than {_LATE_MS} ms late", 100 * late, 1, "%"),
        reported("the load's own processor time", flood.cores, "cores"),
    ]


def _answer_figures(flood: Phase, full: Phase, capacity: float) -> list[Figure]:
    figures = [at_least("answers a second", 100 * flood.per_second / capacity, 95, "% of it")]
    for percent in (50, 99):
        at_10, at_3 = (percentile_ms(each.answered, percent) for each in (flood, full))
        figures.append(
            at_most(
                f"an answer takes, p{percent}",
                at_10 / at_3,
                1.25,
                "times that at 3 times the capacity",
                f"{at_10:,.0f} ms, {at_3:,.0f} ms",
            )
        )
    return figures


def _refusal_figures(flood: Phase) -> list[Figure]:
    said = Counter(f"{each.code}: {each.details}" for each in flood.refused)
    return [
        at_most("a refusal takes, p50", percentile_ms(flood.refused, 50), 50, "ms"),
        at_most(
            "a refusal takes, p99",
            percentile_ms(flood.refused, 99),
            250,
            "ms",
            said.most_common(1)[0][0],
        ),
        none("refusals other than UNAVAILABLE", _others(flood.refused, "UNAVAILABLE")),
    ]


def _others(outcomes: Sequence[Outcome], code: str) -> int:
    return sum(each.code != code for each in outcomes)


def _memory_figures(samples: Sequence[Sample]) -> list[Figure]:
    return [
        at_most(
            "the server's memory grows by",
            growth([each.whole.rss / _MB for each in samples]),
            10,
            "MB",
            f"{samples[-1].whole.rss / _MB:,.0f} MB at the end",
        ),
        at_most(
            f"{SHARED_MEMORY} grows by", growth([each.shared / _MB for each in samples]), 1, "MB"
        ),
    ]


def recovery_figure(alone: Phase, flood: Phase, later: Phase) -> Figure:
    """From the last arrival to the first lone request that takes its usual time."""
    limit_ms = _USUAL * percentile_ms(alone.answered, 50)
    answers = [each for each in later.outcomes if each.is_ok]
    usual = [each.ended for each in answers if 1000 * each.seconds <= limit_ms]
    # If none does, it takes longer than anybody has looked, and that is too long.
    recovered = min(usual, default=flood.end + _RECOVERY_S + later.end - later.start)
    return at_most(
        "a lone request takes its usual time again after",
        recovered - flood.end,
        _RECOVERY_S,
        "s",
        f"{limit_ms:.0f} ms or less; the first took {1000 * later.outcomes[0].seconds:.0f} ms",
    )
