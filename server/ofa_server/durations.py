"""Durations on command lines."""

from __future__ import annotations

import argparse


def seconds(text: str) -> float:
    """Reads a number of seconds that can be waited for; 0 is one.

    Raises:
        argparse.ArgumentTypeError: it is negative, endless or no number.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    # The last comparison is false for "nan", too.
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return number


def positive_seconds(text: str) -> float:
    """Reads a number of seconds in which something can be done: 0 is none.

    Raises:
        argparse.ArgumentTypeError: as `seconds`, or it is 0.
    """
    if not (number := seconds(text)):
        raise argparse.ArgumentTypeError(f"{text!r} leaves no time")
    return number
