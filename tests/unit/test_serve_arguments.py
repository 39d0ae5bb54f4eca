"""What `ofa serve` and its siblings make of their arguments."""

from __future__ import annotations

import argparse

import pytest

from ofa_server.durations import positive_seconds, seconds
from ofa_server.serve import reachable


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "-inf", "soon", ""])
def test_what_is_no_time_to_wait_is_refused(text: str) -> None:
    for read in (seconds, positive_seconds):
        with pytest.raises(argparse.ArgumentTypeError, match="is no number of seconds"):
            read(text)


def test_no_time_at_all_is_enough_to_wait_but_not_to_answer() -> None:
    assert seconds("0") == 0.0
    assert seconds("1e3") == positive_seconds("1e3") == 1000.0
    with pytest.raises(argparse.ArgumentTypeError, match="leaves no time"):
        positive_seconds("0")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("10.0.0.1", "10.0.0.1"),
        ("server.example.org", "server.example.org"),
    ],
)
def test_a_server_finds_itself(host: str, expected: str) -> None:
    assert reachable(host) == expected
