"""What a scenario measures, and whether it is within its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        what: what was measured, in words ("failed calls", "time to recover").
        value: the number.
        unit: of it, empty for a count.
        bound: what it has to be, in words ("0", "at most 250 ms"); empty where it is only reported.
        within: whether it is.
        note: what was said or seen with it, such as a message; empty for nothing.
    """

    what: str
    value: float
    unit: str = ""
    bound: str = ""
    within: bool = True
    note: str = ""


def reported(what: str, value: float, unit: str = "", note: str = "") -> Figure:
    """Return a figure without a bound."""
    return Figure(what, value, unit, note=note)


def at_most(what: str, value: float, limit: float, unit: str = "", note: str = "") -> Figure:
    """Return a figure that must not exceed `limit`."""
    return Figure(what, value, unit, f"at most {limit:g} {unit}".rstrip(), value <= limit, note)


def at_least(what: str, value: float, limit: float, unit: str = "", note: str = "") -> Figure:
    """Return a figure that must reach `limit`."""
    return Figure(what, value, unit, f"at least {limit:g} {unit}".rstrip(), value >= limit, note)


def none(what: str, value: float, note: str = "") -> Figure:
    """Return a count that must be 0."""
    return Figure(what, value, "", "0", value == 0, note)


def growth(samples: Sequence[float]) -> float:
    """How much more the last sixth of some samples is than their second sixth, on average.

    The first sixth is left out: caches fill and pools grow to their size. A sixth is long enough
    for what comes and goes with each request to even out.

    Args:
        samples: of one quantity, taken at equal intervals.

    Raises:
        ValueError: there are fewer than 6.
    """
    if len(samples) < 6:
        raise ValueError(f"growth is told from 6 samples or more, not {len(samples)}")
    sixth = len(samples) // 6
    return mean(samples[-sixth:]) - mean(samples[sixth : 2 * sixth])
