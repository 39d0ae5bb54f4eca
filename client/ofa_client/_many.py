"""One question about many items: a few requests under way at a time, and little memory."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeAlias, TypeVar

from ofa_client._errors import OFAClientError
from ofa_client._stopping import Stop

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcome: TypeAlias = "tuple[Item, Result | OFAClientError]"
"""An item as it was given, and its answer or why there is none."""

# While the oldest item is slow, as many others go on.
_READ_AHEAD = 2


def check_concurrency(concurrency: int, name: str = "concurrency") -> None:
    """Raise a ValueError if it is not a whole number from 1."""
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ValueError(f"{name} must be a whole number from 1, not {concurrency!r}")


def ask_many(
    ask: Callable[[Item], Result], items: Iterable[Item], *, concurrency: int, ordered: bool
) -> Generator[Outcome[Item, Result], None, None]:
    """Yield the outcome of every item, with `concurrency` threads that ask.

    At most `2 * concurrency` items have been read and not yet yielded. `items` is read in the
    caller's thread while that waits for an outcome, one for each outcome once it is that far ahead.
    When the iterator is closed, requests under way are cancelled.

    Args:
        ask: what a thread does with one item; an `OFAClientError` becomes the item's outcome,
            without its traceback; any other error ends the iterator, and so does an error of
            `items`.
        items: may be endless.
        concurrency: threads.
        ordered: in the order of the items; otherwise as they are answered.
    """
    threads = ThreadPoolExecutor(concurrency, thread_name_prefix="ofa-client")
    stop = Stop()
    running: list[Future[Outcome[Item, Result]]] = []

    def take(*, must_wait: bool) -> Iterator[Outcome[Item, Result]]:
        candidates = running[:1] if ordered else running
        if must_wait:
            wait(candidates, return_when=FIRST_COMPLETED)
        for future in [future for future in candidates if future.done()][:1]:
            running.remove(future)
            yield future.result()

    try:
        for item in items:
            # A trace that the caller has begun goes on in the thread.
            context = contextvars.copy_context()
            context.run(stop.enter)
            running.append(threads.submit(context.run, _outcome, ask, item))
            yield from take(must_wait=len(running) == _READ_AHEAD * concurrency)
        while running:
            yield from take(must_wait=True)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        stop.set()


def _outcome(ask: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    try:
        return item, ask(item)
    except OFAClientError as error:
        return item, _without_frames(error)


def _without_frames(error: OFAClientError) -> OFAClientError:
    """Return the error without the tracebacks of it and of what it was made of.

    Their frames, and those that called them, hold the item, and so would whoever keeps the error.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


async def ask_many_async(
    ask: Callable[[Item], Awaitable[Result]],
    items: Iterable[Item] | AsyncIterable[Item],
    *,
    concurrency: int,
    ordered: bool,
) -> AsyncGenerator[Outcome[Item, Result], None]:
    """Yield the outcome of every item, with `concurrency` of them being asked at a time.

    As `ask_many`, with tasks in place of threads. A task reads `items`, one more than `ask_many`.
    """
    room = asyncio.Semaphore(_READ_AHEAD * concurrency)
    places = asyncio.Semaphore(concurrency)
    tasks: set[asyncio.Task[Outcome[Item, Result]]] = set()
    to_yield: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

    async def outcome(item: Item) -> Outcome[Item, Result]:
        async with places:
            try:
                return item, await ask(item)
            except OFAClientError as error:
                return item, _without_frames(error)

    async def start_all() -> None:
        async for item in _each(items):
            await room.acquire()
            task = asyncio.create_task(outcome(item))
            tasks.add(task)
            if ordered:
                to_yield.put_nowait(task)
            else:
                task.add_done_callback(to_yield.put_nowait)
        if tasks:
            await asyncio.wait(tasks)

    starting = asyncio.create_task(start_all())
    starting.add_done_callback(to_yield.put_nowait)
    try:
        while (task := await to_yield.get()) is not starting:
            tasks.remove(task)
            yield await task
            room.release()
        starting.result()  # raises what reading the items did
    finally:
        unfinished = [starting, *tasks]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
