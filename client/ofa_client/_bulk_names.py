"""From what a command line names to the pictures of a run, one name after another."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ofa_client._fetch import is_url

#: Endings of the formats that the server decodes, in lower case.
PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
STDIN = "-"

_LIST_MARK = "@"


def picture_names(sources: Iterable[str]) -> Iterator[str]:
    """Yield the name of every picture that the sources stand for, without opening one.

    Args:
        sources: in turn, each
            a folder: the pictures in it and below it, by their endings, sorted folder by folder;
            hidden ones and folders behind links are left out;
            `@FILE`: what the file lists, one name a line, empty lines left out;
            `-`: what standard input lists;
            a pattern such as `photos/**/*.jpg`: what it matches;
            anything else: the name of a picture itself, whether it exists or not.

    Raises:
        OSError: a folder or a list cannot be read, or a pattern matches nothing.
    """
    for source in sources:
        if source == STDIN:
            yield from _lines(sys.stdin.buffer)
        elif source.startswith(_LIST_MARK):
            with Path(source.removeprefix(_LIST_MARK)).open("rb") as file:
                yield from _lines(file)
        elif is_url(source) or Path(source).is_file():
            yield source
        elif Path(source).is_dir():
            yield from _pictures_below(source)
        elif glob.has_magic(source):
            yield from _matches(source)
        else:
            yield source


def can_be_counted(source: str) -> bool:
    """Return whether a source gives its names a second time too, as no pipe does."""
    is_list = source.startswith(_LIST_MARK)
    return source != STDIN and (not is_list or Path(source.removeprefix(_LIST_MARK)).is_file())


def _lines(file: Iterable[bytes]) -> Iterator[str]:
    # As the system's own calls give names, so that one that is not UTF-8 is found all the same.
    names = (os.fsdecode(line.rstrip(b"\r\n")) for line in file)
    return (name for name in names if name)


def _pictures_below(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        visible = sorted(
            (entry for entry in entries if not entry.name.startswith(".")),
            key=lambda entry: entry.name,
        )
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from _pictures_below(entry.path)
        elif entry.name.lower().endswith(PICTURE_SUFFIXES) and entry.is_file():
            yield entry.path


def _matches(pattern: str) -> Iterator[str]:
    found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - takes absolute patterns too
    files = (name for name in found if Path(name).is_file())
    first = next(files, None)
    if first is None:
        raise FileNotFoundError(f"no file matches {pattern}")
    yield first
    yield from files


def name_digest(name: str) -> bytes:
    """Return 16 bytes that stand for a name: memory of names already seen, and the shard."""
    return hashlib.blake2b(os.fsencode(name), digest_size=16).digest()


@dataclass(frozen=True)
class Shard:
    """One of several parts of a list, told by each name alone.

    A name is in the same part wherever it stands in a list and however long that is, so machines
    with the same list share it without a word, and a list may grow.

    Attributes:
        number: of the part, from 1.
        count: of all parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that `I/N` stands for.

        Raises:
            ValueError: it is not two whole numbers with 1 <= I <= N.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise ValueError(f"a shard is I/N, such as 2/8, not {text!r}")
        shard = cls(int(number), int(count))
        if not 1 <= shard.number <= shard.count:
            raise ValueError(f"a shard is 1/{count} to {count}/{count}, not {text}")
        return shard

    def holds(self, digest: bytes) -> bool:
        """Return whether the part holds the name with this `name_digest`."""
        return int.from_bytes(digest, "big") % self.count == self.number - 1
