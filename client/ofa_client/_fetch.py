"""Pictures from URLs, fetched by the client: the server fetches nothing.

Whoever can make the client fetch a URL must not reach what only the client's machine can reach, so
the address that is connected to is looked at, not the name that led there, and again after every
redirect.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TypeGuard
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ofa_client._errors import DeadlineExceededError, ImageTooLargeError, InvalidImageError
from ofa_client._images import MAX_IMAGE_BYTES, ImageInput, to_image_bytes
from ofa_client._stopping import stopped_by

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 65_536
_HEADERS = {"User-Agent": "ofa-client", "Accept": "image/*", "Accept-Encoding": "identity"}
# Addresses that stand for an IPv4 address beside those that `ipaddress` takes apart.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class UrlPolicy:
    """What the client fetches of the web. Only http and https, and never through a proxy.

    Attributes:
        timeout: seconds for a picture in all, within the timeout of the call. Looking up a name
            takes as long as the system lets it.
        max_redirects: redirects that are followed.
        allow_private: whether addresses may be connected to that are not public: of this machine
            (127.0.0.1), of the local network (10.0.0.0/8, fe80::/10) and so on.
    """

    timeout: float = 10.0
    max_redirects: int = 3
    allow_private: bool = False


def is_url(image: object) -> TypeGuard[str]:
    """Return whether an input is taken for a URL."""
    return isinstance(image, str) and image[:8].lower().startswith(("http://", "https://"))


class Fetch:
    """One picture from a URL.

    Args:
        url: with http or https.
        policy: limits; None allows no URL.
        max_bytes: limit on the picture.
        timeout: seconds that there are, beside those of the policy.
    """

    def __init__(
        self, url: str, policy: UrlPolicy | None, *, max_bytes: int, timeout: float
    ) -> None:
        self._url = url
        self._policy = policy
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False

    def run(self) -> bytes:
        """Return what the URL stands for.

        Raises:
            InvalidImageError: it cannot be fetched, or must not be.
            ImageTooLargeError: it is over the limit.
            DeadlineExceededError: it took longer than `timeout`.
        """
        policy = self._policy
        if policy is None:
            raise InvalidImageError("image is a URL, and this client fetches none")
        seconds = min(policy.timeout, self._timeout)
        if seconds <= 0:
            raise DeadlineExceededError("there was no time left to fetch the image")
        end = time.monotonic() + seconds
        # A socket's own timeout starts anew with every byte.
        watchdog = threading.Timer(seconds, self.cancel)
        watchdog.daemon = True
        watchdog.start()
        try:
            return self._follow(policy, end)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._over and not isinstance(error, TimeoutError):
                raise InvalidImageError(
                    f"{_shown(self._url)} cannot be fetched: {str(error)[:200]}"
                ) from error
            if seconds == self._timeout:
                raise DeadlineExceededError(
                    f"{_shown(self._url)} was not there within {seconds:.3g} s"
                ) from error
            raise InvalidImageError(
                f"{_shown(self._url)} was not there within {seconds:g} s, the limit"
            ) from error
        finally:
            watchdog.cancel()

    def cancel(self) -> None:
        """Make `run` end with an error, from another thread."""
        with self._lock:
            self._over = True
            if self._socket is not None:
                _shut(self._socket)

    def _follow(self, policy: UrlPolicy, end: float) -> bytes:
        url = self._url
        for _ in range(policy.max_redirects + 1):
            found = self._get(urlsplit(url), policy, end)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
            if not is_url(url):
                raise InvalidImageError(f"{_shown(self._url)} leads to something that is no URL")
        raise InvalidImageError(
            f"{_shown(self._url)} leads over more than {policy.max_redirects} redirects"
        )

    def _get(self, url: SplitResult, policy: UrlPolicy, end: float) -> bytes | str:
        """Return the content of the URL, or where it redirects to."""
        if url.username is not None or not url.hostname:
            raise InvalidImageError(f"{_shown(self._url)} has no host, or has a user name in it")
        secure = url.scheme.lower() == "https"
        host = url.hostname if ":" in url.hostname else url.hostname.encode("idna").decode()
        port = url.port or (443 if secure else 80)
        connection = http.client.HTTPConnection(host, port)
        if secure:
            connection.default_port = 443
        try:
            connection.sock = self._connect(host, port, policy, end)
            if secure:
                connection.sock = self._encrypt(connection.sock, host)
            # Whatever a URL's text may hold, one line of ASCII is sent.
            path = quote(url.path or "/", safe="/%:=&~+!$,;'@()*[]")
            query = f"?{quote(url.query, safe='/%:=&~+!$,;@()*[]?')}" if url.query else ""
            connection.request("GET", path + query, headers=_HEADERS)
            with connection.getresponse() as response:
                location = response.getheader("Location")
                if response.status in _REDIRECTS and location is not None:
                    return location
                if response.status != 200:
                    raise InvalidImageError(
                        f"{_shown(self._url)} cannot be fetched: HTTP status {response.status}"
                    )
                return self._read(response)
        finally:
            with self._lock:
                if self._socket is not None:
                    self._socket.close()
                self._socket = None

    def _connect(self, host: str, port: int, policy: UrlPolicy, end: float) -> socket.socket:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        allowed = [each for each in found if policy.allow_private or _is_public(str(each[4][0]))]
        if not allowed:
            raise InvalidImageError(f"{_shown(self._url)} is at an address that is not public")
        for last, (family, kind, protocol, _, address) in enumerate(allowed, 1 - len(allowed)):
            connected = self._hold(socket.socket(family, kind, protocol))
            try:
                connected.settimeout(max(0.001, end - time.monotonic()))
                connected.connect(address)
            except OSError:
                connected.close()
                if last == 0:
                    raise
            else:
                break
        return connected

    def _encrypt(self, connected: socket.socket, host: str) -> socket.socket:
        encrypted = _tls_context().wrap_socket(
            connected, server_hostname=host, do_handshake_on_connect=False
        )
        self._hold(encrypted)
        encrypted.do_handshake()
        return encrypted

    def _hold(self, held: socket.socket) -> socket.socket:
        """Let `cancel` reach the socket."""
        with self._lock:
            if self._over:
                held.close()
                raise TimeoutError
            self._socket = held
        return held

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        length = response.length or 0  # what the header says
        content = bytearray()
        while max(length, len(content)) <= self._max_bytes and (
            chunk := response.read(_CHUNK_BYTES)
        ):
            content += chunk
        if max(length, len(content)) > self._max_bytes:
            raise ImageTooLargeError(
                f"{_shown(self._url)} is over {self._max_bytes:,} bytes, the server's limit"
            )
        if self._over or len(content) < length:
            raise ConnectionError("it broke off")
        return bytes(content)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inside = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inside = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inside:
            return _is_public(str(inside))
        if ip.is_site_local:  # the local networks of old, which `ipaddress` takes for global
            return False
    return ip.is_global and not ip.is_multicast


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _shut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected yet, or not any more
        # Of the connection, not of the encryption: another thread is inside of that.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _shown(url: str) -> str:
    """Return the URL without what may be secret in it: user name, password and query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return f"image {parts.scheme}://{host}{parts.path}"[:200]
    except ValueError:
        return "image"


def read_picture(image: ImageInput) -> bytes:
    """Return a picture as encoded bytes; a URL is fetched within the limits of `UrlPolicy()`."""
    if not is_url(image):
        return to_image_bytes(image)
    policy = UrlPolicy()
    fetch = Fetch(image, policy, max_bytes=MAX_IMAGE_BYTES, timeout=policy.timeout)
    with stopped_by(fetch.cancel):
        return fetch.run()
