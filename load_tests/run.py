"""Loads a server with Locust, reports what came of it, and judges it.

    python load_tests/run.py --server HOST:PORT --profile smoke      a server that runs already
    python load_tests/run.py --repository DIR --users 16             one of its own, for the test
    python load_tests/run.py --server HOST:PORT --rate 50 -- --processes 4

A profile (`profiles/NAME.toml`, or a file of one's own) says what is sent and what has to be
reached; without one, captions are asked for by `--users` of a closed loop or at the `--rate` of an
open one, and all of them have to be answered. What stands after `--` is for Locust itself.

The exit code is 0 if all was reached, 1 if not, and 2 if something was wrong with the command.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from tritonclient.utils import InferenceServerException

# As a script it finds its own folder on the path, not the one above.
sys.path.insert(0, str(Path(__file__).parents[1]))

from load_tests.pictures import SCALED
from load_tests.plan import Plan, PlanError, Request, Stage, read_plan
from load_tests.report import format_text, write_report
from load_tests.summary import Result, summarize
from load_tests.triton_statistics import Reading, Watch, read_statistics, subtract

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PROFILES = Path(__file__).with_name("profiles")
#: What Locust may take beyond the run and the last answers before it counts as hanging.
MARGIN_SECONDS = 90
#: Readings, one a second, from one sign of life to the next.
SHOWN_SECONDS = 60


def main() -> int:
    arguments = parse_arguments(sys.argv[1:])
    with ExitStack() as stack:
        servers = arguments.server
        if arguments.repository:
            servers = [stack.enter_context(own_server(arguments.repository))]
        try:
            result = run(
                arguments.plan,
                servers,
                arguments.pictures,
                timeout=arguments.timeout,
                html=arguments.report and arguments.report / "locust.html",
                for_locust=arguments.for_locust,
            )
        except InferenceServerException as error:
            print(f"{', '.join(servers)}: no answer: {error.message()}", file=sys.stderr)
            return 1
    print(format_text(result))
    if arguments.report:
        write_report(result, arguments.report)
    return 0 if all(check["is_met"] for check in result["checks"]) else 1


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    own, for_locust = split(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--server",
        nargs="+",
        metavar="HOST:PORT",
        help="gRPC port of a running server; several take turns",
    )
    target.add_argument("--repository", type=Path, metavar="DIR", help="written by `ofa export`")
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--profile",
        metavar="NAME",
        help=f"a file, or one of {', '.join(sorted(file.stem for file in PROFILES.glob('*')))}",
    )
    load.add_argument("--users", type=int, metavar="N", help="closed loop; default: 16")
    load.add_argument("--rate", type=float, metavar="R", help="open loop: requests a second")
    parser.add_argument("--seconds", type=int, metavar="S", help="without a profile; default: 30")
    parser.add_argument("--task", metavar="NAME", help="without a profile; default: caption")
    parser.add_argument(
        "--pictures", type=Path, default="samples", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--timeout", type=int, default=60, metavar="S", help="of a request; default: %(default)s"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="for HTML, CSV and JSON")
    arguments = parser.parse_args(own)
    arguments.for_locust = for_locust
    if not arguments.pictures.is_dir() or not any(arguments.pictures.iterdir()):
        parser.error(f"there are no pictures in {arguments.pictures}")
    if arguments.profile and (arguments.seconds or arguments.task):
        parser.error("--seconds and --task are for runs without a profile, which says both")
    try:
        arguments.plan = make_plan(arguments)
    except PlanError as error:
        parser.error(str(error))
    kinds = {request.pictures for request in arguments.plan.requests}
    if kinds & SCALED and find_spec("PIL") is None:
        parser.error("small and large pictures need Pillow: pip install pillow")
    return arguments


def split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words before and after the first `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The plan that the command line asks for.

    Raises:
        PlanError: it makes no sense.
    """
    if arguments.profile:
        shipped = PROFILES / f"{arguments.profile}.toml"
        return read_plan(shipped if shipped.is_file() else Path(arguments.profile))
    seconds = 30 if arguments.seconds is None else arguments.seconds
    if arguments.rate is not None:
        stage = Stage(seconds, rate=arguments.rate)
    else:
        stage = Stage(seconds, users=16 if arguments.users is None else arguments.users)
    return Plan([stage], [Request(task=arguments.task or "caption")])


@contextmanager
def own_server(repository: Path) -> Iterator[str]:
    """Yield HOST:PORT of a server that is stopped at the end of the block."""
    # Not needed, and not installed, where only a client runs.
    from ofa_server.background import running_server
    from ofa_server.errors import ServerError

    try:
        with running_server(repository, Path("build/load-server.log"), show_progress) as server:
            print()
            yield server
            print("stopping Triton", flush=True)
    except ServerError as error:
        sys.exit(f"\n{error}")


def show_progress(seconds: float) -> None:
    print(f"\rstarting Triton: {seconds:.0f} s", end="", flush=True)


def run(
    plan: Plan,
    servers: Sequence[str],
    pictures: Path,
    timeout: int = 60,
    html: Path | None = None,
    for_locust: Sequence[str] = (),
) -> Result:
    """Carry out a plan, and sum up what Locust and Triton saw.

    Args:
        plan: what is sent.
        servers: HOST:PORT of each.
        pictures: folder of them.
        timeout: seconds allowed a request.
        html: file for Locust's own report.
        for_locust: arguments for Locust.

    Raises:
        InferenceServerException: a server does not answer.
        SystemExit: Locust has failed.
    """
    for server in servers:
        read_statistics(server)
    with tempfile.TemporaryDirectory(prefix="ofa-load-") as folder:
        outcome, log = Path(folder) / "outcome.json", Path(folder) / "locust.log"
        command = [
            *(sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless"),
            *("--loglevel", "WARNING", "--only-summary", "--stop-timeout", str(timeout)),
            # Locust asks for a host; which servers there are it hands on to all processes.
            *("--host", servers[0], "--servers", *servers, "--plan", plan.to_json()),
            *("--pictures", str(pictures), "--timeout", str(timeout)),
            *("--outcome", str(outcome), *(("--html", str(html)) if html else ()), *for_locust),
        ]
        patience = plan.seconds + timeout + MARGIN_SECONDS
        with Watch(servers, show_course) as watch:
            failure = run_locust(command, log, patience)
        seen = json.loads(outcome.read_text()) if outcome.is_file() else None
        if failure or not (seen and seen["tally"]["latencies"]):
            # What Locust says is of interest only then: its tables say what ours do.
            sys.exit(f"{log.read_text()}\n{failure or 'Locust has failed: nothing was sent'}")
        return summarize(plan, servers, seen, watch.readings)


def run_locust(command: Sequence[str], log: Path, patience: int) -> str:
    """Run Locust, and return a sentence if it did not end."""
    with log.open("wb") as file:
        try:
            subprocess.run(
                command, check=False, timeout=patience, stdout=file, stderr=subprocess.STDOUT
            )
        except subprocess.TimeoutExpired:
            return f"Locust did not end within {patience} s and was killed"
    return ""


def show_course(readings: Sequence[Reading]) -> None:
    """Give a sign of life, once a minute."""
    number = len(readings) - 1
    if number and number % SHOWN_SECONDS == 0:
        models = subtract(readings[-1].models, readings[-1 - SHOWN_SECONDS].models)
        # An ensemble executes nothing itself, but its generator does.
        answers = sum(
            model.num_requests for name, model in models.items() if name.endswith("_generator")
        )
        seconds = readings[-1].time - readings[-1 - SHOWN_SECONDS].time
        elapsed = readings[-1].time - readings[0].time
        print(f"{elapsed:.0f} s: {answers / seconds:.1f} answers/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
