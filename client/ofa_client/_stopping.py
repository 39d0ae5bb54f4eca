"""Ending what other threads do, when nobody wants their results any more.

A thread that works for a `Stop` knows it from its context, so it need not be handed on through
everything that the thread calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[Stop | None] = ContextVar("ofa_client_stop", default=None)


class Stop:
    """Ends the work of some threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._cancels: set[Callable[[], object]] = set()

    def enter(self) -> None:
        """Let what the current context does be ended."""
        _current.set(self)

    def set(self) -> None:
        """End what is being done, and what is begun from now on."""
        with self._lock:
            self._is_set = True
            cancels = list(self._cancels)
        for cancel in cancels:
            cancel()

    def add(self, cancel: Callable[[], object]) -> None:
        """Have `cancel` called when the end comes, or at once if it has come."""
        with self._lock:
            self._cancels.add(cancel)
            is_set = self._is_set
        if is_set:
            cancel()

    def discard(self, cancel: Callable[[], object]) -> None:
        """Forget about it again."""
        with self._lock:
            self._cancels.discard(cancel)


def is_stoppable() -> bool:
    """Return whether a `Stop` may end what this thread does."""
    return _current.get() is not None


@contextmanager
def stopped_by(cancel: Callable[[], object]) -> Iterator[None]:
    """Let the thread's `Stop`, if it has one, end the block by calling `cancel`."""
    stop = _current.get()
    if stop is None:
        yield
        return
    stop.add(cancel)
    try:
        yield
    finally:
        stop.discard(cancel)
