"""Loads a server with Locust, and prints Triton's own times beside Locust's.

    python load_tests/run.py --server HOST:PORT      a server that runs already
    python load_tests/run.py --repository DIR        one that runs for as long as the test

The exit code is 0 if there were requests and all of them were answered.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from triton_statistics import format_table, read_statistics, subtract
from tritonclient.utils import InferenceServerException

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
#: What Locust may take beyond the run and the last answers before it counts as hanging.
MARGIN_SECONDS = 60


def main() -> int:
    arguments = parse_arguments()
    with ExitStack() as stack:
        if arguments.repository:
            server = stack.enter_context(own_server(arguments.repository))
        else:
            server = arguments.server
        try:
            before = read_statistics(server)
            exit_code = run_locust(server, arguments)
            after = read_statistics(server)
        except InferenceServerException as error:
            print(f"{server} does not answer: {error.message()}", file=sys.stderr)
            return 1
    print("\nTriton's own means, in milliseconds a request:\n")
    print(format_table(subtract(after, before)))
    return exit_code


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--server", metavar="HOST:PORT", help="gRPC port of a running server")
    target.add_argument("--repository", type=Path, metavar="DIR", help="written by `ofa export`")
    parser.add_argument("--model", default="caption", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--pictures", type=Path, default="samples", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--users", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=30, metavar="S", help="default: %(default)s")
    parser.add_argument(
        "--timeout", type=int, default=60, metavar="S", help="of a request; default: %(default)s"
    )
    arguments = parser.parse_args()
    if not arguments.pictures.is_dir() or not any(arguments.pictures.iterdir()):
        parser.error(f"there are no pictures in {arguments.pictures}")
    return arguments


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


def run_locust(server: str, arguments: argparse.Namespace) -> int:
    """Run Locust headless and return its exit code."""
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless"),
        *("--host", server, "--model", arguments.model, "--pictures", str(arguments.pictures)),
        *("--users", str(arguments.users), "--spawn-rate", str(arguments.users)),
        # Requests that are under way when the time is over are awaited, so that they count.
        *("--run-time", f"{arguments.seconds}s", "--stop-timeout", str(arguments.timeout)),
        *("--timeout", str(arguments.timeout), "--only-summary"),
    ]
    patience = arguments.seconds + arguments.timeout + MARGIN_SECONDS
    try:
        return subprocess.run(command, check=False, timeout=patience).returncode
    except subprocess.TimeoutExpired:
        print(f"Locust did not end within {patience} s and was killed", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
