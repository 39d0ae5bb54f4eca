"""The client for programs with threads, or with none: it performs the steps of a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import wait
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from ofa_client import _tasks as tasks
from ofa_client._calls import Attempt
from ofa_client._channels import ChannelMaker, to_failure
from ofa_client._core import Core, Read, Step
from ofa_client._errors import CallCancelledError, OFAClientError
from ofa_client._exchange import Close, Failure, LookUp, Reply, Send, Wait
from ofa_client._fetch import UrlPolicy
from ofa_client._images import ImageInput, ImageT
from ofa_client._many import ask_many, check_concurrency
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
from ofa_client._stopping import is_stoppable, stopped_by
from ofa_client._tasks import ResultT, SearchOptions, Task

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class OFAClient:
    """A client of Triton servers, with a verb for every task of OFA.

    Threads may share it; it connects at the first call. Make it after a fork, not before. The verbs
    have this in common:

    - A picture is a path, a URL (a str with http:// or https://), encoded bytes, a file open for
      reading bytes, a PIL picture, or a uint8 array [H, W], [H, W, 3] or [H, W, 4]. The server
      applies the EXIF turn of encoded pictures; PIL pictures and arrays are taken as they look. At
      most 10,485,760 bytes (as PNG for the last two) and 3,000 pixels on a side. A text is at most
      65,536 bytes in UTF-8.
    - `num_captions`, `num_answers` and so on: how many results are wanted, at most `beam_size`
      where the checkpoint generates text. These and the `SearchOptions`, where left out, have the
      values that the served checkpoint was published with. A checkpoint that chooses from a list
      of labels or candidates has no `SearchOptions`.
    - `model`: name of the ensemble; by default the client's.
    - `timeout`: seconds for everything from reading the picture to the answer, with connecting,
      waiting in the server's queue and further attempts; by default the client's. A file that is
      being read, or a name in a URL that is being looked up, is waited for nonetheless.
    - KeyboardInterrupt cancels the request.

    They raise
    - InvalidImageError: the image cannot be read or fetched, is not a picture, or
      (ImageTooLargeError) is over a limit.
    - InvalidTextError: a text is not a str, is not valid Unicode, or is over the limit.
    - InvalidOptionError: an option is unknown, of the wrong type or out of range.
    - OverloadedError: the server's queue is full.
    - UnavailableError: nobody answers at the address, or the server is shutting down.
    - ModelNotReadyError: the server does not have the model.
    - AuthenticationError: the server refuses the credentials, its certificate is not trusted, or
      there is no token.
    - DeadlineExceededError: there was no answer within the timeout.
    - CallCancelledError: the client was closed.
    - ServerError: the server failed.
    - ImportError: the picture is a numpy array and Pillow is not installed.

    Args:
        servers: HOST:PORT of a server's gRPC port, or several of them to take turns. With
            "dns:///HOST:PORT" all addresses of the name take turns; it is looked up again every 30
            seconds, and when a server has failed. A server that fails, shuts down, or answers
            nothing by a call's deadline is left out for 1 second, then 2, and so on up to 30.
        model: name of the ensemble that all verbs ask, as exported with `ofa export --name`; by
            default each asks the one that its task is named for.
        timeout: what a call may take in all, in seconds, unless the call says otherwise.
        retry: when a call is attempted again; None for never.
        tls: encrypts the connections; None for plain ones.
        token: sent as `authorization: Bearer TOKEN`, or a function that returns it for each call.
            It must not block: an `AsyncOFAClient` calls it on the event loop. Needs `tls`.
        metadata: sent along with every request, such as the header of a proxy.
        urls: which URLs of pictures are fetched, and for how long; None for none.
        keep_alive: seconds between pings that find out, while a request runs, whether the server
            is still there. Triton closes a connection that is pinged more often than every 5
            minutes, unless it was started with a lower
            `--grpc-http2-min-recv-ping-interval-without-data-ms`. With any value (None turns it
            off), a connection ends whose peer has not confirmed what was sent for 20 seconds.
        on_attempt: called with every attempt when it has ended, in the thread of the call: for
            metrics. What it raises is logged.

    Raises:
        ValueError: a setting makes no sense, such as a URL for a server.
        OSError: a file of `tls` cannot be read.
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
        self._channel_maker = ChannelMaker(grpc, tls, keep_alive)
        self._channels: dict[Server, tuple[Any, Any]] = {}
        self._channels_lock = threading.Lock()
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"OFAClient{self._core!r}"

    def caption(
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
        return self._call(tasks.CAPTION, required, optional, model, timeout)

    def caption_many(
        self,
        images: Iterable[ImageT],
        concurrency: int = 8,
        *,
        ordered: bool = True,
        num_captions: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> Generator[tuple[ImageT, CaptioningResult | OFAClientError], None, None]:
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

        def caption(image: ImageT) -> CaptioningResult:
            return self.caption(
                image, num_captions=num_captions, model=model, timeout=timeout, **search
            )

        return ask_many(caption, images, concurrency=concurrency, ordered=ordered)

    def answer(
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
        return self._call(tasks.ANSWER, required, optional, model, timeout)

    def ground(
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
        return self._call(tasks.GROUND, required, optional, model, timeout)

    def entail(
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
        return self._call(tasks.ENTAIL, required, optional, model, timeout)

    def classify(
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
        return self._call(tasks.CLASSIFY, required, optional, model, timeout)

    def read_text(
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
        return self._call(tasks.READ_TEXT, required, optional, model, timeout)

    def summarize(
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
        return self._call(tasks.SUMMARIZE, {"text": text}, optional, model, timeout)

    def classify_text(
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
        return self._call(tasks.CLASSIFY_TEXT, required, optional, model, timeout)

    def generate(
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
        return self._call(tasks.GENERATE, {"text": prompt}, optional, model, timeout)

    def draw(
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
        return self._call(tasks.DRAW, {"text": text}, optional, model, timeout)

    def close(self) -> None:
        """Close the connections; calls still running in other threads are cancelled."""
        self._closed.set()
        with self._channels_lock:
            channels = list(self._channels.values())
        for channel, _ in channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
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
                    outcome = self._perform(step)
                except BaseException as error:  # noqa: BLE001, PERF203 - KeyboardInterrupt too
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as done:
            result: ResultT = done.value
            return result

    def _perform(self, step: Step) -> Reply | Failure | bytes | None:
        match step:
            case Send():
                return self._send(step)
            case Read():
                with stopped_by(step.cancel):
                    return step.run()
            case Wait():
                if self._closed.wait(step.seconds):
                    raise CallCancelledError("the client was closed")
            case LookUp():
                wait([step.ended], step.seconds)
            case Close():
                with self._channels_lock:
                    gone = [self._channels.pop(each, None) for each in step.servers]
                for channel_and_call in filter(None, gone):
                    channel_and_call[0].close()
        return None

    def _send(self, step: Send) -> Reply | Failure:
        try:
            infer = self._infer_of(step.server)
            if not is_stoppable():
                # An exception in here, such as KeyboardInterrupt, makes gRPC cancel the call.
                return Reply(infer(step.message, timeout=step.timeout, metadata=step.metadata))
            call = infer.future(step.message, timeout=step.timeout, metadata=step.metadata)
            with stopped_by(call.cancel):
                return Reply(call.result())
        except grpc.FutureCancelledError as error:
            is_closed = self._closed.is_set()
            reason = "the client was closed" if is_closed else "nobody takes the answer any more"
            raise CallCancelledError(reason) from error
        except (grpc.RpcError, ValueError) as error:
            if self._closed.is_set():
                raise CallCancelledError("the client was closed") from error
            if not isinstance(error, grpc.RpcError):
                raise
            return to_failure(error)

    def _infer_of(self, server: Server) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the call to Triton's ModelInfer on the channel to the server."""
        known = self._channels.get(server)
        if known is None:
            with self._channels_lock:
                if self._closed.is_set():
                    raise CallCancelledError("the client was closed")
                known = self._channels.get(server)
                if known is None:
                    channel = self._channel_maker.open(server)
                    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                    known = self._channels[server] = (channel, stub.ModelInfer)
        return known[1]
