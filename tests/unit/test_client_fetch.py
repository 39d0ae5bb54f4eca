"""Pictures from URLs: what is fetched, what is not, and that nothing private can be reached."""

import asyncio
import http.server
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ofa_client import (
    MAX_IMAGE_BYTES,
    AsyncOFAClient,
    DeadlineExceededError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidOptionError,
    OFAClient,
    UrlPolicy,
    _fetch,
)
from ofa_client._fetch import Fetch
from tests.unit.certificates import Authority
from tests.unit.scripted_triton import ScriptedTriton

PICTURE = bytes(range(256)) * 1000
OPEN = UrlPolicy(allow_private=True)
Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "WebServer"

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.hosts.append(self.headers["Host"])
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


class WebServer(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.hosts: list[str] = []
        self.faults: list[BaseException | None] = []
        self.answer: Answer = lambda handler: handler.reply(
            200, {"Content-Length": str(len(PICTURE))}, PICTURE
        )
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/picture.jpg"

    def handle_error(self, *_: object) -> None:
        error = sys.exc_info()[1]
        # A client that has gone, or that trusts no stranger, is what some tests are about.
        if not isinstance(error, (ConnectionError, ssl.SSLError)):
            self.faults.append(error)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()
    # Closed by now, so that every answer has ended.
    assert not server.faults


def fetch(url: str, policy: UrlPolicy | None = OPEN, *, timeout: float = 30) -> bytes:
    return Fetch(url, policy, max_bytes=MAX_IMAGE_BYTES, timeout=timeout).run()


def test_a_url_becomes_its_picture(web: WebServer) -> None:
    assert fetch(web.url) == PICTURE
    assert web.hosts == [f"127.0.0.1:{web.server_port}"]


def test_a_url_of_any_text_is_one_line(web: WebServer) -> None:
    fetch(web.url + "/a b/é?q=1 2&é=%20#part")
    fetch(web.url + " HTTP/1.0\r\nHost: smuggled")
    assert web.paths == [
        "/picture.jpg/a%20b/%C3%A9?q=1%202&%C3%A9=%20",
        "/picture.jpg%20HTTP/1.0Host:%20smuggled",
    ]
    assert set(web.hosts) == {f"127.0.0.1:{web.server_port}"}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_text_with_http_in_front_is_a_url(
    web: WebServer, scripted_triton: ScriptedTriton, asynchronous: bool
) -> None:
    async def ask() -> None:
        async with AsyncOFAClient(scripted_triton.address, timeout=20, urls=OPEN) as client:
            await client.caption(web.url)

    if asynchronous:
        asyncio.run(ask())
    else:
        with OFAClient(scripted_triton.address, timeout=20, urls=OPEN) as client:
            client.caption(web.url)
    [request] = scripted_triton.requests
    assert request["image"].item() == PICTURE


def test_the_clients_default_reaches_nothing_private(
    web: WebServer, scripted_triton: ScriptedTriton
) -> None:
    with OFAClient(scripted_triton.address, timeout=20) as client:
        with pytest.raises(InvalidImageError, match="at an address that is not public"):
            client.caption(web.url)
        with pytest.raises(InvalidOptionError):  # nothing is fetched for a request that is wrong
            client.caption(web.url, beam=3)
    with (
        OFAClient(scripted_triton.address, timeout=20, urls=None) as client,
        pytest.raises(InvalidImageError, match="this client fetches none"),
    ):
        client.caption(web.url)
    assert not web.paths
    assert not scripted_triton.requests


PRIVATE = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    "2001:db8::1", "fe80::1%lo", "fec0::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_told(address: str) -> None:
    assert not _fetch._is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_told(address: str) -> None:
    assert _fetch._is_public(address)


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0"]
)
def test_no_way_to_write_this_machine_reaches_it(web: WebServer, host: str) -> None:
    with pytest.raises(InvalidImageError):
        fetch(f"http://{host}:{web.server_port}/", UrlPolicy())
    assert not web.paths


def test_the_address_that_was_looked_at_is_connected_to(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that turns private between a look and the connection ("DNS rebinding")."""
    lookups: list[str] = []

    def first_public_then_private(host: str, port: int, **_: object) -> list[Any]:
        lookups.append(host)
        address = "127.0.0.1" if len(lookups) > 1 else "192.0.2.7"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(socket, "getaddrinfo", first_public_then_private)
    monkeypatch.setattr(_fetch, "_is_public", lambda address: address == "192.0.2.7")
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(InvalidImageError, match="nobody there"):
        fetch(f"http://rebinding.test:{web.server_port}/", UrlPolicy())
    assert lookups == ["rebinding.test"]
    assert connected == [("192.0.2.7", web.server_port)]


def test_private_addresses_among_public_ones_are_left_out(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(host: str, port: int, **_: object) -> list[Any]:
        addresses = ["127.0.0.2", "127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    monkeypatch.setattr(_fetch, "_is_public", lambda address: address == "127.0.0.1")
    assert fetch(f"http://name.test:{web.server_port}/", UrlPolicy()) == PICTURE


def test_redirects_are_followed_up_to_a_number(web: WebServer) -> None:
    def redirect(handler: Handler) -> None:
        left = int(handler.path.strip("/"))
        if left:
            handler.reply(302, {"Location": f"/{left - 1}", "Content-Length": "0"})
        else:
            handler.reply(200, {"Content-Length": "3"}, b"end")

    web.answer = redirect
    base = f"http://127.0.0.1:{web.server_port}"
    assert fetch(f"{base}/3") == b"end"
    assert web.paths == ["/3", "/2", "/1", "/0"]
    with pytest.raises(InvalidImageError, match="more than 3 redirects"):
        fetch(f"{base}/4")
    with pytest.raises(InvalidImageError, match="more than 0 redirects"):
        fetch(f"{base}/1", UrlPolicy(max_redirects=0, allow_private=True))


def test_every_redirect_is_looked_at(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def redirect(handler: Handler) -> None:
        location = f"http://127.0.0.2:{web.server_port}/inside"
        handler.reply(302, {"Location": location, "Content-Length": "0"})

    web.answer = redirect
    monkeypatch.setattr(_fetch, "_is_public", lambda address: address == "127.0.0.1")
    with pytest.raises(InvalidImageError, match="not public"):
        fetch(web.url, UrlPolicy())
    assert web.paths == ["/picture.jpg"]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x"])
def test_a_redirect_leads_to_http_alone(web: WebServer, location: str) -> None:
    web.answer = lambda handler: handler.reply(302, {"Location": location, "Content-Length": "0"})
    with pytest.raises(InvalidImageError, match="leads to something that is no URL"):
        fetch(web.url)


def test_the_size_is_limited_by_header_and_by_content(web: WebServer) -> None:
    def announce(handler: Handler) -> None:
        handler.reply(200, {"Content-Length": str(MAX_IMAGE_BYTES + 1)})
        web.over.wait(30)

    web.answer = announce
    with pytest.raises(ImageTooLargeError, match="is over 10,485,760 bytes"):
        fetch(web.url)

    def endless(handler: Handler) -> None:
        handler.reply(200, {"Connection": "close"})
        for _ in range(2 * MAX_IMAGE_BYTES // len(PICTURE)):
            handler.wfile.write(PICTURE)

    web.answer = endless
    with pytest.raises(ImageTooLargeError, match="is over 10,485,760 bytes"):
        fetch(web.url)

    largest = bytes(MAX_IMAGE_BYTES)
    web.answer = lambda handler: handler.reply(200, {"Content-Length": str(len(largest))}, largest)
    assert len(fetch(web.url)) == MAX_IMAGE_BYTES


def test_what_breaks_off_is_no_picture(web: WebServer) -> None:
    def break_off(handler: Handler) -> None:
        handler.reply(200, {"Content-Length": str(len(PICTURE))}, PICTURE[:-1])
        handler.close_connection = True

    web.answer = break_off
    with pytest.raises(InvalidImageError, match="it broke off"):
        fetch(web.url)


@pytest.mark.parametrize("drip", ["nothing", "header", "content"])
def test_the_time_is_limited_however_slowly_it_drips(web: WebServer, drip: str) -> None:
    def slow(handler: Handler) -> None:
        if drip == "content":
            handler.reply(200, {"Content-Length": "1000000"})
        while not web.over.wait(0.02):
            if drip != "nothing":
                handler.wfile.write(b"X")
                handler.wfile.flush()

    web.answer = slow
    with pytest.raises(InvalidImageError, match=r"was not there within 0\.3 s, the limit"):
        fetch(web.url, UrlPolicy(timeout=0.3, allow_private=True))
    with pytest.raises(DeadlineExceededError, match=r"was not there within 0\.2 s"):
        fetch(web.url, timeout=0.2)


def test_a_cancelled_call_ends_its_fetch(web: WebServer, scripted_triton: ScriptedTriton) -> None:
    arrived, gone = threading.Event(), threading.Event()

    def hold(handler: Handler) -> None:
        arrived.set()
        assert handler.rfile.read(1) == b"", "the client's end of the connection"
        gone.set()

    web.answer = hold

    async def ask() -> None:
        policy = UrlPolicy(timeout=60, allow_private=True)
        async with AsyncOFAClient(scripted_triton.address, timeout=60, urls=policy) as client:
            task = asyncio.ensure_future(client.caption(web.url))
            assert await asyncio.to_thread(arrived.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(gone.wait, 30)

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "no host"),
        ("http://user:secret@127.0.0.1/", "has a user name in it"),
        ("http://[::1", "image cannot be fetched"),
        ("http://127.0.0.1:99999/", "cannot be fetched"),
        ("http://" + "a" * 64 + ".test/", "cannot be fetched"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidImageError, match=message) as caught:
        fetch(url)
    assert "secret" not in str(caught.value)


def test_an_http_error_has_its_status_and_no_secret(web: WebServer) -> None:
    web.answer = lambda handler: handler.reply(403, {"Content-Length": "0"})
    with pytest.raises(InvalidImageError, match="HTTP status 403") as caught:
        fetch(f"{web.url}?signature=secret")
    assert "secret" not in str(caught.value)
    assert "/picture.jpg" in str(caught.value)


def test_https_proves_the_hosts_name(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority()
    certificate = authority.certify("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, content in (("chain", certificate.chain), ("key", certificate.key)):
        (tmp_path / name).write_bytes(content)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    web.socket = context.wrap_socket(web.socket, server_side=True)
    trusting = ssl.create_default_context(cadata=authority.root.decode())
    monkeypatch.setattr(_fetch, "_tls_context", lambda: trusting)
    assert fetch(f"https://localhost:{web.server_port}/") == PICTURE
    with pytest.raises(InvalidImageError, match="certificate"):
        fetch(f"https://127.0.0.1:{web.server_port}/")
    assert len(web.paths) == 1
