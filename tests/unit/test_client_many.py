"""Many items under way at a time: order, bounds, errors and stopping."""

import asyncio
import contextvars
import gc
import itertools
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from ofa_client import OFAClientError
from ofa_client._many import ask_many, ask_many_async

DEADLINE_S = 30


def outcomes(
    ask: Callable[[int], Any], items: Any, concurrency: int = 3, ordered: bool = True
) -> list[tuple[int, Any]]:
    return list(ask_many(ask, items, concurrency=concurrency, ordered=ordered))


def outcomes_async(
    ask: Callable[[int], Awaitable[Any]], items: Any, concurrency: int = 3, ordered: bool = True
) -> list[tuple[int, Any]]:
    async def collect() -> list[tuple[int, Any]]:
        found = ask_many_async(ask, items, concurrency=concurrency, ordered=ordered)
        return [outcome async for outcome in found]

    return asyncio.run(asyncio.wait_for(collect(), DEADLINE_S))


class Counted:
    """Endless items that say how many were read."""

    def __init__(self) -> None:
        self.num_read = 0

    def __iter__(self) -> Iterator[int]:
        for item in itertools.count():
            self.num_read += 1
            yield item


async def squared(item: int) -> int:
    await asyncio.sleep(0)
    return item * item


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_every_item_has_its_outcome(concurrency: int, ordered: bool) -> None:
    expected = [(item, item * item) for item in range(20)]
    threads = outcomes(lambda item: item * item, range(20), concurrency, ordered)
    tasks = outcomes_async(squared, range(20), concurrency, ordered)
    assert sorted(threads) == sorted(tasks) == expected
    if ordered:
        assert threads == tasks == expected


def test_no_items_have_no_outcomes() -> None:
    assert outcomes(str, []) == []
    assert outcomes_async(squared, []) == []


def test_an_error_is_the_outcome_of_its_item_alone() -> None:
    error = OFAClientError("no")

    def ask(item: int) -> int:
        if item == 2:
            raise error
        return item

    async def ask_async(item: int) -> int:
        return ask(item)

    expected = [(0, 0), (1, 1), (2, error), (3, 3)]
    assert outcomes(ask, range(4)) == expected
    assert outcomes_async(ask_async, range(4)) == expected


class Picture:
    """An item that can be referred to weakly."""


def test_an_error_that_is_kept_does_not_keep_its_item() -> None:
    def ask(item: Picture) -> float:
        try:
            return float("a cause")
        except ValueError as error:
            raise OFAClientError("no") from error

    async def ask_async(item: Picture) -> float:
        return ask(item)

    async def collect() -> list[OFAClientError | float]:
        found = ask_many_async(ask_async, pictures(), concurrency=2, ordered=True)
        return [outcome async for _, outcome in found]

    def pictures() -> Iterator[Picture]:
        for _ in range(4):
            picture = Picture()
            alive.append(weakref.ref(picture))
            yield picture

    alive: list[weakref.ref[Picture]] = []
    kept = [outcome for _, outcome in ask_many(ask, pictures(), concurrency=2, ordered=True)]
    kept += asyncio.run(asyncio.wait_for(collect(), DEADLINE_S))
    gc.collect()
    assert [picture() for picture in alive] == [None] * 8
    assert [str(error) for error in kept] == ["no"] * 8


def test_another_error_ends_the_iterator() -> None:
    async def ask_async(item: int) -> float:
        return 1 / item

    with pytest.raises(ZeroDivisionError):
        outcomes(lambda item: 1 / item, [1, 0, 1])
    with pytest.raises(ZeroDivisionError):
        outcomes_async(ask_async, [1, 0, 1])


def test_an_error_of_the_items_passes() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        outcomes(str, items())
    with pytest.raises(KeyError, match="lost"):
        outcomes_async(squared, items())


@pytest.mark.parametrize("ordered", [True, False])
def test_threads_read_little_ahead_of_what_was_taken(ordered: bool) -> None:
    items = Counted()
    taken = ask_many(str, items, concurrency=4, ordered=ordered)
    for num_taken in range(1, 200):
        next(taken)
        assert items.num_read <= num_taken + 2 * 4


@pytest.mark.parametrize("ordered", [True, False])
def test_tasks_read_little_ahead_of_what_was_taken(ordered: bool) -> None:
    async def take() -> None:
        items = Counted()
        taken = ask_many_async(squared, items, concurrency=4, ordered=ordered)
        for num_taken in range(1, 200):
            await anext(taken)
            # One more has been read and waits for room.
            assert items.num_read <= num_taken + 2 * 4 + 1
        await taken.aclose()

    asyncio.run(asyncio.wait_for(take(), DEADLINE_S))


def test_no_more_than_concurrency_are_asked_about_at_a_time() -> None:
    together = threading.Barrier(4)  # passes only if four are there at a time
    lock = threading.Lock()
    running = highest = 0

    def ask(item: int) -> int:
        nonlocal running, highest
        with lock:
            running += 1
            highest = max(highest, running)
        together.wait(DEADLINE_S)
        with lock:
            running -= 1
        together.wait(DEADLINE_S)
        return item

    outcomes(ask, range(20), concurrency=4)
    assert highest == 4

    four_there = [asyncio.Event() for _ in range(5)]

    async def ask_async(item: int) -> int:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        if running == 4:
            four_there[item // 4].set()
        await four_there[item // 4].wait()
        running -= 1
        return item

    running = highest = 0
    outcomes_async(ask_async, range(20), concurrency=4)
    assert highest == 4


def test_a_slow_item_holds_the_others_up_only_in_order() -> None:
    may_end = threading.Event()

    def ask(item: int) -> int:
        if item == 0:
            assert may_end.wait(DEADLINE_S)
        return item

    as_answered = ask_many(ask, range(6), concurrency=2, ordered=False)
    assert sorted(next(as_answered)[0] for _ in range(5)) == [1, 2, 3, 4, 5]
    may_end.set()
    assert next(as_answered) == (0, 0)

    async def take() -> None:
        may_end_async = asyncio.Event()

        async def ask_async(item: int) -> int:
            if item == 0:
                await may_end_async.wait()
            return item

        found = ask_many_async(ask_async, range(6), concurrency=2, ordered=False)
        assert sorted([(await anext(found))[0] for _ in range(5)]) == [1, 2, 3, 4, 5]
        may_end_async.set()
        assert await anext(found) == (0, 0)

    asyncio.run(asyncio.wait_for(take(), DEADLINE_S))


def test_what_is_answered_comes_while_asynchronous_items_keep_it_waiting() -> None:
    async def take() -> None:
        last_may_come = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            yield 1
            await last_may_come.wait()
            yield 2

        found = ask_many_async(squared, items(), concurrency=4, ordered=True)
        assert await anext(found) == (1, 1)
        last_may_come.set()
        assert [outcome async for outcome in found] == [(2, 4)]

    asyncio.run(asyncio.wait_for(take(), DEADLINE_S))


def test_stopping_cancels_the_tasks() -> None:
    async def take() -> None:
        started, cancelled = set[int](), set[int]()

        async def ask(item: int) -> int:
            started.add(item)
            if item:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.add(item)
                    raise
            return item

        found = ask_many_async(ask, itertools.count(), concurrency=3, ordered=False)
        assert await anext(found) == (0, 0)
        while len(started) < 3:
            await asyncio.sleep(0)
        await found.aclose()
        assert cancelled == started - {0}

    asyncio.run(asyncio.wait_for(take(), DEADLINE_S))


def test_stopping_starts_nothing_more() -> None:
    asked: list[int] = []
    first_may_end = threading.Event()

    def ask(item: int) -> int:
        asked.append(item)
        if item:
            assert first_may_end.wait(DEADLINE_S)
        return item

    taken = ask_many(ask, itertools.count(), concurrency=2, ordered=True)
    assert next(taken) == (0, 0)
    taken.close()
    first_may_end.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ofa-client"):
            thread.join(DEADLINE_S)
    assert set(asked) <= {0, 1, 2}


def test_threads_see_the_callers_context() -> None:
    trace = contextvars.ContextVar("trace", default="none")
    trace.set("the caller's")
    assert outcomes(lambda _: trace.get(), [1, 2]) == [(1, "the caller's"), (2, "the caller's")]
