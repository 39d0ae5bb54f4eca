"""Names that stand for several servers."""

import asyncio
import socket
from concurrent.futures import wait
from typing import Any

import pytest

from ofa_client import AsyncOFAClient, OFAClient, RetryPolicy, UnavailableError
from ofa_client._names import Names, split_addresses
from ofa_client._servers import Server, Servers
from tests.unit.scripted_triton import scripted_server

PATIENT = RetryPolicy(max_attempts=1000, initial_backoff=0.01, max_backoff=0.05)


class Dns:
    """What `socket.getaddrinfo` answers; None for a name that is not known."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses: list[str] | None = list(addresses)
        self.asked: list[tuple[str, int]] = []
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **_: object) -> list[Any]:
        self.asked.append((host, port))
        if self.addresses is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = [socket.AF_INET6 if ":" in each else socket.AF_INET for each in self.addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port))
            for family, address in zip(families, self.addresses, strict=True)
        ]


def look_up(names: Names, now: float, *, urgent: bool = False) -> bool:
    """Whether there was a look-up, which has ended then."""
    running = names.look_up(now, urgent=urgent)
    return running is not None and not wait([running], 30).not_done


def addresses_of(servers: Servers) -> list[str]:
    return [server.address for server in servers._servers]


def test_addresses_and_names_are_told_apart() -> None:
    servers, names = split_addresses(["a:1", "dns:///b:2", "[::1]:3"])
    assert [(server.address, server.authority) for server in servers] == [
        ("a:1", "a:1"),
        ("[::1]:3", "[::1]:3"),
    ]
    assert names == ["b:2"]


def test_a_name_is_looked_up_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    dns = Dns(monkeypatch, "10.0.0.1", "fd00::1")
    servers = Servers()
    names = Names(["ofa:8001"], [Server("always:1", "always:1")], servers)
    assert look_up(names, 100.0)
    assert addresses_of(servers) == ["always:1", "10.0.0.1:8001", "[fd00::1]:8001"]
    assert servers._servers[1].authority == "ofa:8001"
    kept = servers._servers[1]

    assert not look_up(names, 129.0)
    dns.addresses = ["10.0.0.1", "10.0.0.2"]
    assert look_up(names, 130.0)
    assert addresses_of(servers) == ["always:1", "10.0.0.1:8001", "10.0.0.2:8001"]
    assert servers._servers[1] is kept
    assert [server.address for server in servers.take_gone()] == ["[fd00::1]:8001"]

    assert not look_up(names, 130.5, urgent=True)
    assert look_up(names, 131.0, urgent=True)
    dns.addresses = None
    assert look_up(names, 170.0)
    assert len(servers) == 3, "what was found before may still be right"
    assert dns.asked == [("ofa", 8001)] * 4


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_all_addresses_of_a_name_take_turns(
    monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    dns = Dns(monkeypatch, "127.0.0.1", "127.0.0.2")
    with scripted_server() as first:
        port = first.address.rpartition(":")[2]
        with scripted_server(address=f"127.0.0.2:{port}") as second:

            async def ask() -> None:
                async with AsyncOFAClient(f"dns:///ofa.test:{port}", timeout=20) as client:
                    for _ in range(4):
                        await client.caption(b"picture")

            if asynchronous:
                asyncio.run(ask())
            else:
                with OFAClient(f"dns:///ofa.test:{port}", timeout=20) as client:
                    for _ in range(4):
                        client.caption(b"picture")
            assert (len(first.requests), len(second.requests)) == (2, 2)
    assert dns.asked == [("ofa.test", int(port))]


def test_a_server_that_moves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    dns = Dns(monkeypatch, "127.0.0.1")
    with scripted_server() as first:
        port = first.address.rpartition(":")[2]
        client = OFAClient(f"dns:///ofa.test:{port}", timeout=60, retry=PATIENT)
        client.caption(b"picture")
    with scripted_server(address=f"127.0.0.3:{port}") as moved:
        dns.addresses = ["127.0.0.3"]
        client.caption(b"picture")
        assert len(moved.requests) == 1
        client.caption(b"picture")
    assert [server.address for server in client._channels] == [f"127.0.0.3:{port}"]
    client.close()


def test_a_name_that_is_not_known_holds_no_other_name_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"one": ["10.0.0.1"], "two": ["10.0.0.2"]}

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    servers = Servers()
    names = Names(["none:1", "one:1", "two:1"], [], servers)
    assert look_up(names, 0.0)
    assert addresses_of(servers) == ["10.0.0.1:1", "10.0.0.2:1"]
    kept = servers._servers[0]

    del known["one"]
    known["two"] = ["10.0.0.3"]
    assert look_up(names, 30.0)
    assert addresses_of(servers) == ["10.0.0.1:1", "10.0.0.3:1"]
    assert servers._servers[0] is kept


@pytest.mark.parametrize("name", ["a..b", "a" * 64 + ".test"])
def test_what_cannot_be_a_name_is_unavailable(name: str) -> None:
    with (
        OFAClient(f"dns:///{name}:8001", timeout=20, retry=None) as client,
        pytest.raises(UnavailableError, match=f"{name}:8001"),
    ):
        client.caption(b"picture")


def test_a_name_that_is_not_known_is_unavailable_until_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dns = Dns(monkeypatch)
    dns.addresses = None
    with scripted_server() as triton:
        port = triton.address.rpartition(":")[2]
        # By attempts, because a deadline that ends a wait is another error.
        retry = RetryPolicy(max_attempts=100, initial_backoff=0.05, max_backoff=0.05)
        with OFAClient(f"dns:///nothing.invalid:{port}", timeout=60, retry=retry) as client:
            with pytest.raises(UnavailableError, match=r"nothing\.invalid"):
                client.caption(b"picture")
            dns.addresses = ["127.0.0.1"]
            assert client.caption(b"picture").text == "a red apple"
