"""Shares a folder's pictures among servers: `python several_servers.py FOLDER HOST:PORT HOST:PORT`.

A request that one server cannot answer goes to another. What happened is counted attempt by
attempt, which is where a program would feed the metrics that it has.
"""

import argparse
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path

from ofa_client import Attempt, OFAClient, OFAClientError, RetryPolicy


class Metrics:
    """Attempts and their seconds, by server and status. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)

    def add(self, attempt: Attempt) -> None:
        """Take note of an attempt; the client calls this in the thread of each call."""
        key = (attempt.server, attempt.code)
        with self._lock:
            self._counts[key] += 1
            self._seconds[key] += attempt.seconds
        if attempt.retry_in is not None:
            print(
                f"{attempt.server}: {attempt.code}: {attempt.message}; "
                f"attempt {attempt.number + 1} in {attempt.retry_in:.2f} s",
                file=sys.stderr,
            )

    def lines(self) -> list[str]:
        """Return one line a server and status."""
        with self._lock:
            return [
                f"{server} {code}: {count} attempts, {self._seconds[server, code]:.3f} s"
                for (server, code), count in sorted(self._counts.items())
            ]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("servers", nargs="+", metavar="HOST:PORT")
arguments = parser.parse_args()

metrics = Metrics()
pictures = (path for path in arguments.folder.iterdir() if path.suffix in (".jpg", ".png"))
with OFAClient(
    arguments.servers,
    timeout=30,
    retry=RetryPolicy(max_attempts=8, initial_backoff=0.2),
    on_attempt=metrics.add,
) as client:
    for path, result in client.caption_many(sorted(pictures), concurrency=8):
        if isinstance(result, OFAClientError):
            print(f"{path.name}: failed after {len(result.attempts)} attempts: {result}")
        else:
            print(f"{path.name}: {result.text}  ({result.call.attempts[-1].server})")
print("\n".join(metrics.lines()))
