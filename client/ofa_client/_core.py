"""One call from its arguments to its result, without I/O: what both clients are made of."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from ofa_client._calls import Attempt, CallInfo
from ofa_client._errors import AuthenticationError, InvalidOptionError, OFAClientError
from ofa_client._exchange import Action, Call, Exchange, Reply, Routes
from ofa_client._fetch import Fetch, UrlPolicy, is_url
from ofa_client._images import MAX_IMAGE_BYTES, ImageInput, to_image_bytes
from ofa_client._names import Names, split_addresses
from ofa_client._requests import make_tensor
from ofa_client._retry import NO_RETRIES, RetryPolicy
from ofa_client._security import TLS, Token, bearer, check_metadata
from ofa_client._servers import Servers
from ofa_client._tasks import ResultT, Task
from ofa_client._tensors import Tensors
from ofa_client._wire import from_reply, to_message

_MAX_TIMEOUT_S = 1_000_000


@dataclass(frozen=True)
class Read:
    """Get the bytes of a picture, which may take a while; the outcome is the bytes.

    Attributes:
        run: blocks until they are there.
        cancel: makes `run` end early, from another thread, where anything can.
        seconds: that there are, for a client that need not wait for `run`.
    """

    run: Callable[[], bytes]
    cancel: Callable[[], None]
    seconds: float


Step: TypeAlias = Action | Read


class Core:
    """The settings of a client, checked, and the steps of its calls. Threads may share it.

    The arguments are those of `OFAClient`.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        model: str | None,
        timeout: float,
        retry: RetryPolicy | None,
        tls: TLS | None,
        token: Token | None,
        metadata: Mapping[str, str] | None,
        urls: UrlPolicy | None,
        on_attempt: Callable[[Attempt], None] | None,
    ) -> None:
        always, names = split_addresses(servers)
        if token is not None and tls is None:
            raise ValueError(
                "a token needs tls: without it, everyone on the way could read it. Where a proxy "
                "of yours encrypts, send the header yourself, with metadata"
            )
        self._model = model
        self._timeout = timeout
        self._urls = urls
        self._token = token
        self._metadata = check_metadata(metadata or {})
        if isinstance(token, str):
            bearer(token)  # is refused here rather than in the first call
        pool = Servers()
        pool.update(always)
        self._routes = Routes(
            text=", ".join([*(server.address for server in always), *names]),
            servers=pool,
            names=Names(names, always, pool) if names else None,
            retry=NO_RETRIES if retry is None else retry,
            on_attempt=on_attempt,
        )

    def __repr__(self) -> str:
        return f"({self._routes.text!r}, model={self._model!r}, timeout={self._timeout!r})"

    def call(
        self,
        task: Task[ResultT],
        required: Mapping[str, object],
        optional: Mapping[str, object],
        model: str | None,
        timeout: float | None,
    ) -> Generator[Step, Any, ResultT]:
        """Yield what is to be done, one step after the other, and return the result.

        A client sends back the outcome of each step, or throws in what it raised.

        Args:
            task: what is asked.
            required: pictures and texts by the name of their tensor.
            optional: more of them, and options; those that are None are left out.
            model: name of the ensemble, by default the client's or else the task's.
            timeout: seconds for everything, by default the client's.

        Raises:
            OFAClientError: there is no result.
        """
        clock = self._routes.clock
        start = clock()
        allowed = self._timeout if timeout is None else timeout
        call = Call(
            request_id=uuid.uuid4().hex,
            model=model or self._model or task.model,
            timeout=allowed,
            deadline=start,
        )
        try:
            _check_timeout(allowed)
            call.deadline = start + allowed
            inputs = yield from self._inputs(task, required, optional, call.deadline)
            call.message = to_message(call.model, call.request_id, inputs)
            call.metadata = self._call_metadata()
            sent_at = clock()
            reply: Reply = yield from Exchange(call, self._routes).run()
            info = CallInfo(
                request_id=call.request_id,
                model=call.model,
                model_version=reply.message.model_version,
                attempts=call.attempts,
                input_seconds=sent_at - start,
                seconds=clock() - start,
            )
            return task.parse(from_reply(reply.message), info)
        except OFAClientError as error:
            error.request_id, error.attempts = call.request_id, call.attempts
            raise

    def _inputs(
        self,
        task: Task[ResultT],
        required: Mapping[str, object],
        optional: Mapping[str, object],
        deadline: float,
    ) -> Generator[Step, Any, Tensors]:
        for name in optional:
            if name not in task.options:
                raise InvalidOptionError(
                    f"unknown option {name}; known are {', '.join(task.options)}"
                )
        given = {name: value for name, value in optional.items() if value is not None}
        given.update(required)
        # What is refused without a look at the picture is refused before the picture is read.
        inputs = {
            name: make_tensor(name, value) for name, value in given.items() if name != "image"
        }
        if "image" in given:
            image = cast("ImageInput", given["image"])
            image_bytes = (
                to_image_bytes(image)
                if isinstance(image, (bytes, bytearray, memoryview))
                else (yield self._reading(image, deadline - self._routes.clock()))
            )
            inputs["image"] = make_tensor("image", image_bytes)
        return inputs

    def _reading(self, image: ImageInput, seconds: float) -> Read:
        if is_url(image):
            fetch = Fetch(image, self._urls, max_bytes=MAX_IMAGE_BYTES, timeout=seconds)
            return Read(fetch.run, fetch.cancel, seconds)
        return Read(functools.partial(to_image_bytes, image), lambda: None, seconds)

    def _call_metadata(self) -> tuple[tuple[str, str], ...]:
        metadata = self._metadata
        if self._token is not None:
            try:
                metadata += bearer(self._token)
            except AuthenticationError:
                raise  # the function has said what is wrong
            except Exception as error:
                raise AuthenticationError("the token cannot be had") from error
        # A program that traces has imported OpenTelemetry; what it knows of the current span goes
        # along (`traceparent`), and Triton's own spans continue from there.
        if "opentelemetry.trace" in sys.modules:
            from opentelemetry.propagate import inject

            carrier: dict[str, str] = {}
            inject(carrier)
            for name, value in carrier.items():
                # An answer is worth more than a part of a trace that gRPC does not send.
                with contextlib.suppress(ValueError):
                    metadata += check_metadata({name: value})
        return metadata


def _check_timeout(timeout: float) -> None:
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not is_number or math.isnan(timeout) or timeout > _MAX_TIMEOUT_S:
        raise InvalidOptionError(
            f"timeout must be a number of seconds up to {_MAX_TIMEOUT_S:,}, not {timeout!r}"
        )
