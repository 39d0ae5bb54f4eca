"""The load itself, as Locust runs it, in one process or many: started by `run.py`.

In a closed loop each of Locust's users sends its next request when the last was answered. In an
open loop there is one user a process, which sends its share of a schedule that all processes work
out alike, each request in a greenlet of its own. Its latency counts from the moment at which it was
due, so that neither a slow server nor a slow generator can hide that requests had to wait.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import sys
import time
import traceback
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, ClassVar

import gevent
import grpc.experimental.gevent as grpc_gevent
from gevent.pool import Group
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

# Locust puts this file's folder on the path, not the one above.
sys.path.insert(0, str(Path(__file__).parents[1]))

from load_tests.calls import CALLS, GOOD, describe, outcome_of
from load_tests.pictures import make_pictures
from load_tests.plan import Plan, Request
from load_tests.schedule import arrivals, borders, share, slot_seconds, stage_at
from load_tests.tally import Cell, Tally
from ofa_client import OFAClient

# gRPC waits in C, where gevent cannot switch users: without this they take turns, and the latencies
# look far better than they are. It must come after locust's import, which patches the standard
# library, and before the first channel.
grpc_gevent.init_gevent()

#: How fast each process starts and stops users; Locust advises against more.
USERS_A_SECOND = 100


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    # Locust hands these to its workers, so only the first process needs them.
    parser.add_argument("--plan", default="", help="as JSON")
    parser.add_argument("--servers", nargs="*", default=[], help="HOST:PORT of each")
    parser.add_argument("--pictures", default="samples", help="folder of pictures")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds allowed a request")
    parser.add_argument("--outcome", default="", help="JSON file for what was seen")


def count_senders(environment: Environment) -> int:
    """Processes that send requests.

    Locust tells its workers how many are expected, and waits until these are there.
    """
    is_alone = not isinstance(environment.runner, MasterRunner | WorkerRunner)
    return 1 if is_alone else int(environment.parsed_options.expect_workers)


class Load:
    """What one process needs for the run, and what it saw.

    Attributes:
        plan: what is to be done.
        tally: not yet sent to the master; of the master and of a lone process, everything.
        num_users: that run in this process.
        index: of this process, from 0.
        count: of the processes that send.
        started_at: in seconds since 1970.
    """

    def __init__(self, environment: Environment) -> None:
        options = environment.parsed_options
        runner = environment.runner
        self.plan = Plan.from_json(options.plan)
        self.tally = Tally()
        self.num_users = 0
        self.index = runner.worker_index if isinstance(runner, WorkerRunner) else 0
        self.count = count_senders(environment)
        self._random = random.Random(f"{self.plan.seed} {self.index}")  # noqa: S311 - no secrets
        self._request_event = environment.events.request
        self._slot_seconds = slot_seconds(self.plan.seconds)
        kinds = {request.pictures for request in self.plan.requests if request.pictures}
        is_master = isinstance(runner, MasterRunner)
        self._pictures = {
            kind: make_pictures(Path(options.pictures), kind) for kind in kinds if not is_master
        }
        # What the server refuses is to be seen in the figures.
        self._client = OFAClient(options.servers, timeout=options.timeout, retry=None)
        self.started_at = time.time()
        self._start = time.perf_counter()
        self._cpu_start = time.process_time()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._start

    def send(self, due: float) -> None:
        """Send a request of the mix and count what becomes of it."""
        weights = [request.weight for request in self.plan.requests]
        [request] = self._random.choices(self.plan.requests, weights)
        pictures = self._pictures.get(request.pictures, [b""])
        picture = self._random.choice(pictures)
        self.tally.lateness.add(1000 * (self.seconds - due))
        raised = None
        try:
            self._ask(request, picture)
        except Exception as error:  # noqa: BLE001 - all of them are counted
            raised = error
        self._count(request, due, raised)

    def _ask(self, request: Request, picture: bytes) -> None:
        texts = (request.text, request.text2)
        ask = CALLS[request.task].ask
        ask(self._client, picture, *texts, model=request.model, **request.options)

    def _count(self, request: Request, due: float, raised: Exception | None) -> None:
        now = self.seconds
        outcome, error = outcome_of(raised, request.is_bad)
        milliseconds = 1000 * (now - due)
        stage, ended_in = (stage_at(self.plan.stages, moment) for moment in (due, now))
        if stage is not None:  # nothing is due after the end
            slot = int(due / self._slot_seconds)
            self.tally.add(Cell(stage, slot, request.name, outcome), milliseconds)
        if outcome in GOOD and ended_in is not None:
            self.tally.completed[ended_in, request.name] += 1
        if error is not None:
            self.tally.errors[describe(error)] += 1
        self._request_event.fire(
            request_type="gRPC",
            name=request.name,
            response_time=milliseconds,
            response_length=0,
            exception=error,
        )

    def send_schedule(self) -> None:
        """Send this process's share of an open loop, and wait for the last answers."""
        plan, sending = self.plan, Group()
        times = arrivals(plan.stages, plan.arrivals, plan.seed)
        for due in share(times, self.index, self.count):
            gevent.sleep(max(0.0, due - self.seconds))
            sending.spawn(self.send, due)
        sending.join()

    def take_tally(self) -> Tally:
        """What has been counted since this was asked last."""
        tally, self.tally = self.tally, Tally()
        now = time.process_time()
        tally.cpu_seconds, self._cpu_start = tally.cpu_seconds + now - self._cpu_start, now
        return tally

    @property
    def has_finished(self) -> bool:
        """Whether all was sent and all answers have come."""
        return self.seconds >= self.plan.seconds and self.num_users == 0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Processes:
    """What is known in this process of the run, and of the processes that take part.

    Attributes:
        load: of this process, since the test has started.
        finished: those that have sent all and got all answers, by their name.
    """

    load: Load | None = None
    finished: ClassVar[set[str]] = set()

    @classmethod
    def own(cls) -> Load:
        """What this process has, once the test has started."""
        if cls.load is None:
            raise RuntimeError("the test has not started")
        return cls.load


class LoadUser(User):
    def on_start(self) -> None:
        Processes.own().num_users += 1

    def on_stop(self) -> None:
        Processes.own().num_users -= 1

    @task
    def send(self) -> None:
        load = Processes.own()
        if load.plan.is_open:
            load.send_schedule()
            raise StopUser
        if (now := load.seconds) >= load.plan.seconds:
            raise StopUser
        load.send(now)


class Stages(LoadTestShape):
    """Tells Locust how many users there are to be, until all have ended."""

    def tick(self) -> tuple[int, float] | None:
        environment = self.runner.environment
        plan = Plan.from_json(environment.parsed_options.plan)
        seconds = Processes.load.seconds if Processes.load else 0.0
        ends = borders(plan.stages)[1:]
        # Locust asks once a second, which is too coarse for a change.
        to_wait = min((end - seconds for end in ends if end > seconds), default=1.0)
        if 0 < to_wait < 1:
            gevent.sleep(to_wait)
            seconds += to_wait
        stage = stage_at(plan.stages, seconds)
        if stage is None:
            # The users end by themselves.
            return None if self._has_ended() else self.runner.shape_last_tick
        count = count_senders(environment)
        return count if plan.is_open else plan.stages[stage].users, USERS_A_SECOND * count

    def _has_ended(self) -> bool:
        if isinstance(self.runner, MasterRunner):
            # One that is lost sends no report.
            return len(Processes.finished) >= self.runner.worker_count
        return Processes.own().has_finished


@events.test_start.add_listener
def start(environment: Environment, **_: object) -> None:
    try:
        Processes.load = Load(environment)
    except Exception:  # noqa: BLE001 - whatever it is, there is nothing to be measured
        # Locust would log it and go on without.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


@events.test_stop.add_listener
def stop(**_: object) -> None:
    # Locust does not exit while a channel is open.
    Processes.own().close()


@events.report_to_master.add_listener
def report_to_master(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001 - as Locust calls it
    if Processes.load is not None:
        # In this order: who has finished adds nothing to the tally.
        data["has_finished"] = Processes.load.has_finished
        data["tally"] = Processes.load.take_tally().to_table()


@events.worker_report.add_listener
def take_report(client_id: str, data: dict[str, Any]) -> None:
    if "tally" in data:
        Processes.own().tally.merge(Tally.from_table(data["tally"]))
        if data["has_finished"]:
            Processes.finished.add(client_id)


@events.quitting.add_listener
def write_outcome(environment: Environment, **_: object) -> None:
    """Leave what was seen for `run.py`; it judges, so Locust's own exit code says nothing."""
    environment.process_exit_code = 0
    load, runner = Processes.load, environment.runner
    if load is None or isinstance(runner, WorkerRunner):
        return
    is_master = isinstance(runner, MasterRunner)
    outcome = {
        "started_at": load.started_at,
        "num_processes": load.count,
        "num_lost": load.count - len(Processes.finished) if is_master else 0,
        "tally": load.take_tally().to_table(),
    }
    Path(environment.parsed_options.outcome).write_text(json.dumps(outcome))


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
