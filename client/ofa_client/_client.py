"""The client that callers hold: build the request, call, parse the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from ofa_client._answers import (
    parse_answers,
    parse_boxes,
    parse_captions,
    parse_images,
    parse_labels,
    parse_texts,
)
from ofa_client._images import ImageInput
from ofa_client._requests import build_inputs
from ofa_client._results import (
    AnsweringResult,
    CaptioningResult,
    DrawingResult,
    GroundingResult,
    LabelsResult,
    TextsResult,
)
from ofa_client._status import translate_error
from ofa_client._tensors import Tensors
from ofa_client._transport import StatusError, Transport

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SearchOptions(TypedDict, total=False):
    """How the beam search looks for an answer, for the verbs whose checkpoint generates text.

    Attributes:
        beam_size: hypotheses that the search keeps alive at every step.
        max_length: most tokens of an answer, the closing one not counted.
        min_length: fewest tokens of an answer, the closing one not counted.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows all.
        length_penalty: exponent on the length in tokens, the closing one included, that divides
            the summed log-probability; 1 gives the mean, 0 the sum.
        temperature: divides the logits before the softmax.
    """

    beam_size: int | None
    max_length: int | None
    min_length: int | None
    no_repeat_ngram_size: int | None
    length_penalty: float | None
    temperature: float | None


class OFAClient:
    """A client of one Triton server, with a verb for every task of OFA.

    Threads may share it; it connects at the first call. The verbs have this in common:

    - A picture is a path, encoded bytes, a file open for reading bytes, a PIL picture, or a uint8
      array [H, W], [H, W, 3] or [H, W, 4]. The server applies the EXIF turn of encoded pictures;
      PIL pictures and arrays are taken as they look. At most 10,485,760 bytes (as PNG for the last
      two) and 3,000 pixels on a side. A text is at most 65,536 bytes in UTF-8.
    - `num_captions`, `num_answers` and so on: how many results are wanted, at most `beam_size`
      where the checkpoint generates text. These and the `SearchOptions`, where left out, have the
      values that the served checkpoint was published with. A checkpoint that chooses from a list
      of labels or candidates has no `SearchOptions`.
    - `model`: name of the ensemble; by default the client's.
    - `timeout`: seconds for everything from reading the picture to the answer; by default the
      client's.

    They raise
    - InvalidImageError: the image cannot be read, is not a picture, or is over a limit.
    - InvalidTextError: a text is not a str, is not valid Unicode, or is over the limit.
    - InvalidOptionError: an option is unknown, of the wrong type or out of range.
    - ServerBusyError: the server's queue is full.
    - UnavailableError: nobody answers at the address, or the server is shutting down.
    - ModelNotReadyError: the server does not have the model.
    - DeadlineExceededError: there was no answer within the timeout.
    - ServerError: the server failed.
    - ImportError: the picture is a numpy array and Pillow is not installed.

    Args:
        server: HOST:PORT of the server's gRPC port.
        model: name of the ensemble that all verbs ask, as exported with `ofa export --name`; by
            default each asks the one that its task is named for.
        timeout: what a call may take in all, in seconds, unless the call says otherwise.

    Raises:
        ValueError: `server` is a URL.
    """

    def __init__(
        self, server: str = "localhost:8001", *, model: str | None = None, timeout: float = 60.0
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
        model: str | None = None,
        timeout: float | None = None,
        **search: Unpack[SearchOptions],
    ) -> CaptioningResult:
        """Return captions of a picture. The model is `caption` by default."""
        required = {"image": image}
        optional = {"num_captions": num_captions, **search}
        return parse_captions(self._infer(model, "caption", required, optional, timeout))

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
        return parse_answers(self._infer(model, "vqa", required, optional, timeout))

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
        return parse_boxes(self._infer(model, "grounding", required, optional, timeout))

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
        return parse_labels(self._infer(model, "entailment", required, optional, timeout))

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
        return parse_labels(self._infer(model, "classification", required, optional, timeout))

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
        return parse_texts(self._infer(model, "ocr", required, optional, timeout))

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
        return parse_texts(self._infer(model, "summarization", {"text": text}, optional, timeout))

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
        return parse_labels(self._infer(model, "text_classification", required, optional, timeout))

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
        return parse_texts(self._infer(model, "generate", {"text": prompt}, optional, timeout))

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
        return parse_images(self._infer(model, "text_to_image", {"text": text}, optional, timeout))

    def _infer(
        self,
        model: str | None,
        default_model: str,
        required: Mapping[str, object],
        optional: Mapping[str, object],
        timeout: float | None,
    ) -> Tensors:
        """Send one request and return the tensors of its answer."""
        start = time.monotonic()
        allowed = self._timeout if timeout is None else timeout
        inputs = build_inputs(required, optional)
        remaining = allowed - (time.monotonic() - start)
        try:
            return self._transport.infer(model or self._model or default_model, inputs, remaining)
        except StatusError as error:
            raise translate_error(
                error.code, error.details, server=self._server, timeout=allowed
            ) from error

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
