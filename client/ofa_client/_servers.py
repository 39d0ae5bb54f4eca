"""The servers of a client: whose turn it is, and which of them are left alone for now."""

from __future__ import annotations

import math
import threading
from collections.abc import Container, Iterable
from dataclasses import dataclass

# A server that failed is left out for this many seconds, twice as many after its next failure, and
# so on. Then one call tries it, and the others follow if that went well.
FIRST_LEFT_OUT_S = 1.0
MAX_LEFT_OUT_S = 30.0


@dataclass(eq=False)
class Server:
    """One address and how it does.

    Attributes:
        address: HOST:PORT that is connected to.
        authority: HOST:PORT that the server is known by: the name that gave the address.
        failures: since its last answer.
        failed_at: when the last of them was noticed, by the clock of the calls.
        answered_at: when the last answer came, by the same clock.
        left_out_until: by the same clock.
        in_flight: requests that have not ended yet.
    """

    address: str
    authority: str
    failures: int = 0
    failed_at: float = -math.inf
    answered_at: float = -math.inf
    left_out_until: float = -math.inf
    in_flight: int = 0

    def leave_out(self, now: float) -> None:
        """Leave the server out from now on, for as long as its failures call for."""
        seconds = FIRST_LEFT_OUT_S * 2.0 ** min(self.failures - 1, 30)
        self.left_out_until = now + min(seconds, MAX_LEFT_OUT_S)


class Servers:
    """Shared by all threads of a client. Its times are the caller's: it reads no clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: list[Server] = []
        self._gone: list[Server] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._servers)

    def update(self, servers: Iterable[Server]) -> None:
        """Replace the servers, keeping those whose address has not changed."""
        with self._lock:
            known = {server.address: server for server in self._servers}
            wanted = {server.address: server for server in servers}
            self._servers = [known.get(address, wanted[address]) for address in wanted]
            self._gone += [known[address] for address in known.keys() - wanted.keys()]

    def borrow(self, now: float, tried: Container[Server]) -> Server:
        """Return the server whose turn it is, to be given back when the request has ended.

        One that was not tried comes before one that was, then one that is not left out before one
        that is, and the one that was left out first before the others.
        """
        with self._lock:
            turn = self._next % len(self._servers)
            in_turn = self._servers[turn:] + self._servers[:turn]
            server = min(in_turn, key=lambda each: (each in tried, max(each.left_out_until, now)))
            self._next = self._servers.index(server) + 1
            if server.failures:
                server.leave_out(now)  # one call at a time finds out whether it is back
            server.in_flight += 1
            return server

    def give_back(self, server: Server) -> None:
        """Take note that the request to a borrowed server has ended."""
        with self._lock:
            server.in_flight -= 1

    def answered(self, server: Server, sent_at: float, now: float) -> None:
        """Take note that the server is well, as the request sent at that time was answered."""
        server.answered_at = now
        if server.failures:
            with self._lock:
                # A server that shuts down still answers what it was sent before it refused.
                if sent_at > server.failed_at:
                    server.failures, server.left_out_until = 0, -math.inf

    def was_silent(self, server: Server, sent_at: float, now: float) -> None:
        """Take note that the request sent at that time was not answered by its deadline."""
        # A server that answers others meanwhile is well; one that answers nobody hangs.
        if server.answered_at < sent_at:
            self.failed(server, sent_at, now)

    def failed(self, server: Server, sent_at: float, now: float) -> None:
        """Leave the server out, because the request sent at that time failed."""
        with self._lock:
            # What fails together, of many requests under way, is one failure.
            if sent_at > server.failed_at:
                server.failures += 1
                server.failed_at = now
                server.leave_out(now)

    def has_untried(self, tried: Container[Server]) -> bool:
        """Return whether there is a server that was not tried."""
        return any(server not in tried for server in self._servers)

    def take_gone(self) -> list[Server]:
        """Return the servers that are no longer wanted and have no request left, once."""
        if not self._gone:
            return []
        with self._lock:
            ended = [server for server in self._gone if not server.in_flight]
            self._gone = [server for server in self._gone if server.in_flight]
            return ended
