"""SIGTERM and SIGINT as an exception, wherever the main thread happens to be."""

from __future__ import annotations

import signal
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


def _request_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    ignore_signals()
    raise StopRequested
