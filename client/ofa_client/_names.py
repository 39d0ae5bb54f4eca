"""Addresses from a list and from DNS."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from ofa_client._servers import Server, Servers

logger = logging.getLogger("ofa_client")

_DNS = "dns:///"
# How old what a name stands for may be, and how old when a server has just failed.
_MAX_AGE_S = 30.0
_MAX_AGE_AFTER_FAILURE_S = 1.0


def split_addresses(addresses: str | Sequence[str]) -> tuple[list[Server], list[str]]:
    """Return the servers that are given by address, and the names that stand for several.

    Raises:
        ValueError: one is neither HOST:PORT nor dns:///HOST:PORT, or there is none.
    """
    given = [addresses] if isinstance(addresses, str) else list(addresses)
    if not given:
        raise ValueError("there must be at least one server")
    for each in given:
        host, _, port = each.removeprefix(_DNS).rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise ValueError(
                "server must be HOST:PORT of the gRPC port, or dns:///HOST:PORT for all addresses "
                f"of a name, not {each!r}"
            )
    names = [each.removeprefix(_DNS) for each in given if each.startswith(_DNS)]
    return [Server(each, each) for each in given if not each.startswith(_DNS)], names


class Names:
    """Keeps `servers` at what the names stand for, beside those that are always there.

    A look-up runs in a thread of its own, so that only a call that has no server at all waits.
    """

    def __init__(self, names: Sequence[str], always: Sequence[Server], servers: Servers) -> None:
        self._names = names
        self._always = always
        self._servers = servers
        self._found: dict[str, list[Server]] = {}
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        self._started_at: float | None = None

    def look_up(self, now: float, *, urgent: bool) -> Future[None] | None:
        """Start a look-up if it is time for one, and return the one that runs."""
        max_age = _MAX_AGE_AFTER_FAILURE_S if urgent else _MAX_AGE_S
        with self._lock:
            if self._running is not None and not self._running.done():
                return self._running
            if self._started_at is not None and now - self._started_at < max_age:
                return None
            self._started_at = now
            self._running = Future()
            self._running.set_running_or_notify_cancel()  # nobody can cancel it from now on
            threading.Thread(
                target=self._update, args=(self._running,), name="ofa-client-dns", daemon=True
            ).start()
            return self._running

    def _update(self, ended: Future[None]) -> None:
        try:
            for name in self._names:
                try:
                    self._found[name] = _resolve(name)
                except (OSError, ValueError) as error:  # noqa: PERF203 - each has its own
                    # What was found before may still be right. A ValueError: it cannot be a name.
                    logger.warning("%s cannot be looked up: %s", name, error)
            found = [server for name in self._names for server in self._found.get(name, [])]
            # Without any server, gRPC is to say what is wrong with the names.
            named = [Server(name, name) for name in self._names]
            self._servers.update([*self._always, *found] or named)
        finally:
            ended.set_result(None)


def _resolve(name: str) -> list[Server]:
    host, _, port = name.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    addresses = [
        f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"
        for family, _, _, _, address in found
    ]
    return [Server(address, name) for address in addresses]
