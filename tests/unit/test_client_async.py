"""AsyncOFAClient: that it is OFAClient, awaited; what it does beside is cancelling."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from ofa_client import (
    AsyncOFAClient,
    CallCancelledError,
    DeadlineExceededError,
    InvalidImageError,
    ModelNotReadyError,
    OFAClient,
    RetryPolicy,
)
from tests.unit.scripted_triton import Held, ScriptedTriton, Tensors, captions_answer
from tests.unit.test_client_verbs import IDS, VERBS, last_request


def public_methods(cls: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


def test_both_clients_have_the_same_methods_with_the_same_signatures() -> None:
    sync, awaited = public_methods(OFAClient), public_methods(AsyncOFAClient)
    assert len(sync) >= 12
    assert sync.keys() == awaited.keys()
    for name, method in sync.items():
        expected, found = inspect.signature(method), inspect.signature(awaited[name])
        if name == "caption_many":  # takes and returns what `async for` goes through
            assert found.parameters.keys() == expected.parameters.keys()
        else:
            assert found == expected, name
        not_awaited = name in ("__init__", "caption_many")
        assert inspect.iscoroutinefunction(awaited[name]) != not_awaited, name
        if name != "close":
            assert method.__doc__ == awaited[name].__doc__, name


@pytest.mark.parametrize(
    ("method", "arguments", "model", "sent", "count", "answer", "result"), VERBS, ids=IDS
)
def test_a_verb_sends_the_same_and_returns_the_same(
    scripted_triton: ScriptedTriton,
    method: Callable[..., Any],
    arguments: dict[str, Any],
    model: str,
    sent: dict[str, Any],
    count: str,
    answer: Tensors,
    result: object,
) -> None:
    scripted_triton.answer = lambda *_: answer

    async def ask() -> object:
        async with AsyncOFAClient(scripted_triton.address, timeout=20) as client:
            return await getattr(client, method.__name__)(**arguments, **{count: 2})

    assert asyncio.run(ask()) == result
    assert last_request(scripted_triton) == {**sent, count: 2}
    assert scripted_triton.models == [model]


def test_tasks_share_a_client(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.answer = lambda request, _: captions_answer(
        [request["image"].item().decode()], [-1.0], [[-1.0]]
    )
    names = [f"picture {i}" for i in range(200)]

    async def ask() -> list[str]:
        async with AsyncOFAClient(scripted_triton.address, timeout=20) as client:
            results = await asyncio.gather(*(client.caption(name.encode()) for name in names))
            return [result.text for result in results]

    assert asyncio.run(ask()) == names


def test_errors_are_the_same(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.fail(grpc.StatusCode.NOT_FOUND, "unknown model")

    async def ask(image: Any) -> object:
        async with AsyncOFAClient(scripted_triton.address, timeout=20) as client:
            return await client.caption(image)

    with pytest.raises(ModelNotReadyError) as caught:
        asyncio.run(ask(b"picture"))
    assert caught.value.request_id == scripted_triton.messages[0].id
    assert [attempt.code for attempt in caught.value.attempts] == ["NOT_FOUND"]
    with pytest.raises(InvalidImageError, match="cannot be read"):
        asyncio.run(ask("no/such/file"))
    assert len(scripted_triton.requests) == 1


def test_cancelling_the_task_cancels_the_request(scripted_triton: ScriptedTriton) -> None:
    held = Held(scripted_triton)

    async def ask() -> None:
        async with AsyncOFAClient(scripted_triton.address, timeout=60) as client:
            task = asyncio.ensure_future(client.caption(b"picture"))
            await asyncio.to_thread(held.arrived.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(held.ended.wait, 30)

    asyncio.run(ask())
    assert len(scripted_triton.requests) == 1


class StuckFile:
    """A file whose read ends when the test lets it."""

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def read(self, size: int, /) -> bytes:
        self.may_end.wait(30)
        return b""


def test_a_picture_that_is_not_there_in_time_ends_its_call(
    scripted_triton: ScriptedTriton,
) -> None:
    file = StuckFile()

    async def ask() -> None:
        async with AsyncOFAClient(scripted_triton.address, timeout=20) as client:
            # More than there are threads to read them.
            calls = [client.caption(file, timeout=0.2) for _ in range(20)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert not file.may_end.is_set()
            assert {str(outcome) for outcome in outcomes} == {"the image was not there in time"}
            assert {type(outcome) for outcome in outcomes} == {DeadlineExceededError}
            file.may_end.set()

    try:
        asyncio.run(asyncio.wait_for(ask(), 10))
    finally:
        file.may_end.set()
    assert not scripted_triton.requests


def test_closing_the_client_ends_its_calls(scripted_triton: ScriptedTriton) -> None:
    held = Held(scripted_triton)

    async def ask() -> None:
        client = AsyncOFAClient(scripted_triton.address, timeout=60)
        task = asyncio.ensure_future(client.caption(b"picture"))
        await asyncio.to_thread(held.arrived.wait, 30)
        await client.close()
        with pytest.raises(CallCancelledError, match="was closed") as caught:
            await task
        assert caught.value.request_id == scripted_triton.messages[0].id
        assert await asyncio.to_thread(held.ended.wait, 30)
        with pytest.raises(CallCancelledError):
            await client.caption(b"picture")

    asyncio.run(ask())


def test_closing_the_client_ends_a_wait(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.fail(grpc.StatusCode.UNAVAILABLE, "not now")

    async def ask() -> None:
        waiting = asyncio.Event()
        client = AsyncOFAClient(
            scripted_triton.address,
            timeout=1_000_000,
            # A wait of less than 30 s, which would pass unnoticed, is one in 30,000.
            retry=RetryPolicy(initial_backoff=900_000, max_backoff=900_000),
            on_attempt=lambda _: waiting.set(),
        )
        task = asyncio.ensure_future(client.caption(b"picture"))
        await asyncio.wait_for(waiting.wait(), 30)
        await client.close()
        with pytest.raises(CallCancelledError):
            await asyncio.wait_for(task, 30)

    asyncio.run(ask())
