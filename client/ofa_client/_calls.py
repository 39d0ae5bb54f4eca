"""What is told about a call, beside its result: which servers were asked, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attempt:
    """One request of a call to one server, and how it ended.

    Attributes:
        request_id: of the call; all of its attempts have the same.
        model: name of the ensemble.
        server: address that was asked.
        number: 1 for the first attempt of the call.
        code: gRPC status code by name; "OK" for an answer.
        message: what the server or gRPC said of a failure; empty for an answer.
        seconds: from sending to the answer or the failure.
        retry_in: seconds until the next attempt; None if this one ended the call.
    """

    request_id: str
    model: str
    server: str
    number: int
    code: str
    message: str
    seconds: float
    retry_in: float | None


@dataclass(frozen=True)
class CallInfo:
    """How a result came about.

    Attributes:
        request_id: what the server knows the request by, in its traces too.
        model: name of the ensemble that answered.
        model_version: its version, as the server says it.
        attempts: every request that was sent, in order; the last one is the one that answered.
        input_seconds: time spent on reading, fetching and encoding the inputs.
        seconds: time of the whole call.
    """

    request_id: str = ""
    model: str = ""
    model_version: str = ""
    attempts: tuple[Attempt, ...] = ()
    input_seconds: float = 0.0
    seconds: float = 0.0
