"""Sends requests until it is told to stop, and writes down how each of them ended.

Started by `chaos.load` in a process of its own, so that what it costs can be stated and it can be
killed. Every line of the outcomes is [due, ended, code, details]: seconds of the system's monotonic
clock, gRPC's status and its message.

Each request was encoded before the first is sent, and an answer is only compared with the first one
to the same request: that leaves the processor to the server. They must be the same to the last bit,
whatever shares their batches and whoever answers.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TextIO

import grpc
from tritonclient.grpc import service_pb2

from chaos.mixes import MIXES, Prepared
from ofa_client import AsyncOFAClient, Caption, OFAClientError, RetryPolicy

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_TIMEOUT_S = 120.0
#: Connections of an open loop.
_NUM_CHANNELS = 8
#: As patient as a batch job is.
_PATIENT = RetryPolicy(max_attempts=50, initial_backoff=0.1, max_backoff=2.0)
_CHANNEL_OPTIONS = [
    # Each has a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    # Otherwise gRPC waits for up to two minutes before it tries a server again that was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]

_ANOTHER = ("ANOTHER ANSWER", "the same request was answered otherwise before")
#: The tensors that were answered first, by request.
_Answers = dict[bytes, frozenset[tuple[str, bytes]]]
#: Sends one request and says how it ended: status and message.
Ask = Callable[[Prepared], Awaitable[tuple[str, str]]]


def main() -> None:
    """Sends requests until SIGTERM, and waits for their answers."""
    parser = argparse.ArgumentParser(prog="python -m chaos.load_process")
    parser.add_argument("servers", nargs="+", metavar="HOST:PORT")
    parser.add_argument("--mix", choices=MIXES, required=True)
    parser.add_argument("--by", choices=_WAYS, required=True)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--rate", type=float, help="arrivals a second, whatever the answers do")
    kind.add_argument("--clients", type=int, help="that each wait for their answer")
    parser.add_argument("--outcomes", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    with arguments.outcomes.open("w", buffering=1) as outcomes:
        asyncio.run(_send(arguments, outcomes))


async def _send(arguments: argparse.Namespace, outcomes: TextIO) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    requests = MIXES[arguments.mix]()
    async with AsyncExitStack() as stack:
        asks = await _WAYS[arguments.by](
            arguments.servers, arguments.clients or _NUM_CHANNELS, stack
        )
        if arguments.rate:
            await _open_loop(asks, requests, arguments.rate, over, outcomes)
        else:
            await _closed_loop(asks, requests, arguments.clients, over, outcomes)


async def _by_grpc(addresses: Sequence[str], count: int, stack: AsyncExitStack) -> list[Ask]:
    """As tritonclient sends, without another attempt, on connections that take turns."""
    chosen = itertools.islice(itertools.cycle(addresses), count)
    channels = [grpc.aio.insecure_channel(each, options=_CHANNEL_OPTIONS) for each in chosen]
    answers: _Answers = {}
    return [_plainly(await stack.enter_async_context(channel), answers) for channel in channels]


def _plainly(channel: grpc.aio.Channel, answers: _Answers) -> Ask:
    infer = channel.unary_unary(_INFER)

    async def ask(request: Prepared) -> tuple[str, str]:
        call = infer(request.message, timeout=_TIMEOUT_S)
        if request.cancel_after_s is not None:
            asyncio.get_running_loop().call_later(request.cancel_after_s, call.cancel)
        # Unlike the call itself, these two do not raise when it is cancelled.
        code, details = await call.code(), await call.details()
        if code is grpc.StatusCode.OK:
            answer = _tensors(await call)
            if answers.setdefault(request.message, answer) != answer:
                return _ANOTHER
        return code.name, details or ""

    return ask


def _tensors(message: bytes) -> frozenset[tuple[str, bytes]]:
    response = service_pb2.ModelInferResponse.FromString(message)
    # They come in any order.
    names = [output.name for output in response.outputs]
    return frozenset(zip(names, response.raw_output_contents, strict=True))


async def _by_client(addresses: Sequence[str], _: int, stack: AsyncExitStack) -> list[Ask]:
    client = AsyncOFAClient(addresses, timeout=_TIMEOUT_S, retry=_PATIENT)
    await stack.enter_async_context(client)
    answers: dict[bytes, tuple[Caption, ...]] = {}

    async def ask(request: Prepared) -> tuple[str, str]:
        try:
            captions = tuple((await client.caption(request.picture)).captions)
        except OFAClientError as error:
            return type(error).__name__, str(error)
        return _ANOTHER if answers.setdefault(request.picture, captions) != captions else ("OK", "")

    return [ask]


async def _by_gateway(addresses: Sequence[str], _: int, __: AsyncExitStack) -> list[Ask]:
    [address] = addresses

    def post(picture: bytes) -> tuple[str, str]:
        body = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
        request = urllib.request.Request(
            f"http://{address}/v1/captions", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                return "OK", answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return f"HTTP {error.code}", error.read().decode()
        except OSError as error:
            return "no connection", str(error)

    async def ask(request: Prepared) -> tuple[str, str]:
        return await asyncio.to_thread(post, request.picture)

    return [ask]


#: From addresses and a number of connections to as many ways to ask, or to one for all.
_WAYS = {"grpc": _by_grpc, "client": _by_client, "gateway": _by_gateway}


async def _open_loop(
    asks: Sequence[Ask],
    requests: Sequence[Prepared],
    rate: float,
    over: asyncio.Event,
    outcomes: TextIO,
) -> None:
    """Requests arrive at random times (a Poisson process) that no answer changes."""
    chance = random.Random(2026)  # noqa: S311 - not for secrets
    under_way = set[asyncio.Task[None]]()
    due = time.monotonic()
    for ask, request in zip(itertools.cycle(asks), itertools.cycle(requests)):
        due += chance.expovariate(rate)
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), max(0.0, due - time.monotonic()))
            break
        task = asyncio.create_task(_ask_once(ask, request, due, outcomes))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)


async def _closed_loop(
    asks: Sequence[Ask],
    requests: Sequence[Prepared],
    num_clients: int,
    over: asyncio.Event,
    outcomes: TextIO,
) -> None:
    async def run_client(ask: Ask, number: int) -> None:
        first = number % len(requests)
        for request in itertools.cycle([*requests[first:], *requests[:first]]):
            if over.is_set():
                return
            await _ask_once(ask, request, time.monotonic(), outcomes)

    endless = itertools.cycle(asks)
    await asyncio.gather(*(run_client(next(endless), number) for number in range(num_clients)))


async def _ask_once(ask: Ask, request: Prepared, due: float, outcomes: TextIO) -> None:
    sent = time.monotonic()
    code, details = await ask(request)
    expected = {request.expected, *(["CANCELLED"] if request.cancel_after_s else [])}
    if code != "OK" and code in expected:
        code = "EXPECTED"
    outcomes.write(json.dumps([due, sent, time.monotonic(), code, details]) + "\n")


if __name__ == "__main__":
    main()
