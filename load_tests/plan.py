"""What a load test does: its stages, its mix of requests, and what it has to reach.

A plan is read from a profile, a TOML file. `profiles/` holds those that ship, and README.md says
what may stand in one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from load_tests.calls import CALLS
from load_tests.pictures import KINDS

ARRIVALS = ("poisson", "even")

# What is checked of a value, by the type of its field; a float may be written as an integer.
_ACCEPTED: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}

PartT = TypeVar("PartT")


class PlanError(Exception):
    """A profile cannot be used; the message says why."""


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not condition:
        raise PlanError(message)


def _list(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)


@dataclass(frozen=True)
class Stage:
    """A time of constant load.

    Attributes:
        seconds: that it lasts.
        users: of a closed loop: each sends its next request when the last was answered.
        rate: of an open loop: requests a second, whether answers come or not.
    """

    seconds: int
    users: int = 0
    rate: float = 0.0

    def __post_init__(self) -> None:
        _require(self.seconds > 0, f"a stage lasts at least 1 second, not {self.seconds}")
        _require(self.users >= 0 and self.rate >= 0, "users and rate are not negative")
        _require(not (self.users and self.rate), "a stage has users or a rate, not both")


@dataclass(frozen=True)
class Request:
    """One kind of request of the mix: one row of the report.

    Attributes:
        task: by the name of its ensemble, as docs/protocol.md has it.
        model: the ensemble; by default it is named for its task.
        pictures: which are sent, see `pictures.py`; empty for a task without.
        weight: how often, in proportion to the others.
        text: for the tasks that take one; each has a text of its own by default.
        text2: likewise.
        options: of the request, such as `num_captions`.
        name: in the report; by default of model and pictures.
        p50_ms: what the median of its latencies must not exceed; 0 for no limit.
        p95_ms: likewise.
        p99_ms: likewise.
    """

    task: str = "caption"
    model: str = ""
    pictures: str = ""
    weight: float = 1.0
    text: str = ""
    text2: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0

    def __post_init__(self) -> None:
        _require(self.task in CALLS, f"there is no task {self.task!r}; there are {_list(CALLS)}")
        _require(self.weight > 0, f"a weight is positive, not {self.weight:g}")
        call = CALLS[self.task]
        if call.takes_picture:
            pictures = self.pictures or "given"
            _require(pictures in KINDS, f"pictures are one of {_list(KINDS)}, not {pictures!r}")
        else:
            pictures = ""
            _require(not self.pictures, f"{self.task} takes no pictures")
        defaults = {
            "model": self.model or self.task,
            "pictures": pictures,
            "text": self.text or call.text,
            "text2": self.text2 or call.text2,
        }
        suffix = f", {pictures} pictures" if pictures not in ("", "given") else ""
        defaults["name"] = self.name or defaults["model"] + suffix
        for key, value in defaults.items():
            object.__setattr__(self, key, value)

    @property
    def is_bad(self) -> bool:
        """Whether the server has to refuse it."""
        return self.pictures == "bad"

    @property
    def limits(self) -> dict[str, float]:
        """Milliseconds that must not be exceeded, by "p50_ms" and so on."""
        limits = {"p50_ms": self.p50_ms, "p95_ms": self.p95_ms, "p99_ms": self.p99_ms}
        return {name: limit for name, limit in limits.items() if limit}


@dataclass(frozen=True)
class Slo:
    """What the whole run has to reach, beside the limits of each kind of request.

    Attributes:
        max_error_ratio: of the requests: those that failed, and bad pictures that were not refused.
        max_overload_ratio: of the requests: those refused because the server's queue was full.
        min_per_second: answers, expected refusals of bad pictures counted.
    """

    max_error_ratio: float = 0.0
    max_overload_ratio: float = 0.0
    min_per_second: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Everything about a run but the server and the pictures.

    Attributes:
        stages: one after the other.
        requests: the mix.
        slo: what has to be reached.
        arrivals: of an open loop, "poisson" (as of many independent callers) or "even".
        seed: of arrivals and mix: the same number gives the same open loop again.
    """

    stages: Sequence[Stage]
    requests: Sequence[Request] = (Request(),)
    slo: Slo = field(default_factory=Slo)
    arrivals: str = "poisson"
    seed: int = 0

    def __post_init__(self) -> None:
        _require(bool(self.stages), "there are no stages")
        _require(bool(self.requests), "there are no requests")
        kinds = {bool(stage.rate) for stage in self.stages if stage.users or stage.rate}
        _require(bool(kinds), "no stage has users or a rate")
        _require(len(kinds) == 1, "either all stages have users, or all have a rate")
        _require(self.arrivals in ARRIVALS, f"arrivals are {_list(ARRIVALS)}, not {self.arrivals}")
        names = [request.name for request in self.requests]
        _require(len(set(names)) == len(names), f"requests need different names, not {names}")

    @property
    def is_open(self) -> bool:
        """Whether requests arrive at a rate, and do not wait for the answers of others."""
        return any(stage.rate for stage in self.stages)

    @property
    def seconds(self) -> int:
        """How long it takes."""
        return sum(stage.seconds for stage in self.stages)

    def to_json(self) -> str:
        """The plan as it is sent to Locust's workers."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote."""
        return cls.from_table(json.loads(text))

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Plan:
        """Read a plan as TOML or JSON has it.

        Raises:
            PlanError: a name is unknown, or a value makes no sense.
        """
        _require("stages" in table, "there are no [[stages]]")
        parts = dict(table)
        parts["stages"] = tuple(_read_parts(Stage, table["stages"], "stages"))
        if "requests" in table:
            parts["requests"] = tuple(_read_parts(Request, table["requests"], "requests"))
        if "slo" in table:
            parts["slo"] = _read_part(Slo, table["slo"], "slo")
        return _read_part(cls, parts, "the profile")


def read_plan(file: Path) -> Plan:
    """Read a profile.

    Raises:
        PlanError: it cannot be read, or does not make sense.
    """
    try:
        return Plan.from_table(tomllib.loads(file.read_text("utf-8")))
    except OSError as error:
        raise PlanError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, PlanError) as error:
        raise PlanError(f"{file}: {error}") from error


def _read_parts(part: type[PartT], tables: object, where: str) -> Iterator[PartT]:
    _require(isinstance(tables, list), f"{where} is a list of tables, [[{where}]]")
    assert isinstance(tables, list)  # noqa: S101 - for the type checker
    for number, table in enumerate(tables, 1):
        yield _read_part(part, table, f"{where} {number}")


def _read_part(part: type[PartT], table: object, where: str) -> PartT:
    _require(isinstance(table, Mapping), f"{where} is a table")
    assert isinstance(table, Mapping)  # noqa: S101 - for the type checker
    known = {each.name: each for each in fields(part)}  # type: ignore[arg-type]
    for key, value in table.items():
        _require(key in known, f"{where}: {key!r} is unknown; there are {_list(known)}")
        _check_type(known[key].type, value, f"{where}: {key}")
    for key, each in known.items():
        is_required = each.default is MISSING and each.default_factory is MISSING
        _require(key in table or not is_required, f"{where}: {key} is missing")
    try:
        return part(**table)
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from error


def _check_type(annotation: object, value: object, where: str) -> None:
    accepted = _ACCEPTED.get(str(annotation))
    if accepted is not None:
        is_right = isinstance(value, accepted) and not isinstance(value, bool)
        _require(is_right, f"{where} is {annotation}, not {value!r}")
