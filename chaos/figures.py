"""What a scenario measures, and whether it is within its bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        what: what was measured, in words ("failed calls", "time to recover").
        value: the number.
        unit: of it, empty for a count.
        bound: what it has to be, in words ("0", "at most 250 ms"); empty where it is only reported.
        within: whether it is.
    """

    what: str
    value: float
    unit: str = ""
    bound: str = ""
    within: bool = True


def at_most(what: str, value: float, limit: float, unit: str = "") -> Figure:
    """Return a figure that must not exceed `limit`."""
    return Figure(what, value, unit, f"at most {limit:g} {unit}".rstrip(), value <= limit)


def at_least(what: str, value: float, limit: float, unit: str = "") -> Figure:
    """Return a figure that must reach `limit`."""
    return Figure(what, value, unit, f"at least {limit:g} {unit}".rstrip(), value >= limit)
