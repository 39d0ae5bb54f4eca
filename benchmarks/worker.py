"""A process of its own for each side of a comparison, given one picture at a time, in turn.

The sides need different environments, and a peak of memory belongs to a process. Python objects
travel over a pair of pipes, so whatever a library prints cannot be taken for an answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from benchmarks.common import OUTPUT, ROOT, progress

#: TorchScript optimises in its first runs; the reference has nothing of the kind.
OUR_WARMUPS = 3
REFERENCE_WARMUPS = 1


@dataclass(frozen=True)
class Answered:
    """What a side did with one picture.

    Attributes:
        answers: texts or labels, best first.
        seconds: by stage, and for the "whole".
    """

    answers: list[str]
    seconds: dict[str, float]


class WorkerError(Exception):
    """A worker has ended before it answered."""


class Worker:
    """The parent's end of `python -m MODULE PICTURES ANSWERS ARGUMENT...`."""

    def __init__(
        self,
        python: Path,
        module: str,
        arguments: Sequence[str],
        num_threads: int,
        log: Path,
        folder: Path = ROOT,
    ) -> None:
        """Start the process.

        Args:
            python: interpreter of the environment.
            module: calls `answer_pictures`.
            arguments: behind the two descriptors.
            num_threads: of every library that counts its own.
            log: file for everything that the process prints.
            folder: to start in, with `benchmarks` in it.
        """
        self._log = log
        pictures_in, pictures_out = os.pipe()
        answers_in, answers_out = os.pipe()
        command = [str(python), "-m", module, str(pictures_in), str(answers_out), *arguments]
        with log.open("wb") as log_file:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": str(num_threads)},
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                pass_fds=(pictures_in, answers_out),
            )
        os.close(pictures_in)
        os.close(answers_out)
        self._pictures = Connection(pictures_out, readable=False)
        self._answers = Connection(answers_in, writable=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pictures.close()
        self._answers.close()
        # It may be in the middle of a picture that nobody waits for any more.
        self._process.terminate()
        self._process.wait()

    def answer(self, picture: Path) -> Answered:
        """Have a picture answered.

        Raises:
            WorkerError: the process has ended; the end of its log is in the message.
        """
        answer = self._ask(picture)
        assert isinstance(answer, Answered)
        return answer

    def take_peak_memory(self) -> int:
        """The most bytes that the process has held at once since it was last asked.

        Raises:
            WorkerError: as `answer`.
        """
        answer = self._ask(None)
        assert isinstance(answer, int)
        return answer

    def _ask(self, question: Path | None) -> object:
        try:
            self._pictures.send(question)
            return self._answers.recv()
        except (EOFError, OSError) as error:
            last_lines = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise WorkerError(
                f"a worker has died; the end of {self._log}:\n{last_lines}"
            ) from error


@dataclass(frozen=True)
class Turn:
    """One picture, answered by both sides one after the other.

    Attributes:
        picture: its name.
        ours: every time that we answered.
        reference: None where there is no reference.
    """

    picture: str
    ours: list[Answered]
    reference: Answered | None


@contextmanager
def our_side(
    benchmark: str, arguments: Sequence[str], picture: Path, num_threads: int
) -> Iterator[Worker]:
    """Start `benchmarks.BENCHMARK_ours` and warm it up.

    Args:
        benchmark: that it belongs to.
        arguments: of the module.
        picture: to warm up with.
        num_threads: of every library that counts its own.
    """
    module = f"benchmarks.{benchmark}_ours"
    log = OUTPUT / "ours.log"
    with Worker(Path(sys.executable), module, arguments, num_threads, log) as ours:
        progress("warming up our side")
        for _ in range(OUR_WARMUPS):
            ours.answer(picture)
        yield ours


@contextmanager
def reference_side(
    benchmark: str, arguments: Sequence[str], picture: Path, num_threads: int
) -> Iterator[Worker]:
    """Start `benchmarks.BENCHMARK_reference` in .venv-oracle; the arguments are `our_side`'s."""
    python = ROOT / ".venv-oracle" / "bin" / "python"
    module = f"benchmarks.{benchmark}_reference"
    log = OUTPUT / "reference.log"
    with Worker(python, module, arguments, num_threads, log) as reference:
        progress("warming up the reference (building its pipeline takes half a minute)")
        for _ in range(REFERENCE_WARMUPS):
            reference.answer(picture)
        yield reference


def take_turns(
    ours: Worker, reference: Worker | None, pictures: Sequence[Path], repeats: int = 1
) -> Iterator[Turn]:
    """Have both sides answer every picture, ours `repeats` times."""
    for number, picture in enumerate(pictures, 1):
        theirs = reference.answer(picture) if reference else None
        turn = Turn(picture.name, [ours.answer(picture) for _ in range(repeats)], theirs)
        own = ", ".join(f"{answered.seconds['whole']:.3f}" for answered in turn.ours)
        other = f", reference {theirs.seconds['whole']:.3f} s" if theirs else ""
        progress(f"{number} of {len(pictures)}: {picture.name}, ours {own} s{other}")
        yield turn


def answer_pictures(answer: Callable[[Path], Answered]) -> None:
    """The child's end: answer what comes until the parent goes."""
    pictures = Connection(int(sys.argv[1]), writable=False)
    answers = Connection(int(sys.argv[2]), readable=False)
    while True:
        try:
            picture: Path | None = pictures.recv()
        except EOFError:
            return
        answers.send(_take_peak_memory() if picture is None else answer(picture))


def _take_peak_memory() -> int:
    """Read the process's high-water mark in bytes and set it back (Linux, see proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    Path("/proc/self/clear_refs").write_text("5")
    return int(status["VmHWM"].split()[0]) * 1024
