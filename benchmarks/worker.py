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
        self, python: Path, module: str, arguments: list[str], num_threads: int, log: Path
    ) -> None:
        """Start the process.

        Args:
            python: interpreter of the environment.
            module: calls `answer_pictures`.
            arguments: behind the two descriptors.
            num_threads: of every library that counts its own.
            log: file for everything that the process prints.
        """
        self._log = log
        pictures_in, pictures_out = os.pipe()
        answers_in, answers_out = os.pipe()
        command = [str(python), "-m", module, str(pictures_in), str(answers_out), *arguments]
        with log.open("wb") as log_file:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
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
    """One picture, answered by both sides one after the other."""

    picture: str
    ours: Answered
    reference: Answered


@dataclass(frozen=True)
class Sides:
    """The two workers of a comparison, warm."""

    ours: Worker
    reference: Worker

    def take_turns(self, pictures: Sequence[Path]) -> Iterator[Turn]:
        """Have both sides answer every picture."""
        for number, picture in enumerate(pictures, 1):
            turn = Turn(picture.name, self.ours.answer(picture), self.reference.answer(picture))
            progress(
                f"{number} of {len(pictures)}: {picture.name}, "
                f"ours {turn.ours.seconds['whole']:.3f} s, "
                f"reference {turn.reference.seconds['whole']:.3f} s"
            )
            yield turn


@contextmanager
def both_sides(
    benchmark: str,
    our_arguments: list[str],
    reference_arguments: list[str],
    picture: Path,
    num_threads: int,
) -> Iterator[Sides]:
    """Start and warm up both sides.

    Args:
        benchmark: name of the modules `benchmarks.NAME_ours` and `benchmarks.NAME_reference`.
        our_arguments: of our module.
        reference_arguments: of the reference's.
        picture: to warm up with.
        num_threads: of either side.
    """
    with (
        Worker(
            ROOT / ".venv-oracle" / "bin" / "python",
            f"benchmarks.{benchmark}_reference",
            reference_arguments,
            num_threads,
            OUTPUT / "reference.log",
        ) as reference,
        Worker(
            Path(sys.executable),
            f"benchmarks.{benchmark}_ours",
            our_arguments,
            num_threads,
            OUTPUT / "ours.log",
        ) as ours,
    ):
        progress("warming up the reference (building its pipeline takes half a minute), then ours")
        for _ in range(REFERENCE_WARMUPS):
            reference.answer(picture)
        for _ in range(OUR_WARMUPS):
            ours.answer(picture)
        yield Sides(ours, reference)


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
