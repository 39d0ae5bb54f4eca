"""The client for asyncio: it performs the steps of a call without blocking."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from ofa_client import _tasks as tasks
from ofa_client._calls import Attempt
from ofa_client._channels import ChannelMaker, to_failure
from ofa_client._core import Core, Read, Step
from ofa_client._errors import CallCancelledError, DeadlineExceededError, OFAClientError
from ofa_client._exchange import Close, Failure, LookUp, Reply, Send, Wait
from ofa_client._fetch import UrlPolicy
from ofa_client._images import ImageInput, ImageT
from ofa_client._many import ask_many_async, check_concurrency
from ofa_client._results import (
    AnsweringResult,
    CaptioningResult,
    DrawingResult,
    GroundingResult,
    LabelsResult,
    TextsResult,
)
from ofa_client._retry import RetryPolicy
from ofa_client._security import TLS, Token
from ofa_client._servers import Server
from ofa_client._tasks import ResultT, SearchOptions, Task

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

# Pictures that are read, fetched or encoded at the same time; the others wait for their turn.
_MAX_READERS = 16


class AsyncOFAClient:
    """`OFAClient` for asyncio: the same verbs, arguments, results and errors, to be awaited.

    All tasks of one event loop may share it; it connects at the first call. Cancelling the task of
    a call cancels the request. Pictures that are not encoded bytes are read, fetched and encoded in
    threads; a file or a PIL picture must be left alone until the call is over. A call ends at its
    timeout even if the picture is still being read; the thread goes on until that has ended.

    >>> async with AsyncOFAClient("localhost:8001") as client:
    ...     print((await client.caption("apple.jpg")).text)
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "localhost:8001",
        *,
        model: str | None = None,
        timeout: float = 60.0,
        retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - it is immutable
        tls: TLS | None = None,
        token: Token | None = None,
        metadata: Mapping[str, str] | None = None,
        urls: UrlPolicy | None = UrlPolicy(),  # noqa: B008 - it is immutable
        keep_alive: float | None = 330.0,
        on_attempt: Callable[[Attempt], None] | None = None,
    ) -> None:
        self._core = Core(
            servers,
            model=model,
            timeout=timeout,
            retry=retry,
            tls=tls,
            token=token,
            metadata=metadata,
            urls=urls,
            on_attempt=on_attempt,
        )
        self._channel_maker = ChannelMaker(grpc.aio, tls, keep_alive)
        self._channels: dict[Server, tuple[Any, Any]] = {}
        self._running: set[Any] = set()
        self._readers = ThreadPoolExecutor(_MAX_READERS, thread_name_prefix="ofa-client")
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"AsyncOFAClient{self._core!r}"

    async def caption(
        self,
        image: ImageInput,
        *,
        num_captions: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> CaptioningResult:
        """Return captions of a picture. The model is `caption` by default."""
        required = {"image": image}
        optional = {"num_captions": num_captions, **search}
        return await self._call(tasks.CAPTION, required, optional, model, timeout)

    def caption_many(
        self,
        images: Iterable[ImageT] | AsyncIterable[ImageT],
        concurrency: int = 8,
        *,
        ordered: bool = True,
        num_captions: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> AsyncGenerator[tuple[ImageT, CaptioningResult | OFAClientError], None]:
        """Return an iterator over many pictures, each with its captions or its error.

        A picture that has no captions is paired with the error that `caption` raises, without its
        traceback, and the others go on. `images` may be endless: at most `2 * concurrency + 1`
        pictures have been read from it and not yet been handed out, and they are read when the
        iterator is waited for. Whoever stops taking cancels the requests under way, at once with
        the iterator's `close` or `aclose`. An error of `images` ends the iterator.

        Args:
            images: pictures as for `caption`.
            concurrency: requests under way at a time.
            ordered: in the order of `images`; otherwise as they are answered.
            num_captions: as for `caption`, and so are the others.
            model: as for `caption`.
            timeout: for each picture.
            **search: as for `caption`.

        Raises:
            ValueError: `concurrency` is below 1.
        """
        check_concurrency(concurrency)

        async def caption(image: ImageT) -> CaptioningResult:
            return await self.caption(
                image, num_captions=num_captions, model=model, timeout=timeout, **search
            )

        return ask_many_async(caption, images, concurrency=concurrency, ordered=ordered)

    async def answer(
        self,
        image: ImageInput,
        question: str,
        *,
        num_answers: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> AnsweringResult:
        """Return answers to a question about a picture. The model is `vqa` by default."""
        required = {"image": image, "text": question}
        optional = {"num_answers": num_answers, **search}
        return await self._call(tasks.ANSWER, required, optional, model, timeout)

    async def ground(
        self,
        image: ImageInput,
        text: str,
        *,
        num_boxes: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> GroundingResult:
        """Return boxes around what the text names. The model is `grounding` by default."""
        required = {"image": image, "text": text}
        optional = {"num_boxes": num_boxes, **search}
        return await self._call(tasks.GROUND, required, optional, model, timeout)

    async def entail(
        self,
        image: ImageInput,
        text: str,
        text2: str | None = None,
        *,
        num_labels: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> LabelsResult:
        """Return whether a picture implies a statement. The model is `entailment` by default.

        With two texts: whether the picture and `text2` imply `text`.
        """
        required = {"image": image, "text": text}
        optional = {"text2": text2, "num_labels": num_labels, **search}
        return await self._call(tasks.ENTAIL, required, optional, model, timeout)

    async def classify(
        self,
        image: ImageInput,
        *,
        num_labels: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> LabelsResult:
        """Return what a picture shows. The model is `classification` by default."""
        required = {"image": image}
        optional = {"num_labels": num_labels, **search}
        return await self._call(tasks.CLASSIFY, required, optional, model, timeout)

    async def read_text(
        self,
        image: ImageInput,
        *,
        num_texts: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> TextsResult:
        """Return what is written in a picture. The model is `ocr` by default."""
        required = {"image": image}
        optional = {"num_texts": num_texts, **search}
        return await self._call(tasks.READ_TEXT, required, optional, model, timeout)

    async def summarize(
        self,
        text: str,
        *,
        num_texts: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> TextsResult:
        """Return summaries of a text. The model is `summarization` by default."""
        optional = {"num_texts": num_texts, **search}
        return await self._call(tasks.SUMMARIZE, {"text": text}, optional, model, timeout)

    async def classify_text(
        self,
        text: str,
        text2: str,
        *,
        num_labels: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> LabelsResult:
        """Return how two texts relate. The model is `text_classification` by default."""
        required = {"text": text, "text2": text2}
        optional = {"num_labels": num_labels, **search}
        return await self._call(tasks.CLASSIFY_TEXT, required, optional, model, timeout)

    async def generate(
        self,
        prompt: str,
        image: ImageInput | None = None,
        *,
        allow_special_tokens: bool = False,
        num_texts: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> TextsResult:
        """Return what a pretrained checkpoint answers. The model is `generate` by default.

        With `allow_special_tokens`, `<bin_n>`, `<code_n>` and `<mask>` in the prompt are the
        checkpoint's location, image and mask tokens; otherwise they are text as any other.
        """
        optional = {
            "image": image,
            "allow_special_tokens": allow_special_tokens,
            "num_texts": num_texts,
            **search,
        }
        return await self._call(tasks.GENERATE, {"text": prompt}, optional, model, timeout)

    async def draw(
        self,
        text: str,
        *,
        seed: int = 0,
        num_images: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> DrawingResult:
        """Return pictures of what a text says. The model is `text_to_image` by default.

        The same text, `seed` and `num_images` give the same pictures. A picture takes about a
        thousand steps of the decoder, so a slow server may need a longer `timeout`.
        """
        optional = {"seed": seed, "num_images": num_images}
        return await self._call(tasks.DRAW, {"text": text}, optional, model, timeout)

    async def close(self) -> None:
        """Close the connections; calls still running in other tasks are cancelled."""
        self._closed.set()
        self._readers.shutdown(wait=False, cancel_futures=True)
        for call in list(self._running):
            call.cancel()
        for channel, _ in list(self._channels.values()):
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(
        self,
        task: Task[ResultT],
        required: Mapping[str, object],
        optional: Mapping[str, object],
        model: str | None,
        timeout: float | None,
    ) -> ResultT:
        steps = self._core.call(task, required, optional, model, timeout)
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._perform(step)
                except BaseException as error:  # noqa: BLE001, PERF203 - CancelledError too
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as done:
            result: ResultT = done.value
            return result

    async def _perform(self, step: Step) -> Reply | Failure | bytes | None:
        match step:
            case Send():
                return await self._send(step)
            case Read():
                return await self._read(step)
            case Wait():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), step.seconds)
                self._check_open()
            case LookUp():
                await asyncio.wait([asyncio.wrap_future(step.ended)], timeout=step.seconds)
            case Close():
                gone = [self._channels.pop(each, None) for each in step.servers]
                for channel_and_call in filter(None, gone):
                    await channel_and_call[0].close()
        return None

    async def _send(self, step: Send) -> Reply | Failure:
        self._check_open()
        call = self._infer_of(step.server)(
            step.message, timeout=step.timeout, metadata=step.metadata
        )
        self._running.add(call)
        try:
            return Reply(await call)
        except grpc.RpcError as error:
            return to_failure(error)
        except asyncio.CancelledError:
            self._tell_closing_from_cancelling()
            raise
        finally:
            self._running.discard(call)

    async def _read(self, step: Read) -> bytes:
        self._check_open()
        reading = asyncio.get_running_loop().run_in_executor(self._readers, step.run)
        try:
            await asyncio.wait([reading], timeout=step.seconds)
            if not reading.done():
                raise DeadlineExceededError("the image was not there in time")
            return reading.result()
        except asyncio.CancelledError:
            self._tell_closing_from_cancelling()
            raise
        finally:
            if not reading.done():
                reading.cancel()
                step.cancel()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise CallCancelledError("the client was closed")

    def _tell_closing_from_cancelling(self) -> None:
        """Raise the client's error where it was `close` that ended a call, not its task's end."""
        task = asyncio.current_task()
        # Python 3.10 does not know whether a task is being cancelled.
        if task is None or not getattr(task, "cancelling", int)():
            self._check_open()

    def _infer_of(self, server: Server) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the call to Triton's ModelInfer on the channel to the server."""
        known = self._channels.get(server)
        if known is None:
            channel = self._channel_maker.open(server)
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            known = self._channels[server] = (channel, stub.ModelInfer)
        return known[1]
