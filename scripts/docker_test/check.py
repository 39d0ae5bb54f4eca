"""How a step says what it does, what it found, and that something is not as it should be."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ofa_client import OFAClientError


class CheckError(Exception):
    """Something is not as it should be; the message says what."""


#: What a service that does not answer as it should is seen by, too.
FAILURES = (CheckError, OFAClientError, OSError)

_started = time.monotonic()


def begin(title: str) -> None:
    print(f"== {title} (after {time.monotonic() - _started:.0f} s)", flush=True)


def passed(sentence: str) -> None:
    print(f"   ok: {sentence}", flush=True)


def require(condition: object, sentence: str) -> None:
    """Prints the sentence if the condition is true.

    Raises:
        CheckError: it is not.
    """
    if not condition:
        raise CheckError(f"not true: {sentence}")
    passed(sentence)


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    patience: float = 1200,
) -> str:
    """Runs a program to its end.

    Returns:
        What it wrote on standard output.

    Raises:
        CheckError: its exit status is not 0, or it took longer than `patience` seconds.
    """
    name = " ".join(str(word) for word in command)
    try:
        ended = subprocess.run(
            [str(word) for word in command],
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"{name} took longer than {patience:g} s") from error
    if ended.returncode:
        tail = "\n".join((ended.stdout + ended.stderr).splitlines()[-40:])
        raise CheckError(f"{name} ended with status {ended.returncode}:\n{tail}")
    return ended.stdout


def wait_until(condition: Callable[[], object], sentence: str, patience: float = 60) -> None:
    """Asks again and again until the condition is true, and then prints the sentence.

    Raises:
        CheckError: it is not within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise CheckError(f"not within {patience:g} s: {sentence}")
        time.sleep(0.2)
    passed(sentence)
