"""A signal ends a wait whenever it comes."""

from __future__ import annotations

import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from ofa_server.stop_signals import (
    StopRequested,
    ignore_signals,
    raise_on_next_signal,
    readable_on_signal,
)
from ofa_server.triton_process import TritonProcess


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_death_is_not_waited_for_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent to another thread, a signal cannot interrupt the wait itself.

    Nor can one that comes just before the wait, which a test cannot time.
    """
    waiting, stopped = threading.Event(), threading.Event()
    in_time = []

    def send() -> None:
        waiting.wait(60)
        # The main thread says so a moment before it waits.
        time.sleep(0.3)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        in_time.append(stopped.wait(10))

    class Poll:
        """select.poll, which says when the wait is about to begin."""

        def __init__(self) -> None:
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, timeout: float | None) -> list[tuple[int, int]]:
            waiting.set()
            return self._poll.poll(timeout)

    poll = select.poll
    monkeypatch.setattr(select, "poll", Poll)
    sender = threading.Thread(target=send)
    sender.start()
    child = subprocess.Popen(["sleep", "600"])
    try:
        triton = TritonProcess.__new__(TritonProcess)
        monkeypatch.setattr(triton, "_process", child, raising=False)
        raise_on_next_signal()
        with pytest.raises(StopRequested):
            triton.wait_for_death({}, timeout_s=20)
        stopped.set()
    finally:
        sender.join()
        child.kill()
        child.wait()
    assert in_time == [True]


def test_nothing_is_left_of_it() -> None:
    def handler(_number: int, _frame: FrameType | None) -> None:
        pass

    signal.signal(signal.SIGTERM, handler)
    with readable_on_signal() as outer:
        with readable_on_signal() as inner:
            signal.raise_signal(signal.SIGTERM)
            assert select.select([outer, inner], [], [], 0)[0] == [inner]
        signal.raise_signal(signal.SIGTERM)
        assert select.select([outer], [], [], 0)[0] == [outer]
    assert signal.set_wakeup_fd(-1) == -1


def test_nothing_is_left_of_it_when_a_signal_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    set_wakeup_fd = signal.set_wakeup_fd

    def set_and_send(fd: int, **options: bool) -> int:
        before = set_wakeup_fd(fd, **options)
        if options:
            signal.raise_signal(signal.SIGTERM)
        return before

    monkeypatch.setattr(signal, "set_wakeup_fd", set_and_send)
    raise_on_next_signal()
    with pytest.raises(StopRequested), readable_on_signal():
        pass
    assert set_wakeup_fd(-1) == -1


def test_only_the_first_signal_is_a_request() -> None:
    raise_on_next_signal()
    with pytest.raises(StopRequested):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    raise_on_next_signal()
    ignore_signals()
    signal.raise_signal(signal.SIGTERM)
