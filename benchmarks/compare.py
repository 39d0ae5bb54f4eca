"""Has a change made it slower? Two commits, measured in turn.

    .venv/bin/python -m benchmarks.compare main~3 main
    .venv/bin/python -m benchmarks.compare HEAD .            what is not committed yet
    .venv/bin/python -m benchmarks.compare HEAD . --serving  the server as well

Each commit is checked out to a worktree of its own, `.` being this one as it stands, and gets an
environment that is this one with the commit's packages in front. Each exports the checkpoint by its
own code. Then both caption the same pictures, in turn, the one first that was second before; with
`--serving` both serve, and are asked in turn by one client and by 16.

Prints the ratio of the new times to the old ones, turn by turn: the median, and the middle half.
The exit code is 1 if a median is beyond the tolerance, 5 % by default.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks.clients import drive
from benchmarks.common import OUTPUT, ROOT, Result, format_table, progress, write_result
from benchmarks.exported import load_exported_task
from benchmarks.generator import BUNDLED
from benchmarks.machine import describe_machine
from benchmarks.pictures import SAMPLES, list_pictures
from benchmarks.serving import make_requests
from benchmarks.worker import OUR_WARMUPS, Worker
from ofa.lowering import PRECISIONS
from ofa_server.threads import usable_cores

FOLDER = OUTPUT / "compare"
NAME = "compared"
#: Where a commit's packages are.
_PACKAGES = ("", "server", "client")
#: Clients that a server is asked by.
NUM_CLIENTS = (1, 16)
# Serves the first argument until its standard input ends.
_SERVE = """
import sys, pathlib
from ofa_server.background import running_server
repository, log = map(pathlib.Path, sys.argv[1:])
with running_server(repository, log) as server:
    print(server, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Side:
    """One of the two commits.

    Attributes:
        name: as it was asked for.
        python: of its environment.
        folder: to start in; it has this checkout's `benchmarks`, so both are measured alike.
        repository: with its export.
        log: file for what its processes say.
    """

    name: str
    python: Path
    folder: Path
    repository: Path
    log: Path


def main() -> None:
    arguments = parse_arguments()
    describe_machine()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    # It would come before what an environment holds.
    os.environ.pop("PYTHONPATH", None)
    pictures = list_pictures(SAMPLES)
    with ExitStack() as stack:
        sides = [
            stack.enter_context(checked_out(commit, FOLDER / label))
            for label, commit in (("old", arguments.old), ("new", arguments.new))
        ]
        for side in sides:
            progress(f"exporting by {side.name}")
            export_by(side, arguments.checkpoint, arguments.precision)
        ratios = compare_generators(sides, pictures, arguments.turns, arguments.threads)
        if arguments.serving:
            ratios |= compare_servers(sides, pictures, arguments.turns, arguments.seconds)
    result = {
        "old": arguments.old,
        "new": arguments.new,
        "checkpoint": arguments.checkpoint.resolve().name,
        "precision": arguments.precision,
        "tolerance": arguments.tolerance,
        "ratios": ratios,
    }
    write_result(OUTPUT, "compare", result, format_report(result))
    sys.exit(bool(beyond(result)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="commit, or . for this checkout as it stands")
    parser.add_argument("new", help="likewise")
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED, metavar="DIR")
    parser.add_argument("--precision", choices=PRECISIONS["cpu"], default="float32")
    parser.add_argument("--turns", type=int, default=20, metavar="N", help="of each measurement")
    parser.add_argument("--serving", action="store_true", help="compare servers too")
    parser.add_argument("--seconds", type=float, default=2, metavar="S", help="of a server's turn")
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="SHARE", help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=usable_cores(), metavar="N")
    return parser.parse_args()


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Side]:
    """A worktree of a commit, removed at the end, and an environment with its packages.

    Args:
        commit: for git, or "." for this checkout.
        folder: for all that belongs to it; made anew.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # One that was left behind, when the last run was killed, is forgotten.
    _git("worktree", "prune")
    code = ROOT
    if commit != ".":
        code = folder / "code"
        _git("worktree", "add", "--detach", str(code), commit)
    try:
        # Ours, in a folder that has nothing else: the rest comes from the environment.
        (folder / "measuring").mkdir()
        (folder / "measuring" / "benchmarks").symlink_to(ROOT / "benchmarks")
        yield Side(
            name=commit,
            python=_make_environment(code, folder / "environment"),
            folder=folder / "measuring",
            repository=folder / "repository",
            log=folder / "log",
        )
    finally:
        if commit != ".":
            _git("worktree", "remove", "--force", str(code))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=sys.stderr)


def _make_environment(code: Path, folder: Path) -> Path:
    """Python of an environment that is this one with the packages of `code` in front.

    An environment and not PYTHONPATH, which Triton's Python processes do not look at.
    """
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    ours = sysconfig.get_path("purelib")
    # Lines are taken in order; those that start with "import" are run.
    (packages / "compared.pth").write_text(
        "".join(f"{code / package}\n" for package in _PACKAGES)
        + f"import site; site.addsitedir({ours!r})\n"
    )
    command = folder / "bin" / "ofa"
    command.write_text(
        f"#!{folder / 'bin' / 'python'}\nimport sys\nfrom ofa_server.cli import main\n"
        "sys.exit(main())\n"
    )
    command.chmod(0o755)
    python = folder / "bin" / "python"
    # A comparison of a commit with itself would not be noticed.
    asking = [str(python), "-c", "import ofa; print(ofa.__file__)"]
    found = subprocess.run(asking, cwd=folder, check=True, capture_output=True, text=True).stdout
    if not Path(found).is_relative_to(code):
        raise RuntimeError(f"the environment of {code} has another ofa: {found.strip()}")
    return python


def export_by(side: Side, checkpoint: Path, precision: str) -> None:
    """Export a checkpoint by a commit's own code."""
    command = [str(side.python.with_name("ofa")), "export", str(checkpoint.resolve())]
    command += ["--repository", str(side.repository), "--name", NAME]
    asking = [command[0], "export", "--help"]
    offered = subprocess.run(asking, cwd=side.folder, check=True, capture_output=True, text=True)
    # Commits that had no choice computed in float32.
    if precision != "float32" or "--precision" in offered.stdout:
        command += ["--precision", precision]
    subprocess.run(command, cwd=side.folder, check=True, stdout=sys.stderr)


def compare_generators(
    sides: Sequence[Side], pictures: Sequence[Path], num_turns: int, num_threads: int
) -> dict[str, list[float]]:
    """Ratios of the generators' seconds for a picture, by turn."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker(
                    side.python,
                    "benchmarks.compare_ours",
                    [str(side.repository), NAME],
                    num_threads,
                    side.log,
                    side.folder,
                )
            )
            for side in sides
        ]
        for worker in workers:
            for _ in range(OUR_WARMUPS):
                worker.answer(pictures[0])
        old, new = workers

        def measure(worker: Worker, turn: int) -> float:
            return worker.answer(pictures[turn % len(pictures)]).seconds["generator"]

        return {
            "generator, a picture": take_turns(
                lambda turn: measure(old, turn), lambda turn: measure(new, turn), num_turns
            )
        }


def compare_servers(
    sides: Sequence[Side], pictures: Sequence[Path], num_turns: int, seconds: float
) -> dict[str, list[float]]:
    """Ratios of the seconds for an answer, by turn: of one client, and a share of many clients'."""
    task = load_exported_task(sides[-1].repository, NAME)
    requests = make_requests(task, [picture.read_bytes() for picture in pictures])
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(side)) for side in sides]

        def measure(server: str, num_clients: int) -> float:
            start = time.perf_counter()
            # Requests under way when the seconds are over are finished, and counted.
            num_answers = len(drive(server, NAME, requests, num_clients, seconds))
            return (time.perf_counter() - start) / num_answers

        ratios = {}
        for num_clients in NUM_CLIENTS:
            for server in servers:
                measure(server, num_clients)
            old, new = (lambda _, s=s, n=num_clients: measure(s, n) for s in servers)
            ratios[f"server, {num_clients} clients, an answer"] = take_turns(old, new, num_turns)
        return ratios


@contextmanager
def serving(side: Side) -> Iterator[str]:
    """HOST:PORT of a server that a commit runs with its own code."""
    progress(f"starting a server by {side.name}")
    server = subprocess.Popen(
        [str(side.python), "-c", _SERVE, str(side.repository), str(side.log)],
        cwd=side.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the server of {side.name} did not start; see {side.log}")
        yield address
    finally:
        server.stdin.close()
        server.wait()


def take_turns(
    old: Callable[[int], float], new: Callable[[int], float], num_turns: int
) -> list[float]:
    """New seconds by old ones, turn by turn; who was second goes first in the next."""
    ratios = []
    for turn in range(num_turns):
        if turn % 2:
            new_seconds, old_seconds = new(turn), old(turn)
        else:
            old_seconds, new_seconds = old(turn), new(turn)
        progress(f"{turn + 1} of {num_turns}: {old_seconds:.4f} s, {new_seconds:.4f} s")
        ratios.append(new_seconds / old_seconds)
    return ratios


def beyond(result: Result) -> list[str]:
    """What has become slower than the tolerance allows."""
    most = 1 + result["tolerance"]
    return [what for what, ratios in result["ratios"].items() if median(ratios) > most]


def format_report(result: Result) -> str:
    """The ratios in Markdown."""
    slower = beyond(result)
    rows = []
    for what, ratios in result["ratios"].items():
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        verdict = "slower" if what in slower else ""
        rows.append((what, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", str(len(ratios)), verdict))
    title = (
        f"**{result['new']}** beside **{result['old']}**: {result['checkpoint']} in "
        f"{result['precision']}; new seconds by old ones, tolerance {result['tolerance']:.0%}"
    )
    header = ("time of", "median ratio", "middle half", "turns", "")
    return "\n".join((title, "", format_table(header, rows)))


if __name__ == "__main__":
    main()
