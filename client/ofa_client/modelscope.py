"""ModelScope's `pipeline`, answered by a server: for programs that come from there.

>>> from ofa_client.modelscope import OutputKeys, Tasks, pipeline
>>> captioning = pipeline(Tasks.image_captioning, server="localhost:8001")
>>> captioning("apple.jpg")[OutputKeys.CAPTION]
['a red apple']

The pipelines take what ModelScope's take and return the dicts that they return for one input,
whatever the number of inputs. Where that is not to be had:

- A list with `batch_size` is answered with the same dicts as without. ModelScope's own have other
  entries then, which depend on the last batch's size, and most of its tasks fail.
- ModelScope gives the constant 1.0 as the score of generated labels and answers if the checkpoint
  has a list of them, and None otherwise. Whether it has one, an answer of the server does not say:
  generated labels have [1.0] here, and generated answers None.
- A search that finds no box gives no boxes and no scores here; ModelScope's makes numbers of the
  tokens that are none.
- A drawing is always the same for the same text; ModelScope's depends on torch's random state.
- Pictures as numpy arrays work here, as RGB.

Errors are those of `ofa_client`.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar, overload

from ofa_client._client import OFAClient
from ofa_client._errors import OFAClientError
from ofa_client._images import ImageInput
from ofa_client._many import ask_many, check_concurrency
from ofa_client._results import LabelsResult

__all__ = ["OutputKeys", "Pipeline", "Tasks", "pipeline"]

GenType: TypeAlias = Literal["generation", "traverse"]
Entries: TypeAlias = dict[str, Any]
Input: TypeAlias = "Mapping[str, Any] | tuple[Any, ...] | ImageInput"
# A list of dicts is no list of inputs of any kind; it is a list of one of their kinds.
InputT = TypeVar("InputT", bound=Input)


class Tasks:
    """The tasks, by the names that `modelscope.utils.constant.Tasks` has for them."""

    image_captioning: Final = "image-captioning"
    visual_question_answering: Final = "visual-question-answering"
    visual_grounding: Final = "visual-grounding"
    visual_entailment: Final = "visual-entailment"
    image_classification: Final = "image-classification"
    ocr_recognition: Final = "ocr-recognition"
    text_summarization: Final = "text-summarization"
    text_classification: Final = "text-classification"
    text_to_image_synthesis: Final = "text-to-image-synthesis"


class OutputKeys:
    """The entries of a result, by the names that `modelscope.outputs.OutputKeys` has for them."""

    CAPTION: Final = "caption"
    TEXT: Final = "text"
    BOXES: Final = "boxes"
    LABELS: Final = "labels"
    SCORES: Final = "scores"
    OUTPUT_IMGS: Final = "output_imgs"


def pipeline(
    task: str,
    model: str | None = None,
    *,
    server: str | Sequence[str] | OFAClient = "localhost:8001",
    gen_type: GenType = "traverse",
) -> Pipeline:
    """Return what answers inputs of a task as ModelScope's pipeline does.

    Args:
        task: one of `Tasks`.
        model: name of the ensemble on the server, by default that of the task.
        server: address of the server's gRPC port, or several; or a client, for what addresses alone
            cannot say, such as TLS.
        gen_type: what the checkpoint's `configuration.json` says under this name, where the task is
            to choose a label: with "traverse" a result has one label and its probability, with
            "generation" a list of labels. Answers to questions show by themselves which it is.

    Raises:
        ValueError: the task is none of `Tasks`, `gen_type` is neither, or an address makes no
            sense.
    """
    if task not in _KINDS:
        raise ValueError(f"task is one of {', '.join(_KINDS)}, not {task!r}")
    if gen_type not in ("generation", "traverse"):
        raise ValueError(f"gen_type is generation or traverse, not {gen_type!r}")
    client = server if isinstance(server, OFAClient) else OFAClient(server)
    return Pipeline(_KINDS[task], _Server(client, model, gen_type))


class Pipeline:
    """What `pipeline` returns. Threads may share it."""

    def __init__(self, kind: _Kind, server: _Server) -> None:
        self._kind = kind
        self._server = server

    @overload
    def __call__(self, input: list[InputT], batch_size: int | None = None) -> list[Entries]: ...

    @overload
    def __call__(self, input: Input, batch_size: int | None = None) -> Entries: ...

    def __call__(
        self,
        input: Input | list[InputT],  # noqa: A002 - ModelScope's name
        batch_size: int | None = None,
    ) -> Entries | list[Entries]:
        """Return the result of an input, or the results of a list of them.

        Args:
            input: a dict such as `{"image": ..., "text": ...}`, a tuple of the same things in this
                order, or the picture or the text alone. A picture is a path, a URL, a PIL picture
                or whatever else `OFAClient` takes. A list is several inputs.
            batch_size: of several inputs, how many are under way at a time; the server makes
                batches of what comes together.

        Returns:
            The entries of `OutputKeys` but the last, None where the task has none, and `samples`
            with the input in text; for a drawing, the last one alone.

        Raises:
            ValueError: the input lacks what the task needs, or `batch_size` is below 1.
            OFAClientError: there is no answer; of several inputs, for the first that has none.
        """
        if not isinstance(input, list):
            return self._answer(input)
        concurrency = 1 if batch_size is None else batch_size
        check_concurrency(concurrency, "batch_size")
        results = []
        for _, result in ask_many(self._answer, input, concurrency=concurrency, ordered=True):
            if isinstance(result, OFAClientError):
                raise result
            results.append(result)
        return results

    def _answer(self, given: Input) -> Entries:
        kind = self._kind
        parts = _parts_of(given, kind)
        entries = kind.ask(self._server, parts)
        if OutputKeys.OUTPUT_IMGS in entries:
            return entries
        samples = ({name: str(value) for name, value in parts.items()},)
        return {**dict.fromkeys(_ENTRIES), **entries, "samples": samples}


_ENTRIES = (
    OutputKeys.CAPTION,
    OutputKeys.TEXT,
    OutputKeys.BOXES,
    OutputKeys.LABELS,
    OutputKeys.SCORES,
)


@dataclass(frozen=True)
class _Server:
    """Whom a pipeline asks."""

    client: OFAClient
    model: str | None
    gen_type: GenType


@dataclass(frozen=True)
class _Kind:
    """A task: the parts of its input in their order, and how they are answered."""

    ask: Callable[[_Server, Mapping[str, Any]], Entries]
    needs: tuple[str, ...]
    may_have: tuple[str, ...] = ()


def _parts_of(given: Input, kind: _Kind) -> Mapping[str, Any]:
    """Return an input's parts by their names."""
    if isinstance(given, Mapping):
        parts: Mapping[str, Any] = given
    else:
        values = given if isinstance(given, tuple) else (given,)
        parts = dict(zip((*kind.needs, *kind.may_have), values, strict=False))
    if missing := [name for name in kind.needs if name not in parts]:
        raise ValueError(f"the input lacks {' and '.join(missing)}; it has {', '.join(parts)}")
    return parts


def _caption(server: _Server, parts: Mapping[str, Any]) -> Entries:
    result = server.client.caption(parts["image"], model=server.model)
    return {OutputKeys.CAPTION: [caption.text for caption in result.captions]}


def _answer(server: _Server, parts: Mapping[str, Any]) -> Entries:
    result = server.client.answer(parts["image"], parts["text"], model=server.model)
    best = result.answers[0]
    if not best.token_log_probs:  # the checkpoint chooses from a list
        return {OutputKeys.LABELS: best.text, OutputKeys.SCORES: math.exp(best.score)}
    return {OutputKeys.TEXT: [answer.text for answer in result.answers]}


def _ground(server: _Server, parts: Mapping[str, Any]) -> Entries:
    result = server.client.ground(parts["image"], parts["text"], num_boxes=1, model=server.model)
    boxes = [[box.x0, box.y0, box.x1, box.y1] for box in result.boxes]
    return {OutputKeys.BOXES: boxes, OutputKeys.SCORES: [1.0] * len(boxes)}


def _entail(server: _Server, parts: Mapping[str, Any]) -> Entries:
    image, text, text2 = parts["image"], parts["text"], parts.get("text2")
    return _labels(functools.partial(server.client.entail, image, text, text2), server)


def _classify(server: _Server, parts: Mapping[str, Any]) -> Entries:
    return _labels(functools.partial(server.client.classify, parts["image"]), server)


def _classify_text(server: _Server, parts: Mapping[str, Any]) -> Entries:
    ask = functools.partial(server.client.classify_text, parts["text"], parts["text2"])
    return _labels(ask, server)


def _labels(ask: Callable[..., LabelsResult], server: _Server) -> Entries:
    if server.gen_type == "traverse":
        best = ask(num_labels=1, model=server.model).labels[0]
        return {OutputKeys.LABELS: best.label, OutputKeys.SCORES: best.probability}
    labels = [label.label for label in ask(model=server.model).labels]
    return {OutputKeys.LABELS: labels, OutputKeys.SCORES: [1.0]}


def _read_text(server: _Server, parts: Mapping[str, Any]) -> Entries:
    result = server.client.read_text(parts["image"], model=server.model)
    return {OutputKeys.TEXT: [text.text for text in result.texts]}


def _summarize(server: _Server, parts: Mapping[str, Any]) -> Entries:
    result = server.client.summarize(parts["text"], model=server.model)
    return {OutputKeys.TEXT: [text.text for text in result.texts]}


def _draw(server: _Server, parts: Mapping[str, Any]) -> Entries:
    from PIL import Image

    result = server.client.draw(parts["text"], model=server.model)
    with Image.open(io.BytesIO(result.png)) as image:
        return {OutputKeys.OUTPUT_IMGS: [image.convert("RGB")]}


_KINDS = {
    Tasks.image_captioning: _Kind(_caption, ("image",)),
    Tasks.visual_question_answering: _Kind(_answer, ("image", "text")),
    Tasks.visual_grounding: _Kind(_ground, ("image", "text")),
    Tasks.visual_entailment: _Kind(_entail, ("image", "text"), ("text2",)),
    Tasks.image_classification: _Kind(_classify, ("image",)),
    Tasks.ocr_recognition: _Kind(_read_text, ("image",)),
    Tasks.text_summarization: _Kind(_summarize, ("text",)),
    Tasks.text_classification: _Kind(_classify_text, ("text", "text2")),
    Tasks.text_to_image_synthesis: _Kind(_draw, ("text",)),
}
