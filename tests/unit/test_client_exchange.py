"""The attempts of a call, step by step, without network and with a clock that stands still."""

import itertools
import logging
from collections.abc import Generator
from typing import Any

import pytest

from ofa_client import (
    Attempt,
    DeadlineExceededError,
    InvalidImageError,
    InvalidRequestError,
    ModelNotReadyError,
    OFAClientError,
    OverloadedError,
    RetryPolicy,
    ServerError,
)
from ofa_client._exchange import Call, Exchange, Failure, Reply, Routes, Send, Wait
from ofa_client._servers import FIRST_LEFT_OUT_S, MAX_LEFT_OUT_S, Server, Servers
from ofa_client._wire import to_message

AWAY = Failure("UNAVAILABLE", "Socket closed")
BUSY = Failure("UNAVAILABLE", "in ensemble 'caption', Exceeds maximum queue size")
DRAINING = Failure("NOT_FOUND", "Request for unknown model: 'caption' has no available versions")
CANCELLED = Failure("CANCELLED", "CANCELLED")
BROKEN = Failure("INTERNAL", "Stub process 'caption_preprocess_0_0' is not healthy.")
FINAL = [
    (Failure("INVALID_ARGUMENT", "image cannot be read"), InvalidImageError),
    (Failure("NOT_FOUND", "Request for unknown model: 'x' is not found"), ModelNotReadyError),
    (Failure("INTERNAL", "something broke"), ServerError),
    (Failure("RESOURCE_EXHAUSTED", "Received message larger than max"), InvalidRequestError),
]
LATE = Failure("DEADLINE_EXCEEDED", "Deadline Exceeded")
REPLY = Reply("an answer")


class Bench:
    """Calls of one client, whose time passes only when a test says so."""

    def __init__(
        self, *addresses: str, retry: RetryPolicy | None = None, jitter: float = 1.0
    ) -> None:
        self.now = 100.0
        self.told: list[Attempt] = []
        self.servers = Servers()
        self.servers.update(Server(address, address) for address in addresses)
        self.routes = Routes(
            text=", ".join(addresses),
            servers=self.servers,
            names=None,
            retry=retry or RetryPolicy(max_attempts=4, initial_backoff=0.5, max_backoff=2),
            on_attempt=self.told.append,
            clock=lambda: self.now,
            jitter=lambda low, high: low + jitter * (high - low),
        )

    def call(self, timeout: float = 60.0) -> Generator[Any, Any, Reply]:
        message = to_message("caption", "id", {})
        return Exchange(
            Call("id", "caption", timeout, self.now + timeout, message), self.routes
        ).run()

    def play(self, *outcomes: Reply | Failure, timeout: float = 60.0) -> list[str | float]:
        """Whom a call asks and how long it waits, given how its requests end; its end, if any."""
        steps, done, left = self.call(timeout), list[str | float](), list(outcomes)
        outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                assert not left
                return [*done, end.value.message]
            except OFAClientError as error:
                assert not left
                return [*done, type(error).__name__]
            outcome = None
            if isinstance(step, Wait):
                done.append(step.seconds)
                self.now += step.seconds
            else:
                assert isinstance(step, Send)
                done.append(step.server.address)
                if not left:
                    steps.close()
                    return done
                outcome = left.pop(0)


def test_calls_take_turns() -> None:
    bench = Bench("a", "b", "c")
    asked = [bench.play(REPLY)[0] for _ in range(7)]
    assert asked == ["a", "b", "c", "a", "b", "c", "a"]


@pytest.mark.parametrize("failure", [AWAY, BUSY, DRAINING, CANCELLED, BROKEN], ids=str)
def test_the_next_attempt_asks_another_server_at_once(failure: Failure) -> None:
    assert Bench("a", "b").play(failure, REPLY) == ["a", "b", "an answer"]


@pytest.mark.parametrize(("failure", "error"), FINAL, ids=str)
def test_what_would_fail_again_is_not_sent_again(
    failure: Failure, error: type[OFAClientError]
) -> None:
    bench = Bench("a", "b")
    assert bench.play(failure) == ["a", error.__name__]
    assert bench.play(REPLY, timeout=1)[0] == "b", "the next call takes its turn"
    assert bench.play(REPLY, timeout=1)[0] == "a", "nobody is left out for it"


def test_a_broken_server_is_not_asked_twice() -> None:
    assert Bench("a").play(BROKEN) == ["a", "ServerError"]
    assert Bench("a", "b").play(BROKEN, BROKEN) == ["a", "b", "ServerError"]


def test_waits_double_up_to_their_bound() -> None:
    retry = RetryPolicy(max_attempts=6, initial_backoff=0.5, max_backoff=2)
    played = Bench("a", retry=retry).play(*[AWAY] * 6)
    assert played == ["a", 0.5, "a", 1.0, "a", 2.0, "a", 2.0, "a", 2.0, "a", "UnavailableError"]


def test_a_wait_is_anything_between_nothing_and_its_bound() -> None:
    assert Bench("a", jitter=0.25).play(AWAY, AWAY, REPLY) == [
        *("a", 0.125, "a", 0.25, "a", "an answer")
    ]
    assert Bench("a", jitter=0.0).play(AWAY, REPLY) == ["a", "a", "an answer"]


def test_all_servers_are_asked_before_a_wait() -> None:
    played = Bench("a", "b").play(AWAY, BUSY, BUSY, REPLY)
    assert played == ["a", "b", 0.5, "b", "a", "an answer"], "a failed, so b comes first"


def test_no_attempt_begins_after_the_deadline() -> None:
    bench = Bench("a")
    assert bench.play(AWAY, AWAY, timeout=1.2) == ["a", 0.5, "a", "UnavailableError"]
    assert [attempt.retry_in for attempt in bench.told] == [0.5, None]
    assert bench.play(timeout=0) == ["DeadlineExceededError"]


def test_the_time_left_is_the_timeout_of_a_request_and_of_its_queues() -> None:
    bench = Bench("a")
    steps = bench.call(timeout=10.0)
    first = next(steps)
    assert (first.timeout, first.message.parameters["timeout"].int64_param) == (10.0, 10_000_000)
    bench.now += 2.0
    assert steps.send(AWAY) == Wait(0.5)
    bench.now += 0.5
    second = steps.send(None)
    assert (second.timeout, second.message.parameters["timeout"].int64_param) == (7.5, 7_500_000)


def test_retries_are_off_with_one_attempt() -> None:
    assert Bench("a", "b", retry=RetryPolicy(max_attempts=1)).play(AWAY) == [
        "a",
        "UnavailableError",
    ]


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 0}, {"initial_backoff": -1}, {"max_backoff": float("nan")}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        RetryPolicy(**wrong)


def test_a_server_that_fails_is_left_out_for_a_growing_time() -> None:
    bench = Bench("a", "b")
    failed_at = []
    while len(failed_at) < 8:
        steps = bench.call()
        if next(steps).server.address == "a":
            failed_at.append(bench.now)
            assert steps.send(AWAY).server.address == "b"
        with pytest.raises(StopIteration):
            steps.send(REPLY)
        bench.now += 0.25
    intervals = [later - earlier for earlier, later in itertools.pairwise(failed_at)]
    # A turn of b's may come in between.
    assert [round(interval) for interval in intervals] == [1, 2, 4, 8, 16, 30, 30]
    assert (FIRST_LEFT_OUT_S, MAX_LEFT_OUT_S) == (1, 30)


def test_one_call_alone_finds_out_whether_a_server_is_back() -> None:
    bench = Bench("a", "b")
    assert bench.play(AWAY, REPLY) == ["a", "b", "an answer"]
    bench.now += FIRST_LEFT_OUT_S
    finding_out = bench.call()
    assert next(finding_out).server.address == "a"
    assert {bench.play(REPLY)[0] for _ in range(4)} == {"b"}
    with pytest.raises(StopIteration):
        finding_out.send(REPLY)
    assert {bench.play(REPLY)[0] for _ in range(4)} == {"a", "b"}


def test_requests_that_fail_together_are_one_failure() -> None:
    bench = Bench("a", "b")
    together = [bench.call() for _ in range(10)]
    asked = [next(steps).server.address for steps in together]
    bench.now += 0.5
    for steps, address in zip(together, asked, strict=True):
        if address == "a":
            steps.send(AWAY)
    bench.now += FIRST_LEFT_OUT_S
    assert "a" in {bench.play(REPLY)[0] for _ in range(2)}


def test_a_late_answer_does_not_bring_a_server_back() -> None:
    """A server that shuts down refuses what is new and still answers what it was sent before."""
    bench = Bench("a", "b")
    sent_before = bench.call()
    assert next(sent_before).server.address == "a"
    bench.now += 0.1
    assert bench.play(REPLY)[0] == "b"
    assert bench.play(DRAINING, REPLY) == ["a", "b", "an answer"]
    bench.now += 0.1
    with pytest.raises(StopIteration):
        sent_before.send(REPLY)
    assert {bench.play(REPLY)[0] for _ in range(4)} == {"b"}


@pytest.mark.parametrize("refusal", [BUSY, FINAL[0][0]], ids=str)
def test_a_server_that_refuses_is_back(refusal: Failure) -> None:
    bench = Bench("a", "b", retry=RetryPolicy(max_attempts=1))
    assert bench.play(AWAY)[0] == "a"
    bench.now += FIRST_LEFT_OUT_S
    assert bench.play(REPLY)[0] == "b"
    assert bench.play(refusal)[0] == "a"
    assert [bench.play(REPLY)[0] for _ in range(4)] == ["b", "a", "b", "a"]


def test_a_server_that_answers_nothing_by_the_deadline_is_left_out() -> None:
    bench = Bench("a", "b")
    late = bench.call(timeout=1.0)
    assert next(late).server.address == "a"
    bench.now += 1.0
    with pytest.raises(DeadlineExceededError):
        late.send(LATE)
    assert {bench.play(REPLY)[0] for _ in range(4)} == {"b"}


def test_a_server_that_answers_others_by_the_deadline_keeps_its_turn() -> None:
    bench = Bench("a", "b")
    late = bench.call(timeout=1.0)
    assert next(late).server.address == "a"
    bench.now += 0.5
    assert [bench.play(REPLY)[0] for _ in range(2)] == ["b", "a"]
    bench.now += 0.5
    with pytest.raises(DeadlineExceededError):
        late.send(LATE)
    assert {bench.play(REPLY)[0] for _ in range(4)} == {"a", "b"}


def test_with_all_servers_left_out_the_first_of_them_is_asked() -> None:
    bench = Bench("a", "b", retry=RetryPolicy(max_attempts=1))
    assert bench.play(AWAY)[0] == "a"
    bench.now += 0.5
    assert bench.play(AWAY)[0] == "b"
    assert bench.play(REPLY) == ["a", "an answer"]


def test_a_busy_server_keeps_its_turn() -> None:
    bench = Bench("a", "b")
    assert bench.play(BUSY, REPLY) == ["a", "b", "an answer"]
    assert bench.play(REPLY)[0] == "a"


def test_servers_that_are_gone_are_closed_after_their_last_request() -> None:
    bench = Bench("a", "b")
    on_a = bench.call()
    assert next(on_a).server.address == "a"
    kept = bench.servers
    kept.update([Server("b", "b"), Server("c", "c")])
    assert kept.take_gone() == []
    closing = on_a.send(REPLY)
    assert [server.address for server in closing.servers] == ["a"]
    with pytest.raises(StopIteration):
        on_a.send(None)
    assert kept.take_gone() == []
    assert {bench.play(REPLY)[0] for _ in range(3)} == {"b", "c"}


def test_an_error_tells_of_all_attempts() -> None:
    bench = Bench("a", "b", retry=RetryPolicy(max_attempts=3, initial_backoff=0.5))
    steps = bench.call()
    next(steps)
    bench.now += 0.25
    steps.send(AWAY)
    bench.now += 0.5
    assert steps.send(BUSY) == Wait(0.5)
    steps.send(None)
    with pytest.raises(OverloadedError) as caught:
        steps.send(Failure("RESOURCE_EXHAUSTED", "too many", ValueError("the cause")))
    assert caught.value.retry_after == 1.0
    assert str(caught.value.__cause__) == "the cause"
    assert bench.told == [
        Attempt("id", "caption", "a", 1, "UNAVAILABLE", "Socket closed", 0.25, 0.0),
        Attempt("id", "caption", "b", 2, "UNAVAILABLE", BUSY.details, 0.5, 0.5),
        Attempt("id", "caption", "b", 3, "RESOURCE_EXHAUSTED", "too many", 0.0, None),
    ]


def test_the_log_tells_of_failures_under_one_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ofa_client"):
        Bench("a", "b").play(AWAY, REPLY)
    [record] = caplog.records
    assert record.name == "ofa_client"
    assert "attempt 1: a answered UNAVAILABLE" in record.getMessage()


def test_a_hook_that_fails_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench("a")

    def hook(_: Attempt) -> None:
        raise RuntimeError("no metrics today")

    object.__setattr__(bench.routes, "on_attempt", hook)
    assert bench.play(REPLY) == ["a", "an answer"]
    assert "no metrics today" in caplog.text


def test_an_abandoned_call_gives_its_server_back() -> None:
    bench = Bench("a")
    steps = bench.call()
    server = next(steps).server
    assert server.in_flight == 1
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert server.in_flight == 0
