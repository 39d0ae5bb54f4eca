"""Does a server's memory, or anything else that it holds, grow in an hour of mixed requests?

Captions, answers and titles; small, large and bad pictures; options out of range; clients that
leave. Everything runs with low priority. Growth is the mean of the last sixth of the time less that
of the second: in the first, caches fill.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.serving import linked
from chaos.figures import Figure, at_most, growth, none
from chaos.load import Load, failed
from chaos.processes import SHARED_MEMORY
from chaos.sampler import Sample, Sampler
from chaos.servers import Server, serving

_NAMES = ("caption", "vqa", "summarization")
#: Requests a second: what two cores answer without a queue.
_RATE = 10.0
_WARM_UP_S = 5.0
#: Between two samples, at least.
_INTERVAL_S = 0.5
_NICE = ["nice", "-n", "10"]
#: Allowed growth in MB: of the memory of processes of one kind; of /dev/shm, a step of a region.
_ALLOWED_MB, _ALLOWED_SHARED_MB = 16.0, 1.0
#: Of file handles and threads: Triton keeps a few for connections that have just been closed.
_ALLOWED_HANDLES = 2.0
#: In the first minute pools still grow to their size.
_QUICK_TIMES = 4
_MB = 1e6


def run(repository: Path, quick: bool) -> list[Figure]:
    """Loads a server of its own for an hour, or for a minute."""
    seconds = 60.0 if quick else 3600.0
    with linked(repository, *_NAMES) as own:
        server = Server(own, "soak", prefix=_NICE)
        with (
            serving(server),
            Load([server.address], mix="mixed", rate=_RATE, prefix=_NICE) as load,
        ):
            time.sleep(_WARM_UP_S)
            with Sampler(server.process.pid, max(_INTERVAL_S, seconds / 720)) as sampler:
                time.sleep(seconds)
            outcomes = load.finish()
    wrong = Counter(f"{each.code}: {each.details}" for each in failed(outcomes))
    return [
        none(
            "requests that ended in another way than they should",
            wrong.total(),
            "; ".join([f"{len(outcomes):,} requests", *(text for text, _ in wrong.most_common(3))]),
        ),
        *_growths(sampler.samples, _QUICK_TIMES if quick else 1),
    ]


def _growths(samples: Sequence[Sample], times: int) -> list[Figure]:
    # From the middle of the second sixth to that of the last.
    hours = (samples[-1].at - samples[0].at) * 4 / 6 / 3600

    def figure(
        what: str, read: Callable[[Sample], float], allowed: float, unit: str = ""
    ) -> Figure:
        values = [read(sample) for sample in samples]
        grown = growth(values)
        slope = f"{grown / hours:+.2f} an hour; {values[-1]:,.1f} at the end"
        return at_most(f"{what}: growth", grown, times * allowed, unit, slope)

    def memory(kind: str) -> Figure:
        def read(sample: Sample) -> float:
            return sample.usage[kind].rss / _MB

        return figure(f"memory of {kind}", read, _ALLOWED_MB, "MB")

    return [
        *map(memory, samples[-1].usage),
        figure(str(SHARED_MEMORY), lambda each: each.shared / _MB, _ALLOWED_SHARED_MB, "MB"),
        figure("file handles", lambda each: each.whole.handles, _ALLOWED_HANDLES),
        figure("threads", lambda each: each.whole.threads, _ALLOWED_HANDLES),
    ]
