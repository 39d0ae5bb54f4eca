"""Has a run reached what its plan asks for?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from load_tests.calls import FAILED, GOOD, OVERLOADED
from load_tests.plan import Plan

#: One thing that was to be reached: "what", "value" (None if there is none), "limit", "is_met".
Check = dict[str, Any]


def check(plan: Plan, whole: Mapping[str, Any], num_lost: int) -> list[Check]:
    """Compare the figures of a whole run with the limits of its plan.

    Args:
        plan: with the limits.
        whole: the figures, see `summary.py`.
        num_lost: processes of the load that have not done their share.
    """
    return list(_checks(plan, whole, num_lost))


def _checks(plan: Plan, whole: Mapping[str, Any], num_lost: int) -> Iterator[Check]:
    total, slo = whole["total"], plan.slo
    if num_lost:
        yield _at_most("workers lost, and their share of the load", num_lost, 0)
    num_good = sum(total[outcome] for outcome in GOOD)
    yield _at_least("answers and expected refusals", num_good, 1)
    sent = max(total["sent"], 1)
    yield _at_most("share of errors", total[FAILED] / sent, slo.max_error_ratio)
    yield _at_most("share of overload refusals", total[OVERLOADED] / sent, slo.max_overload_ratio)
    if slo.min_per_second:
        yield _at_least("answers a second", total["per_second"], slo.min_per_second)
    for request in plan.requests:
        for percentile, limit in request.limits.items():
            value = whole["rows"][request.name][percentile]
            name = f"{request.name}: {percentile.removesuffix('_ms')}, ms"
            yield _at_most(name, value, limit)


def _at_most(what: str, value: float | None, limit: float) -> Check:
    # Of what never came nothing is known, least of all that it was fast.
    is_met = value is not None and value <= limit
    return {"what": what, "value": value, "limit": f"at most {limit:g}", "is_met": is_met}


def _at_least(what: str, value: float, limit: float) -> Check:
    is_met = value >= limit
    return {"what": what, "value": value, "limit": f"at least {limit:g}", "is_met": is_met}
