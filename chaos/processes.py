"""What processes hold, read from /proc: memory, file handles, threads, shared memory (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
_GONE = (FileNotFoundError, ProcessLookupError)
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Usage:
    """What one or several processes hold.

    Attributes:
        rss: bytes of memory that are resident, shared ones included.
        handles: open file descriptors.
        threads: of them.
    """

    rss: int = 0
    handles: int = 0
    threads: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.rss + other.rss, self.handles + other.handles, self.threads + other.threads
        )


def tree(pid: int) -> list[int]:
    """A process that runs and all that run below it, parents first; zombies are left out."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(*_GONE):
            state, parent = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(directory.name))
    found = [pid] if is_alive(pid) else []
    for each in found:  # which grows meanwhile
        found += children.get(each, [])
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with suppress(*_GONE):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kind(pid: int) -> str:
    """What a process of a server is for: "ofa serve", "Triton", "preprocess" and so on.

    Empty if it is gone.
    """
    with suppress(*_GONE):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if _STUB in words[0] and len(words) > 2:
            # The instance is the last argument but one: caption_preprocess_0_1.
            return words[-3].rsplit("_", 2)[0].rpartition("_")[2]
        return "Triton" if "tritonserver" in words[0] else "ofa serve"
    return ""


def usage(pid: int) -> Usage:
    """What a process holds; nothing if it is gone."""
    with suppress(*_GONE):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        # A process that is just ending has no memory left.
        rss = 1024 * int(status.get("VmRSS", "0 kB").split()[0])
        return Usage(rss, len([*Path(f"/proc/{pid}/fd").iterdir()]), int(status["Threads"]))
    return Usage()


def usage_by_kind(pid: int) -> Mapping[str, Usage]:
    """What a server's processes hold, those of one kind together."""
    found: dict[str, Usage] = {}
    for each in tree(pid):
        if name := kind(each):
            found[name] = found.get(name, Usage()) + usage(each)
    return found


def shared_memory(pid: int) -> set[Path]:
    """The regions in /dev/shm that a process, or one below it, has open."""
    return {region for each in tree(pid) for region in _open_regions(each)}


def _open_regions(pid: int) -> Iterator[Path]:
    with suppress(*_GONE):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(*_GONE):
                target = handle.readlink()
                if target.parent == SHARED_MEMORY:
                    yield target


def shared_bytes(regions: set[Path]) -> int:
    """Memory that regions take, which is less than their size as long as parts are untouched."""
    total = 0
    for region in regions:
        with suppress(*_GONE):
            total += 512 * region.stat().st_blocks
    return total


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far, its ended children left out."""
    with suppress(*_GONE):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0
