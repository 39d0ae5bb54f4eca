"""Clients against scripted servers that fail, hang, come and go; over real gRPC."""

import asyncio
import linecache
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from ofa_client import (
    AsyncOFAClient,
    Attempt,
    CallCancelledError,
    CallInfo,
    CaptioningResult,
    DeadlineExceededError,
    InvalidImageError,
    InvalidOptionError,
    OFAClient,
    OverloadedError,
    RetryPolicy,
)
from tests.unit.scripted_triton import (
    CAPTIONS,
    Held,
    ScriptedTriton,
    Tensors,
    captions_answer,
    scripted_server,
)

PATIENT = RetryPolicy(max_attempts=1000, initial_backoff=0.01, max_backoff=0.05)


@pytest.fixture
def two_tritons() -> Iterator[tuple[ScriptedTriton, ScriptedTriton]]:
    with scripted_server() as first, scripted_server() as second:
        yield first, second


def ask(asynchronous: bool, servers: Any, **settings: Any) -> CaptioningResult:
    """One call with either client."""
    if not asynchronous:
        with OFAClient(servers, **{"timeout": 20, **settings}) as client:
            return client.caption(b"picture")

    async def ask_one() -> CaptioningResult:
        async with AsyncOFAClient(servers, **{"timeout": 20, **settings}) as client:
            return await client.caption(b"picture")

    return asyncio.run(ask_one())


both_clients = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@both_clients
@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAVAILABLE", "Exceeds maximum queue size"),
        ("NOT_FOUND", "Request for unknown model: 'caption' has no available versions"),
        ("CANCELLED", "CANCELLED"),
        ("INTERNAL", "Stub process 'caption_preprocess_0_0' is not healthy."),
    ],
)
def test_another_server_answers(
    two_tritons: tuple[ScriptedTriton, ScriptedTriton], asynchronous: bool, code: str, details: str
) -> None:
    failing, well = two_tritons
    failing.fail(grpc.StatusCode[code], details)
    told: list[Attempt] = []
    result = ask(asynchronous, [failing.address, well.address], on_attempt=told.append)
    assert result.text == "a red apple"
    assert [attempt.code for attempt in told] == [code, "OK"]
    assert result.call.attempts == tuple(told)
    assert [failing.messages[0].id, well.messages[0].id] == [result.call.request_id] * 2


@both_clients
def test_a_server_that_comes_back_answers(
    scripted_triton: ScriptedTriton, asynchronous: bool
) -> None:
    def third_time_lucky(_: Tensors, context: grpc.ServicerContext) -> Tensors:
        if len(scripted_triton.requests) < 3:
            context.abort(
                grpc.StatusCode.UNAVAILABLE, "in ensemble 'x', Exceeds maximum queue size"
            )
        return CAPTIONS

    scripted_triton.answer = third_time_lucky
    result = ask(asynchronous, scripted_triton.address, retry=PATIENT)
    assert [attempt.number for attempt in result.call.attempts] == [1, 2, 3]
    timeouts = [message.parameters["timeout"].int64_param for message in scripted_triton.messages]
    assert timeouts == sorted(timeouts, reverse=True)
    assert 0 < timeouts[-1] < timeouts[0] <= 20_000_000


@both_clients
def test_without_retries_there_is_one_attempt(
    scripted_triton: ScriptedTriton, asynchronous: bool
) -> None:
    scripted_triton.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
    with pytest.raises(OverloadedError) as caught:
        ask(asynchronous, scripted_triton.address, retry=None)
    assert len(scripted_triton.requests) == 1
    assert caught.value.request_id == scripted_triton.messages[0].id
    assert [attempt.message for attempt in caught.value.attempts] == ["too many"]
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.retry_after > 0


def test_bad_input_is_one_request(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.fail(grpc.StatusCode.INVALID_ARGUMENT, "image cannot be read")
    with pytest.raises(InvalidImageError) as caught:
        ask(False, scripted_triton.address)
    assert len(scripted_triton.requests) == len(caught.value.attempts) == 1


def test_what_is_not_sent_has_no_attempt(scripted_triton: ScriptedTriton) -> None:
    with (
        OFAClient(scripted_triton.address) as client,
        pytest.raises(InvalidOptionError, match="unknown option num_boxes") as caught,
    ):
        client.caption(b"picture", num_boxes=2)
    assert caught.value.attempts == ()
    assert len(caught.value.request_id) == 32
    assert not scripted_triton.requests


@pytest.mark.parametrize("timeout", ["5", True, float("nan"), float("inf"), 1e9])
def test_a_timeout_that_makes_no_sense_is_refused(timeout: Any) -> None:
    with OFAClient() as client, pytest.raises(InvalidOptionError, match="timeout must be a number"):
        client.caption(b"picture", timeout=timeout)


@both_clients
def test_a_result_tells_how_it_came_about(
    scripted_triton: ScriptedTriton, asynchronous: bool
) -> None:
    result = ask(asynchronous, scripted_triton.address, model="mine")
    call, [message] = result.call, scripted_triton.messages
    assert (call.request_id, call.model, call.model_version) == (message.id, "mine", "7")
    [attempt] = call.attempts
    assert (attempt.server, attempt.code) == (scripted_triton.address, "OK")
    assert 0 < attempt.seconds <= call.seconds < 20
    assert 0 <= call.input_seconds <= call.seconds
    assert result == CaptioningResult(result.captions)
    assert CaptioningResult(()).call == CallInfo()


def test_a_keyboard_interrupt_cancels_the_request(scripted_triton: ScriptedTriton) -> None:
    held = Held(scripted_triton)
    main = threading.main_thread().ident
    assert threading.get_ident() == main

    def is_waiting_for_the_answer() -> bool:
        frame = sys._current_frames()[main]
        return "next_event" in linecache.getline(frame.f_code.co_filename, frame.f_lineno)

    def interrupt() -> None:
        held.arrived.wait(30)
        # In the microseconds before, gRPC has sent the request and does not hold the call yet.
        deadline = time.monotonic() + 30
        while not is_waiting_for_the_answer() and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    with OFAClient(scripted_triton.address, timeout=60) as client:
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            client.caption(b"picture")
        assert held.ended.wait(30), "the server did not hear of it"
        interrupter.join()
        scripted_triton.answer = lambda *_: CAPTIONS
        assert client.caption(b"picture").text == "a red apple"


def test_closing_the_client_ends_the_calls_of_other_threads(
    scripted_triton: ScriptedTriton,
) -> None:
    held = Held(scripted_triton)
    client = OFAClient(scripted_triton.address, timeout=60)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.caption, b"picture")
        assert held.arrived.wait(30)
        client.close()
        with pytest.raises(CallCancelledError, match="was closed") as caught:
            call.result(30)
    assert held.ended.wait(30)
    assert caught.value.code == "CANCELLED"
    with pytest.raises(CallCancelledError):
        client.caption(b"picture")


def test_closing_the_client_ends_a_wait(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.fail(grpc.StatusCode.UNAVAILABLE, "not now")
    waiting = threading.Event()
    client = OFAClient(
        scripted_triton.address,
        timeout=1_000_000,
        # A wait of less than 30 s, which would pass unnoticed, is one in 30,000.
        retry=RetryPolicy(initial_backoff=900_000, max_backoff=900_000),
        on_attempt=lambda _: waiting.set(),
    )
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.caption, b"picture")
        assert waiting.wait(30)
        client.close()
        with pytest.raises(CallCancelledError):
            call.result(30)


@both_clients
def test_the_deadline_reaches_the_server(
    scripted_triton: ScriptedTriton, asynchronous: bool
) -> None:
    held, left = Held(scripted_triton), []
    answer = scripted_triton.answer
    scripted_triton.answer = lambda request, context: (
        left.append(context.time_remaining()) or answer(request, context)
    )
    with pytest.raises(DeadlineExceededError) as caught:
        ask(asynchronous, scripted_triton.address, timeout=2)
    assert held.ended.wait(30)
    assert 0 < left[0] <= 2.01
    assert [attempt.code for attempt in caught.value.attempts] == ["DEADLINE_EXCEEDED"]


def test_no_call_fails_while_servers_come_and_go() -> None:
    """Threads share a client; of two servers one at a time is stopped, on the same port again."""
    over = threading.Event()

    def keep_asking(client: OFAClient, number: int) -> int:
        done = 0
        while not over.is_set():
            name = f"picture {number} {done}"
            assert client.caption(name.encode()).text == name
            done += 1
        return done

    def echo(request: Tensors, _: grpc.ServicerContext) -> Tensors:
        return captions_answer([request["image"].item().decode()], [-1.0], [[-1.0]])

    with scripted_server() as lasting, ThreadPoolExecutor(8) as threads:
        lasting.answer = echo
        with scripted_server() as first:
            first.answer = echo
            address = first.address
            client = OFAClient([address, lasting.address], timeout=60, retry=PATIENT)
            calls = [threads.submit(keep_asking, client, number) for number in range(8)]
            wait_for(lambda: len(first.requests) > 50)
        for _ in range(3):
            before = len(lasting.requests)
            wait_for(lambda before=before: len(lasting.requests) > before + 50)
            with scripted_server(address=address) as again:
                again.answer = echo
                wait_for(lambda again=again: len(again.requests) > 50)
        over.set()
        assert all(call.result(60) > 0 for call in calls)
    client.close()


def wait_for(condition: Callable[[], bool]) -> None:
    paused = threading.Event()
    for _ in range(6000):
        if condition():
            return
        paused.wait(0.01)
    raise AssertionError("it never came true")


@both_clients
def test_the_current_span_travels_with_the_request(
    scripted_triton: ScriptedTriton, asynchronous: bool
) -> None:
    from opentelemetry import context, trace

    span = trace.SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=trace.TraceFlags(1))
    around = trace.set_span_in_context(trace.NonRecordingSpan(span))
    token = context.attach(around)
    try:
        ask(asynchronous, scripted_triton.address)
    finally:
        context.detach(token)
    ask(asynchronous, scripted_triton.address)
    inside, outside = scripted_triton.metadata
    assert inside["traceparent"] == f"00-{0x1234:032x}-{0x5678:016x}-01"
    assert "traceparent" not in outside


@both_clients
def test_what_a_tracer_gives_travels_as_grpc_takes_it(
    scripted_triton: ScriptedTriton, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import propagate

    given = {"X-Amzn-Trace-Id": "Root=1", "two words": "x", "x-key-bin": "x", "uberctx-a.b": "c"}
    monkeypatch.setattr(propagate, "inject", lambda carrier: carrier.update(given))
    assert ask(asynchronous, scripted_triton.address).text == "a red apple"
    [metadata] = scripted_triton.metadata
    assert metadata["x-amzn-trace-id"] == "Root=1"
    assert metadata["uberctx-a.b"] == "c"
    assert metadata.keys().isdisjoint({"two words", "x-key-bin"})


def user_timeouts(port: int) -> list[int]:
    """TCP_USER_TIMEOUT, in milliseconds, of this process's connections to a port."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if not descriptor.is_socket():
                continue
            with socket.socket(fileno=os.dup(int(descriptor.name))) as connection:
                if connection.getpeername()[1:2] == (port,):
                    option = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                    found.append(connection.getsockopt(*option))
        except OSError:  # closed meanwhile, or not connected
            continue
    return found


@both_clients
@pytest.mark.parametrize(("keep_alive", "expected"), [(None, 0), (330.0, 20_000)])
def test_a_dead_peer_is_noticed(
    scripted_triton: ScriptedTriton,
    asynchronous: bool,
    keep_alive: float | None,
    expected: int,
) -> None:
    port, found = int(scripted_triton.address.rpartition(":")[2]), list[int]()

    def look(*_: object) -> Tensors:
        found.extend(user_timeouts(port))
        return CAPTIONS

    scripted_triton.answer = look
    ask(asynchronous, scripted_triton.address, keep_alive=keep_alive)
    assert found == [expected]
