"""`caption_many` of both clients against a scripted server."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ofa_client import AsyncOFAClient, InvalidImageError, OFAClient, OFAClientError
from tests.unit.scripted_triton import CAPTIONS, Held, ScriptedTriton, Tensors, captions_answer

DEADLINE_S = 30


@pytest.fixture
def pictures(scripted_triton: ScriptedTriton) -> list[bytes]:
    """Pictures whose caption is what they hold; every fifth one is refused."""

    def answer(request: Tensors, context: grpc.ServicerContext) -> Tensors:
        text = request["image"].item().decode()
        if int(text) % 5 == 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "image cannot be read")
        return captions_answer([text], [-1.0], [[-1.0]])

    scripted_triton.answer = answer
    return [str(number).encode() for number in range(20)]


def text_or_error(result: Any) -> str:
    return type(result).__name__ if isinstance(result, OFAClientError) else result.text


def expected(pictures: list[bytes]) -> list[tuple[bytes, str]]:
    return [
        (picture, "InvalidImageError" if int(picture) % 5 == 0 else picture.decode())
        for picture in pictures
    ]


@pytest.mark.parametrize("ordered", [True, False])
def test_every_picture_has_its_captions_or_its_error(
    scripted_triton: ScriptedTriton, pictures: list[bytes], ordered: bool
) -> None:
    with OFAClient(scripted_triton.address, timeout=DEADLINE_S) as client:
        sync = [
            (picture, text_or_error(result))
            for picture, result in client.caption_many(pictures, 4, ordered=ordered)
        ]

    async def one_by_one() -> AsyncIterator[bytes]:
        for picture in pictures:
            yield picture

    async def collect() -> list[tuple[bytes, str]]:
        async with AsyncOFAClient(scripted_triton.address, timeout=DEADLINE_S) as client:
            outcomes = client.caption_many(one_by_one(), 4, ordered=ordered)
            return [(picture, text_or_error(result)) async for picture, result in outcomes]

    awaited = asyncio.run(collect())
    assert sorted(sync) == sorted(awaited) == sorted(expected(pictures))
    if ordered:
        assert sync == awaited == expected(pictures)


def test_options_reach_the_server(scripted_triton: ScriptedTriton) -> None:
    options: dict[str, Any] = {"num_captions": 2, "model": "mine", "beam_size": 3}

    async def ask() -> None:
        async with AsyncOFAClient(scripted_triton.address, timeout=DEADLINE_S) as client:
            async for _ in client.caption_many([b"picture"], **options):
                pass

    with OFAClient(scripted_triton.address, timeout=DEADLINE_S) as client:
        list(client.caption_many([b"picture"], **options))
    asyncio.run(ask())
    assert scripted_triton.models == ["mine", "mine"]
    for request in scripted_triton.requests:
        assert request["num_captions"].item() == 2
        assert request["beam_size"].item() == 3


def test_a_missing_file_is_the_outcome_of_that_picture(
    scripted_triton: ScriptedTriton, tmp_path: Path
) -> None:
    there, missing = tmp_path / "there.jpg", tmp_path / "missing.jpg"
    there.write_bytes(b"picture")
    with OFAClient(scripted_triton.address, timeout=DEADLINE_S) as client:
        (_, failed), (_, answered) = client.caption_many([missing, there])
    assert isinstance(failed, InvalidImageError)
    assert text_or_error(answered) == "a red apple"


@pytest.mark.parametrize("concurrency", [0, -1, 1.5])
def test_a_concurrency_that_makes_no_sense_is_refused(concurrency: Any) -> None:
    with OFAClient() as client, pytest.raises(ValueError, match="concurrency must be"):
        client.caption_many([], concurrency)

    async def ask() -> None:
        async with AsyncOFAClient() as client:
            client.caption_many([], concurrency)

    with pytest.raises(ValueError, match="concurrency must be"):
        asyncio.run(ask())


class HeldAfterTheFirst:
    """Answers the first request; holds the others back until their calls are over."""

    def __init__(self, triton: ScriptedTriton) -> None:
        self.num_arrived, self.num_ended = threading.Semaphore(0), threading.Semaphore(0)
        self._is_first = threading.Lock()
        triton.answer = self

    def __call__(self, _: Tensors, context: grpc.ServicerContext) -> Tensors:
        if self._is_first.acquire(blocking=False):
            return CAPTIONS
        ended = threading.Event()
        context.add_callback(ended.set)
        self.num_arrived.release()
        assert ended.wait(timeout=DEADLINE_S)
        self.num_ended.release()
        return CAPTIONS

    def wait_for(self, semaphore: threading.Semaphore, number: int) -> None:
        for _ in range(number):
            assert semaphore.acquire(timeout=DEADLINE_S)


def test_stopping_early_cancels_the_requests_under_way(scripted_triton: ScriptedTriton) -> None:
    held = HeldAfterTheFirst(scripted_triton)
    endless = (b"%d" % number for number in itertools.count())
    with OFAClient(scripted_triton.address, timeout=600) as client:
        for picture, _ in client.caption_many(endless, 3, ordered=False):
            assert picture in (b"0", b"1", b"2")
            held.wait_for(held.num_arrived, 3)
            break
        held.wait_for(held.num_ended, 3)
        # The client itself goes on.
        scripted_triton.answer = lambda *_: CAPTIONS
        assert client.caption(b"picture").text == "a red apple"


def test_stopping_early_cancels_the_tasks_under_way(scripted_triton: ScriptedTriton) -> None:
    held = HeldAfterTheFirst(scripted_triton)
    endless = (b"%d" % number for number in itertools.count())

    async def ask() -> None:
        async with AsyncOFAClient(scripted_triton.address, timeout=600) as client:
            async for _ in client.caption_many(endless, 3, ordered=False):
                await asyncio.to_thread(held.wait_for, held.num_arrived, 3)
                break
            await asyncio.to_thread(held.wait_for, held.num_ended, 3)

    asyncio.run(ask())


def test_closing_the_client_ends_the_iterator_with_errors(scripted_triton: ScriptedTriton) -> None:
    held = Held(scripted_triton)
    client = OFAClient(scripted_triton.address, timeout=600)
    closing = threading.Thread(target=lambda: (held.arrived.wait(DEADLINE_S), client.close()))
    closing.start()
    outcomes = list(client.caption_many([b"1", b"2", b"3"], 1))
    closing.join()
    assert {text_or_error(result) for _, result in outcomes} == {"CallCancelledError"}
