"""The client that callers hold: make image bytes, build the request, call, parse the answer."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from ofa_client._images import ImageInput, to_image_bytes
from ofa_client._protocol import CaptioningResult, build_inputs, parse_captions, translate_error
from ofa_client._transport import StatusError, Transport

if TYPE_CHECKING:
    from typing_extensions import Self


class OFAClient:
    """A client of one Triton server. Threads may share it; it connects at the first call.

    Args:
        server: HOST:PORT of the server's gRPC port.
        model: name of the ensemble, as exported with `ofa export --name`.
        timeout: what a call may take in all, in seconds, unless the call says otherwise.

    Raises:
        ValueError: `server` is a URL.
    """

    def __init__(
        self, server: str = "localhost:8001", *, model: str = "caption", timeout: float = 60.0
    ) -> None:
        if "://" in server:
            raise ValueError(f"server must be HOST:PORT of the gRPC port, not {server!r}")
        self._server = server
        self._model = model
        self._timeout = timeout
        self._transport = Transport(server)

    def caption(
        self,
        image: ImageInput,
        *,
        num_captions: int | None = None,
        beam_size: int | None = None,
        max_length: int | None = None,
        min_length: int | None = None,
        no_repeat_ngram_size: int | None = None,
        length_penalty: float | None = None,
        temperature: float | None = None,
        timeout: float | None = None,
    ) -> CaptioningResult:
        """Return captions of a picture, best first.

        An option that is left out has the value that the served checkpoint was published with.

        Args:
            image: path, encoded bytes, file open for reading bytes, PIL picture, or uint8 array
                [H, W], [H, W, 3] or [H, W, 4]. The server applies the EXIF turn of encoded
                pictures; PIL pictures and arrays are taken as they look. At most 10,485,760 bytes
                (as PNG for the last two) and 3,000 pixels on a side.
            num_captions: captions wanted, at most `beam_size`.
            beam_size: hypotheses that the search keeps alive at every step.
            max_length: most tokens of a caption, the closing one not counted.
            min_length: fewest tokens of a caption, the closing one not counted.
            no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows all.
            length_penalty: exponent on the length in tokens, the closing one included, that
                divides the summed log-probability; 1 gives the mean, 0 the sum.
            temperature: divides the logits before the softmax.
            timeout: seconds for everything from reading the picture to the answer; by default the
                client's.

        Raises:
            InvalidImageError: the image cannot be read, is not a picture, or is over a limit.
            InvalidOptionError: an option is of the wrong type or out of range.
            ServerBusyError: the server's queue is full.
            UnavailableError: nobody answers at the address, or the server is shutting down.
            ModelNotReadyError: the server does not have the model.
            DeadlineExceededError: there was no answer within the timeout.
            ServerError: the server failed.
            ImportError: `image` is a numpy array and Pillow is not installed.
        """
        start = time.monotonic()
        allowed = self._timeout if timeout is None else timeout
        inputs = build_inputs(
            to_image_bytes(image),
            {
                "num_captions": num_captions,
                "beam_size": beam_size,
                "max_length": max_length,
                "min_length": min_length,
                "no_repeat_ngram_size": no_repeat_ngram_size,
                "length_penalty": length_penalty,
                "temperature": temperature,
            },
        )
        remaining = allowed - (time.monotonic() - start)
        try:
            outputs = self._transport.infer(self._model, inputs, remaining)
        except StatusError as error:
            raise translate_error(
                error.code, error.details, server=self._server, timeout=allowed
            ) from error
        return parse_captions(outputs)

    def close(self) -> None:
        """Close the connection; calls still running in other threads fail."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
