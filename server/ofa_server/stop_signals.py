"""SIGTERM and SIGINT as an exception, wherever the main thread happens to be."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """SIGTERM or SIGINT; not an Exception, so that nothing on the way takes it for an error."""


def raise_on_next_signal() -> None:
    """Lets the next signal raise `StopRequested`; those after it are ignored."""
    for number in _SIGNALS:
        signal.signal(number, _request_stop)


def ignore_signals() -> None:
    """Lets nothing interrupt what comes next."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def readable_on_signal() -> Iterator[int]:
    """A descriptor that turns readable when a signal arrives, for who waits in `poll`.

    Python's handler runs once `poll` is over, and a signal ends a `poll` only while it waits, and
    in the main thread. One that comes a moment earlier, or to another thread, would be kept back
    until something else ends the wait.

    Raises:
        ValueError: this is not the main thread.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.settimeout(0)
        before = -1
        try:
            # Within, because a handler that raises may run as soon as this call ends.
            before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            yield reader.fileno()
        finally:
            signal.set_wakeup_fd(before)


def _request_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    ignore_signals()
    raise StopRequested
