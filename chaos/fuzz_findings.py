"""What an answer may hold, and a place for the cases that get another."""

from __future__ import annotations

import json
import re
from pathlib import Path

from chaos.servers import OUTPUT

FOLDER = OUTPUT / "fuzz"
_MOST_KEPT = 50
#: Of the inside: paths, tracebacks, Python's and C++'s names for their own things.
_INSIDE = re.compile(
    r"Traceback|File \"|\.(py|cc|so)\b|0x[0-9a-f]{6}"
    r"|/(home|usr|opt|tmp|root|work|build|models?|dev|proc)/"
)


def shows_the_inside(message: str) -> bool:
    """Whether a message to a client tells of what no client needs to know."""
    return _INSIDE.search(message) is not None


class Findings:
    """Cases that went wrong; the first ones are kept as files."""

    def __init__(self, part: str) -> None:
        """Make room for the findings of one part, and throw away those of an earlier run."""
        self.notes: list[str] = []
        self._part = part
        FOLDER.mkdir(parents=True, exist_ok=True)
        for file in FOLDER.glob(f"{part}-*"):
            file.unlink()

    def add(self, number: int, what: str, content: bytes | dict[str, bytes]) -> None:
        """Keep a case.

        Args:
            number: of the case, from which it can be made again.
            what: became of it.
            content: of the request, or by the names of its tensors.
        """
        self.notes.append(f"case {number}: {what}")
        if len(self.notes) > _MOST_KEPT:
            return
        parts = {"message": content} if isinstance(content, bytes) else content
        for name, value in parts.items():
            (FOLDER / f"{self._part}-{number}-{name}.bin").write_bytes(value)
        (FOLDER / f"{self._part}-{number}.json").write_text(json.dumps({"what": what}))

    @property
    def first(self) -> str:
        """The first of them, in words; empty if there is none."""
        return f"{self.notes[0][:300]}; see {_shown(FOLDER)}" if self.notes else ""


def _shown(folder: Path) -> str:
    return str(folder.relative_to(OUTPUT.parents[1]))
