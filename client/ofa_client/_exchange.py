"""The attempts of one call, without I/O: whom to ask, when to ask again, when to give up.

`Exchange.run` is a generator. It yields what is to be done next and is sent how that went, by a
client that does nothing but that: `OFAClient` on threads, `AsyncOFAClient` on an event loop, and
the tests by hand.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ofa_client._calls import Attempt
from ofa_client._errors import (
    DeadlineExceededError,
    OverloadedError,
)
from ofa_client._names import Names
from ofa_client._retry import RetryPolicy
from ofa_client._servers import Server, Servers
from ofa_client._status import Remedy, find_remedy, translate_error
from ofa_client._wire import set_queue_timeout

logger = logging.getLogger("ofa_client")


@dataclass(frozen=True)
class Send:
    """Send the request to the server; the outcome is a `Reply` or a `Failure`."""

    server: Server
    message: Any
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    timeout: float


@dataclass(frozen=True)
class Wait:
    """Let this many seconds pass."""

    seconds: float


@dataclass(frozen=True)
class LookUp:
    """Let the look-up of names end, or this many seconds pass."""

    ended: Future[None]
    seconds: float


@dataclass(frozen=True)
class Close:
    """Close the channels to servers that are no longer wanted."""

    servers: list[Server]


Action: TypeAlias = Send | Wait | LookUp | Close


@dataclass(frozen=True)
class Reply:
    """An answer: Triton's ModelInferResponse."""

    message: Any


@dataclass(frozen=True)
class Failure:
    """A gRPC status other than OK, by its name and its text."""

    code: str
    details: str
    cause: BaseException | None = None


@dataclass(frozen=True)
class Routes:
    """What the calls of a client have in common.

    Attributes:
        text: the servers as they were given, for messages.
        servers: whom to ask.
        names: where the servers come from, if they come from names.
        retry: when to ask again.
        on_attempt: told of every attempt.
        clock: seconds that only ever grow.
        jitter: a random number between two others.
    """

    text: str
    servers: Servers
    names: Names | None
    retry: RetryPolicy
    on_attempt: Callable[[Attempt], None] | None = None
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = random.uniform


@dataclass
class Call:
    """One call: what it asks for and what has become of it so far.

    Attributes:
        timeout: seconds that it was given.
        deadline: when they are over.
        message: Triton's ModelInferRequest.
        metadata: sent with it.
        attempts: requests that were sent and have ended.
    """

    request_id: str
    model: str
    timeout: float
    deadline: float
    message: Any = None
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    attempts: tuple[Attempt, ...] = ()


class Exchange:
    """The attempts of one call."""

    def __init__(self, call: Call, routes: Routes) -> None:
        self._call = call
        self._routes = routes
        self._tried: set[Server] = set()
        self._num_waits = 0

    def run(self) -> Generator[Action, Any, Reply]:
        """Attempt the call until there is an answer, and return it.

        Raises:
            OFAClientError: there is none.
        """
        routes = self._routes
        while True:
            server = yield from self._next_server()
            sent_at = routes.clock()
            outcome = yield from self._send(server, sent_at)
            now = routes.clock()
            if isinstance(outcome, Reply):
                routes.servers.answered(server, sent_at, now)
                self._record(server, "OK", "", now - sent_at, None)
                if gone := routes.servers.take_gone():
                    yield Close(gone)
                return outcome
            error = translate_error(
                outcome.code, outcome.details, server=server.address, timeout=self._call.timeout
            )
            remedy = find_remedy(error)
            if remedy in (Remedy.SOON, Remedy.ELSEWHERE):
                routes.servers.failed(server, sent_at, now)
            elif outcome.code == "DEADLINE_EXCEEDED":
                routes.servers.was_silent(server, sent_at, now)
            elif remedy is Remedy.LATER or outcome.code == "INVALID_ARGUMENT":
                routes.servers.answered(server, sent_at, now)  # who refuses is there
            self._tried.add(server)
            wait = self._wait_before_next(remedy, now)
            self._record(server, outcome.code, outcome.details, now - sent_at, wait)
            if wait is None:
                if isinstance(error, OverloadedError):
                    error.retry_after = self._routes.retry.backoff(self._num_waits + 1)
                raise error from outcome.cause
            if wait > 0:
                yield Wait(wait)

    def _next_server(self) -> Generator[Action, Any, Server]:
        """Return the server whose turn it is, after a look at what the names stand for now."""
        routes = self._routes
        if routes.names is not None:
            running = routes.names.look_up(routes.clock(), urgent=bool(self._call.attempts))
            if running is not None and not len(routes.servers):
                yield LookUp(running, self._call.deadline - routes.clock())
        now = routes.clock()
        # gRPC takes a deadline that is only just over for one that is still to come.
        if now >= self._call.deadline:
            raise DeadlineExceededError(
                f"{routes.text} did not answer within {self._call.timeout:g} s"
            )
        return routes.servers.borrow(now, self._tried)

    def _send(self, server: Server, now: float) -> Generator[Action, Any, Reply | Failure]:
        seconds = self._call.deadline - now
        set_queue_timeout(self._call.message, seconds)
        try:
            outcome: Reply | Failure = yield Send(
                server, self._call.message, self._call.metadata, seconds
            )
        finally:
            self._routes.servers.give_back(server)
        return outcome

    def _wait_before_next(self, remedy: Remedy, now: float) -> float | None:
        """Return how long to wait before the next attempt; None if there must be none."""
        retry = self._routes.retry
        if remedy is Remedy.NONE or len(self._call.attempts) + 1 >= retry.max_attempts:
            return None
        if self._routes.servers.has_untried(self._tried):
            return 0.0
        if remedy is Remedy.ELSEWHERE:
            return None
        self._num_waits += 1
        self._tried.clear()
        wait = self._routes.jitter(0.0, retry.backoff(self._num_waits))
        return wait if now + wait < self._call.deadline else None

    def _record(
        self, server: Server, code: str, message: str, seconds: float, retry_in: float | None
    ) -> None:
        """Add an attempt to the call, and tell the log and the hook of it."""
        call = self._call
        number = len(call.attempts) + 1
        attempt = Attempt(
            call.request_id, call.model, server.address, number, code, message, seconds, retry_in
        )
        call.attempts += (attempt,)
        if code != "OK":
            logger.info(
                "request %s to %s, attempt %d: %s answered %s after %.3f s: %s; %s",
                *(call.request_id, call.model, number, server.address, code, seconds, message),
                "giving up" if retry_in is None else f"next attempt in {retry_in:.3f} s",
            )
        if self._routes.on_attempt is not None:
            try:
                self._routes.on_attempt(attempt)
            except Exception:
                logger.exception("on_attempt failed; the call goes on")
