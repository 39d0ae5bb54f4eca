"""When what happens in a run: its stages, and the arrivals of an open loop."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from load_tests.plan import Stage


def borders(stages: Sequence[Stage]) -> list[int]:
    """Seconds after the start at which the stages begin, and the end of the last one."""
    return list(itertools.accumulate((stage.seconds for stage in stages), initial=0))


def stage_at(stages: Sequence[Stage], seconds: float) -> int | None:
    """Number of the stage at a time after the start, None when all are over."""
    for number, end in enumerate(borders(stages)[1:]):
        if seconds < end:
            return number
    return None


def arrivals(stages: Sequence[Stage], kind: str, seed: int) -> Iterator[float]:
    """Seconds after the start at which each request of an open loop is to be sent.

    Time is stretched by the rate: unit steps ("even") or exponential ones with mean 1 ("poisson")
    are laid along the sum of all rates so far. So the rate may change in the middle of a gap, and
    a stage of R requests a second and S seconds gets R * S of them (on average if "poisson").
    """
    steps = random.Random(seed)  # noqa: S311 - not for secrets
    # Number of requests due so far; an even one comes in the middle of its share of the time.
    due = steps.expovariate(1.0) if kind == "poisson" else 0.5
    start, due_before = 0, 0.0
    for stage in stages:
        due_after = due_before + stage.rate * stage.seconds
        while due < due_after:
            yield start + (due - due_before) / stage.rate
            due += steps.expovariate(1.0) if kind == "poisson" else 1.0
        start, due_before = start + stage.seconds, due_after


def share(times: Iterator[float], index: int, count: int) -> Iterator[float]:
    """What one of `count` processes sends of a schedule: every `count`-th request."""
    return itertools.islice(times, index, None, count)


def slot_seconds(seconds: float) -> float:
    """Length of the parts of a run that its course is shown in: at most 120 of them."""
    return max(1.0, seconds / 120)
