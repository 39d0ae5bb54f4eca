"""The part of the fuzzing that goes into the library, without a server around it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

from chaos.figures import Figure, at_least, at_most, none
from chaos.fuzz_findings import Findings, shows_the_inside
from chaos.fuzz_messages import fuzzed_tensors
from chaos.servers import ChaosError
from ofa.errors import RequestError
from ofa.tasks import Task, load_task
from ofa.tensors import Tensors

_NUM_WORKERS = 2
#: Address space of a worker, and CPU time for one case; whoever needs more is ended.
_MAX_BYTES = 4 * 1024**3
_MAX_CPU_S = 20.0
_PEAK_MB = 200
_SLOWEST_S = 5.0
_STATUS = Path("/proc/self/status")


class _Summary(NamedTuple):
    """What a worker has seen, of a case or of all so far.

    Attributes:
        num_taken: cases that were no refusal.
        slowest_s: CPU time of the one that took longest.
        peak_bytes: the most memory that a case took beyond what the worker had before it.
    """

    num_taken: int = 0
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def beside(self, other: _Summary) -> _Summary:
        """Of both together."""
        return _Summary(
            self.num_taken + other.num_taken,
            max(self.slowest_s, other.slowest_s),
            max(self.peak_bytes, other.peak_bytes),
        )


def run(repository: Path, corpus: Sequence[bytes], num_cases: int) -> list[Figure]:
    """Try that many cases on the preprocessing of every task of a repository."""
    findings = Findings("library")
    folders = sorted(file.parent for file in repository.glob("*_preprocess/*/task.json"))
    context = multiprocessing.get_context("spawn")
    summary, num_deaths = _Summary(), 0
    workers = [_Worker(number, num_cases) for number in range(_NUM_WORKERS)]
    for worker in workers:
        worker.start(context, folders, corpus)
    for worker in workers:
        while worker.follow(findings):
            num_deaths += 1
            case = _make_case(worker.at, [load_task(each) for each in folders], corpus)[1]
            findings.add(worker.at, "the process has ended", _contents(case))
            worker.at += _NUM_WORKERS
            worker.start(context, folders, corpus)
        summary = summary.beside(worker.summary)
    return [
        at_least(
            "in process: cases",
            sum(worker.num_begun for worker in workers),
            num_cases,
            note=f"{summary.num_taken:,} of them were taken",
        ),
        none("in process: faults that are no refusal", len(findings.notes), findings.first),
        none("in process: crashes, and cases over the limits", num_deaths),
        at_most("in process: CPU time of the slowest case", summary.slowest_s, _SLOWEST_S, "s"),
        at_most("in process: most memory for a case", summary.peak_bytes / 1e6, _PEAK_MB, "MB"),
    ]


class _Worker:
    """Every `_NUM_WORKERS`-th case, in a process that is replaced when it dies."""

    def __init__(self, first: int, num_cases: int) -> None:
        self.at, self._num_cases = first, num_cases
        self.summary = _Summary()
        self.num_begun = 0
        self._process: multiprocessing.process.BaseProcess
        self._pipe: Connection

    def start(
        self,
        context: multiprocessing.context.SpawnContext,
        folders: Sequence[Path],
        corpus: Sequence[bytes],
    ) -> None:
        """Begin, or go on behind the case that a worker has died of."""
        self._pipe, theirs = context.Pipe(duplex=False)
        numbers = range(self.at, self._num_cases, _NUM_WORKERS)
        self._process = context.Process(target=_work, args=(numbers, folders, corpus, theirs))
        self._process.start()
        theirs.close()

    def follow(self, findings: Findings) -> bool:
        """Take what the process says until it ends; returns whether it died of case `at`."""
        died_of = None
        while True:
            try:
                said = self._pipe.recv()
            except EOFError:
                break
            if isinstance(said, _Summary):
                self.summary = self.summary.beside(said)
                died_of = None
            elif isinstance(said, int):
                died_of = said
                self.num_begun += 1
            else:
                findings.add(*said)
        self._process.join()
        if died_of is None:
            if self._process.exitcode:
                raise ChaosError(f"a worker has ended with status {self._process.exitcode}")
            return False
        self.at = died_of
        return True


def _work(
    numbers: Sequence[int], folders: Sequence[Path], corpus: Sequence[bytes], pipe: Connection
) -> None:
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    warnings.simplefilter("ignore")
    tasks = [load_task(folder) for folder in folders]
    for number in numbers:
        pipe.send(number)
        # The signal that it sends ends the process, in whatever library it is held up.
        signal.setitimer(signal.ITIMER_PROF, _MAX_CPU_S)
        task, tensors = _make_case(number, tasks, corpus)
        start, before = time.process_time(), _reset_peak()
        fault = _fault(task, tensors)
        seconds, peak = time.process_time() - start, _memory("VmHWM") - before
        if fault:
            pipe.send((number, f"{task.name}: {fault}", _contents(tensors)))
        pipe.send(_Summary(int(fault is None), seconds, peak))


def _reset_peak() -> int:
    """Forget the most memory that this process has had, and return what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])


def _make_case(number: int, tasks: Sequence[Task], corpus: Sequence[bytes]) -> tuple[Task, Tensors]:
    random = Random(f"library {number}")  # noqa: S311 - so that it can be made again
    task = random.choice(tasks)
    return task, fuzzed_tensors(random, task.tensors.request, corpus)


def _fault(task: Task, tensors: Tensors) -> str | None:
    """What is wrong with the answer to a case; empty for a clean refusal, None for an answer."""
    try:
        row = task.preprocess(tensors)
    except RequestError as error:
        if isinstance(error.__cause__, MemoryError):
            return "no memory was left"
        return f"the refusal says {error}" if shows_the_inside(str(error)) else ""
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"{type(error).__name__}: {error}"
    wanted = {spec.name for spec in (*task.tensors.generator_inputs, *task.tensors.kept)}
    return None if row.keys() == wanted else f"the row has {sorted(row)}"


def _contents(tensors: Tensors) -> dict[str, bytes]:
    return {
        name: value.item() if isinstance(value.item(), bytes) else value.tobytes()
        for name, value in tensors.items()
    }
