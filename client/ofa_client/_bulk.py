"""A run over many pictures: the answers go to a file, and what has one is not asked about again."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ofa_client._bulk_journal import Journal
from ofa_client._bulk_names import Shard, name_digest, picture_names
from ofa_client._errors import (
    AuthenticationError,
    ModelNotReadyError,
    OFAClientError,
    UnavailableError,
)
from ofa_client._fetch import read_picture
from ofa_client._many import ask_many
from ofa_client._printing import Result, to_json

Ask: TypeAlias = Callable[[bytes], Result]
"""Asks the server about an encoded picture; called by several threads at a time."""

# What every other picture would meet too.
_ENDS_THE_RUN = (AuthenticationError, ModelNotReadyError, UnavailableError)


@dataclass
class Counts:
    """The pictures of a run so far.

    Attributes:
        answered: have an answer.
        duplicates: those of them that have another picture's.
        failed: have an error.
    """

    answered: int = 0
    duplicates: int = 0
    failed: int = 0


def unanswered(sources: Iterable[str], shard: Shard | None, journal: Journal) -> Iterator[str]:
    """Yield the names of the pictures that have no answer, each once, and claim them.

    Args:
        sources: as for `picture_names`, whose errors pass.
        shard: which names; None for all.
        journal: what has an answer or is claimed.
    """
    for name in picture_names(sources):
        digest = name_digest(name)
        if (shard is None or shard.holds(digest)) and journal.claim(digest):
            yield name


def count_unanswered(sources: Iterable[str], shard: Shard | None, journal: Journal) -> int:
    """Return how many names `unanswered` would yield, one that stands twice counted twice."""
    digests = (name_digest(name) for name in picture_names(sources))
    return sum(
        not journal.has_name(digest) for digest in digests if shard is None or shard.holds(digest)
    )


def ask_all(names: Iterable[str], journal: Journal, ask: Ask, concurrency: int) -> Iterator[Counts]:
    """Ask about every picture, keep what comes in the journal, and yield the counts after each.

    A content that has been answered, or is being asked about, is not sent again.

    Args:
        names: of pictures without a line.
        journal: where answers and failures go, in the order in which they come.
        ask: how.
        concurrency: threads, each with one picture in memory.

    Raises:
        UnavailableError: nobody answers at the address. Pictures that were under way have no line.
        ModelNotReadyError: the server has no such model; likewise.
        AuthenticationError: the server refuses the credentials; likewise.
        JournalError: the journal's file cannot be written.
    """
    counts = Counts()
    asker = _Asker(journal, ask)
    for name, outcome in ask_many(asker, names, concurrency=concurrency, ordered=False):
        if isinstance(outcome, _ENDS_THE_RUN):
            raise outcome
        if isinstance(outcome, OFAClientError):
            journal.add_failure(name, outcome.code, outcome.message)
            counts.failed += 1
        else:
            answer = None if outcome.result is None else to_json(outcome.result)
            counts.duplicates += journal.add_answer(name, outcome.sha256, answer)
            counts.answered += 1
            asker.forget(outcome.sha256)
        yield counts


class _Content(NamedTuple):
    """What is in a picture's file.

    Attributes:
        sha256: of it.
        result: the server's answer; None if the journal has it.
    """

    sha256: bytes
    result: Result | None


class _Asker:
    """Reads pictures and asks about them, about each content once."""

    def __init__(self, journal: Journal, ask: Ask) -> None:
        self._journal = journal
        self._ask = ask
        self._lock = threading.Lock()
        # Contents whose answer is under way, or has come and is not in the journal yet.
        self._asked: dict[bytes, Future[Result]] = {}

    def __call__(self, name: str) -> _Content:
        image_bytes = read_picture(name)
        sha256 = hashlib.sha256(image_bytes).digest()
        with self._lock:
            if self._journal.has_content(sha256):
                return _Content(sha256, None)
            is_first = sha256 not in self._asked
            answer = self._asked.setdefault(sha256, Future())
        if is_first:
            try:
                answer.set_result(self._ask(image_bytes))
            except BaseException as error:
                self.forget(sha256)
                answer.set_exception(error)
                raise
        return _Content(sha256, answer.result())

    def forget(self, sha256: bytes) -> None:
        """Let go of an answer that is in the journal, or has not come."""
        with self._lock:
            self._asked.pop(sha256, None)
