"""The file that the answers of a run are kept in, from which the next run goes on."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ofa_client._bulk_names import name_digest

try:
    import fcntl
except ImportError:  # on Windows nobody looks whether two runs write to one file
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing_extensions import Self

#: What every line starts with.
_START = b'{"image": "'
#: Bytes of a content's SHA-256 that are kept in memory to tell it from others.
_KEPT_BYTES = 16


class JournalError(Exception):
    """The file cannot be read or written, or holds something else than such answers."""


class Journal:
    """JSON Lines, each with what became of one picture.

    - `{"image": NAME, "sha256": ITS CONTENT'S, RESULTS: [...]}` is an answer.
    - `{"image": NAME, "sha256": ..., "duplicate_of": NAME, RESULTS: [...]}` is one that was taken
      over from the line of another picture, which stands further up and has the same content.
    - `{"image": NAME, "error": {...}}` is a failure. The next run takes it away and asks again, so
      that in the end every picture has exactly one line.

    In memory are 16 bytes a name, and 16 bytes and the place of a line a content: with what Python
    needs to hold them, some 220 bytes a picture.

    Args:
        path: of the file, made if there is none. Failures and the half line that a killed run has
            left are taken away at once.
        results: name of the list in an answer.

    Raises:
        JournalError: the file cannot be read or written, another run is writing it, or it holds
            something else than such answers; it is then left as it is.
    """

    def __init__(self, path: Path, results: str) -> None:
        self._path = path
        self._results = results
        self._names: set[bytes] = set()
        self._places: dict[bytes, int] = {}
        self._size = 0
        try:
            self._file = _open_alone(path)
            try:
                if self._load(path.resolve()):
                    self._file.close()
                    self._file = _open_alone(path)
                self._reader = path.open("rb")
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise JournalError(f"{path} cannot be read and written ({error.strerror})") from error

    def has_name(self, digest: bytes) -> bool:
        """Return whether the picture with this `name_digest` has an answer or is claimed."""
        return digest in self._names

    def claim(self, digest: bytes) -> bool:
        """Claim a picture; return False if it has an answer or was claimed before."""
        if digest in self._names:
            return False
        self._names.add(digest)
        return True

    def has_content(self, sha256: bytes) -> bool:
        """Return whether some picture of this content has an answer."""
        return sha256[:_KEPT_BYTES] in self._places

    def add_answer(self, name: str, sha256: bytes, answer: Mapping[str, Any] | None) -> bool:
        """Write the line of a picture that has been answered.

        Args:
            name: of the picture.
            sha256: of its content.
            answer: the results by their name; not needed if `has_content(sha256)`.

        Returns:
            Whether it was a duplicate: then the line says what the first picture's line says.

        Raises:
            JournalError: the file cannot be written.
        """
        entry = {"image": name, "sha256": sha256.hex()}
        place = self._places.get(sha256[:_KEPT_BYTES])
        if place is None:
            self._places[sha256[:_KEPT_BYTES]] = self._size
            self._write({**entry, **(answer or {})})
        else:
            self._reader.seek(place)
            first = json.loads(self._reader.readline())
            same = {self._results: first[self._results]}
            self._write({**entry, "duplicate_of": first["image"], **same})
        return place is not None

    def add_failure(self, name: str, code: str, message: str) -> None:
        """Write the line of a picture that was not answered.

        Raises:
            JournalError: the file cannot be written.
        """
        self._write({"image": name, "error": {"code": code, "message": message}})

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise JournalError(f"{self._path} cannot be written ({error.strerror})") from error
        self._size += len(line)

    def _load(self, path: Path) -> bool:
        """Read the lines that are there, and take failures and half a line away.

        Returns:
            Whether there is another file under the name now.
        """
        num_failures = 0
        for line, entry in self._entries(path):
            if "error" in entry:
                num_failures += 1
                continue
            self._names.add(name_digest(entry["image"]))
            content = bytes.fromhex(entry["sha256"])[:_KEPT_BYTES]
            self._places.setdefault(content, self._size)
            self._size += len(line)
        if num_failures:
            self._copy_answers(path)
        elif path.stat().st_size > self._size:
            os.truncate(path, self._size)
        return num_failures > 0

    def _copy_answers(self, path: Path) -> None:
        # The file is whole at every moment: a run that is killed here has changed nothing.
        copy = path.with_name(f"{path.name}.part")
        with copy.open("wb") as file:
            file.writelines(line for line, entry in self._entries(path) if "error" not in entry)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, copy)
        copy.replace(path)

    def _entries(self, path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield every whole line and what it says."""
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):  # the last one: the run before was killed
                    is_ours = line.startswith(_START) or _START.startswith(line)
                elif is_ours := line.startswith(_START):
                    entry = _parse(line)
                    is_ours = "error" in entry or {"sha256", self._results} <= entry.keys()
                    if is_ours:
                        yield line, entry
                if not is_ours:
                    raise JournalError(
                        f"line {number} of {self._path} has no {self._results} of a picture; "
                        "name another file"
                    )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open_alone(path: Path) -> io.FileIO:
    """Open the file for appending, and refuse if another run has it open.

    It is unbuffered: a line is in the file before the next picture is looked at.
    """
    while True:
        file = path.open("ab", buffering=0)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two, another run may have put another file in its place.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError as error:
            file.close()
            raise JournalError(f"another run is writing {path}") from error
        file.close()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
