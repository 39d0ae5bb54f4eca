"""What all routes share: the client, the catalogue, and the way of a request through them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from ofa_client import AsyncOFAClient
from ofa_server.gateway.answers import Result
from ofa_server.gateway.bodies import read_body
from ofa_server.gateway.catalogue import ServedModel
from ofa_server.gateway.errors import overloaded

#: A model takes 64 requests and what it computes; what is more than this would wait in our memory
#: with its picture, 14 MB at most.
MAX_REQUESTS = 128

Body = TypeVar("Body", bound=BaseModel)
T = TypeVar("T")


class Models(Protocol):
    """Who knows what is served; `catalogue.Catalogue`, or a test's own."""

    async def models(self) -> Sequence[ServedModel]:
        """Returns the models that are ready."""

    async def is_ready(self) -> bool:
        """Returns whether the server and all its models are ready."""


@dataclass
class Gateway:
    """What the routes work with.

    Attributes:
        client: of the model server.
        catalogue: of its models.
        timeout: seconds for a request, from its first byte to the answer.
    """

    client: AsyncOFAClient
    catalogue: Models
    timeout: float
    _num_requests: int = field(default=0, init=False)

    @contextmanager
    def place(self) -> Iterator[Deadline]:
        """Gives a request its place among those under way, and its deadline.

        Raises:
            ApiError: there is no place left.
        """
        if self._num_requests >= MAX_REQUESTS:
            raise overloaded()
        self._num_requests += 1
        try:
            yield Deadline(self.timeout)
        finally:
            self._num_requests -= 1

    async def read(self, request: Request, model: type[Body], deadline: Deadline) -> Body:
        """Returns the body as the model that it must fit; errors as `bodies.read_body`."""
        return await read_body(request, model, deadline.remaining)

    async def ask(
        self,
        request: Request,
        verb: str,
        arguments: Mapping[str, object],
        model: str,
        deadline: Deadline,
    ) -> Result:
        """Calls a verb of the client; the call is cancelled when the caller goes away.

        Args:
            request: whose body has been read.
            verb: the client's method.
            arguments: of the method, by name.
            model: to ask.
            deadline: of the request.

        Raises:
            OFAClientError: as the verb.
            ClientDisconnect: the caller has gone away.
        """
        method = getattr(self.client, verb)
        return await _while_connected(
            request, method(**arguments, model=model, timeout=deadline.remaining)
        )


class Deadline:
    """The moment until which a request must be answered.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds from now; below 0 when it has passed."""
        return self._end - time.monotonic()


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Returns what the work returns, and cancels it when the caller goes away.

    The request's body must have been read: what comes after it is nothing but the disconnect.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        if working.cancel():
            await asyncio.wait({working})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
