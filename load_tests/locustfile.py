"""Users who caption pictures over gRPC, each as fast as the answers come (a closed loop).

Run it through `run.py`, which also prints Triton's own times.
"""

import atexit
import os
import random
import sys
from argparse import ArgumentParser
from pathlib import Path

import grpc.experimental.gevent as grpc_gevent
from locust import User, events, task
from locust.env import Environment

from ofa_client import OFAClient

# gRPC waits in C, where gevent cannot switch users: without this they take turns, and the latencies
# look far better than they are. It must come after locust's import, which patches the standard
# library, and before the first channel.
grpc_gevent.init_gevent()


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", default="caption", help="name of the ensemble")
    parser.add_argument("--pictures", default="samples", help="folder of the pictures to send")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds allowed a request")


class CaptionUser(User):
    def on_start(self) -> None:
        options = self.environment.parsed_options
        files = sorted(path for path in Path(options.pictures).iterdir() if path.is_file())
        self.pictures = [path.read_bytes() for path in files]
        # What the server refuses is to be seen in the figures.
        self.client = OFAClient(self.host, model=options.model, timeout=options.timeout, retry=None)

    def on_stop(self) -> None:
        # Locust does not exit while a channel is open.
        self.client.close()

    @task
    def caption(self) -> None:
        picture = random.choice(self.pictures)  # noqa: S311 - not for secrets
        with self.environment.events.request.measure("gRPC", self.environment.parsed_options.model):
            self.client.caption(picture)


@events.quitting.add_listener
def fail_without_requests(environment: Environment) -> None:
    if environment.stats.total.num_requests == 0:
        environment.process_exit_code = 1


@events.quit.add_listener
def exit_without_collecting(exit_code: int) -> None:
    """End the process before Python's last garbage collection.

    Errors hold the clients that raised them until then, and tritonclient closes its channel again
    when it is collected. Under gevent that may wait for ever: it did in 4 of 30 runs in which the
    server had died.
    """

    def exit_now() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)

    atexit.register(exit_now)
