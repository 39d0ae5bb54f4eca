"""The client shares no code with the library, so what both must know is compared here."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2

import ofa.errors
import ofa.image
import ofa.options
import ofa.tasks.task
import ofa_client
from ofa.tasks import TASKS
from ofa.tensors import TensorSpec
from ofa_client import OFAClient, _images, _status, _tensors
from tests.unit import tiny
from tests.unit.scripted_triton import make_response, read_request

PICTURE, ONE, TWO = b"picture", "one text", "another text"
SEARCH: dict[str, float] = {
    "beam_size": 3,
    "max_length": 12,
    "min_length": 2,
    "no_repeat_ngram_size": 3,
    "length_penalty": 1.0,
    "temperature": 1.0,
}
Ask = Callable[[OFAClient, dict[str, Any]], object]
#: Each task by the client's verb, with everything that its request can hold beside the options.
VERBS: dict[str, Ask] = {
    "image-captioning": lambda client, given: client.caption(PICTURE, **given),
    "visual-question-answering": lambda client, given: client.answer(PICTURE, ONE, **given),
    "visual-grounding": lambda client, given: client.ground(PICTURE, ONE, **given),
    "visual-entailment": lambda client, given: client.entail(PICTURE, ONE, TWO, **given),
    "image-classification": lambda client, given: client.classify(PICTURE, **given),
    "ocr-recognition": lambda client, given: client.read_text(PICTURE, **given),
    "text-summarization": lambda client, given: client.summarize(ONE, **given),
    "text-classification": lambda client, given: client.classify_text(ONE, TWO, **given),
    "generate": lambda client, given: client.generate(ONE, PICTURE, **given),
    "text-to-image-synthesis": lambda client, given: client.draw(ONE, **given),
}
CASES = sorted(
    (name, search)
    for name, task in TASKS.items()
    for search in {task.search("generation"), task.search("traverse")}
)


class TaskCall:
    """Stands in for the channel to the server of one task: answers with tensors of its form."""

    def __init__(self, answer: tuple[TensorSpec, ...]) -> None:
        self.answer = answer
        self.model = ""
        self.inputs: _tensors.Tensors = {}

    def __call__(
        self, request: service_pb2.ModelInferRequest, **_: object
    ) -> service_pb2.ModelInferResponse:
        self.model, self.inputs = request.model_name, read_request(request)
        return make_response(
            {
                spec.name: np.full(
                    # Two results; what has four values a result says so.
                    (1, *(2 if size == -1 else size for size in spec.dims)),
                    b"text" if spec.dtype is np.object_ else 0.5,
                    spec.dtype,
                )
                for spec in self.answer
            }
        )


@pytest.mark.parametrize(("name", "search"), CASES)
def test_a_verb_speaks_as_its_task_does(
    name: str, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS[name]
    tensors = task.tensors_for(tiny.make_settings(task, search=search))
    options = {
        spec.name: 1 for spec in tensors.request if spec.name in {task.count_option(), *SEARCH}
    }
    call = TaskCall(tensors.answer)
    client = OFAClient()
    monkeypatch.setattr(client, "_infer_of", lambda _: call)
    result = VERBS[name](client, options)

    assert call.model == task.ensemble
    assert call.inputs.keys() == {spec.name for spec in tensors.request}
    for spec in tensors.request:
        sent = call.inputs[spec.name]
        assert (sent.dtype, sent.shape) == (np.dtype(spec.dtype), (1, *spec.dims)), spec.name
    assert len(getattr(result, task.results)) == 2


def test_every_option_has_the_type_that_the_generator_takes() -> None:
    options = ofa.options.request_options("num_captions")
    assert options.items() <= _tensors.OPTION_DTYPES.items()


def test_the_size_limits_are_the_same() -> None:
    assert ofa_client.MAX_IMAGE_BYTES == ofa.image.MAX_IMAGE_BYTES
    assert _images.MAX_IMAGE_SIDE == ofa.image.MAX_IMAGE_SIDE
    assert ofa_client.MAX_TEXT_BYTES == ofa.tasks.task.MAX_TEXT_BYTES


def refusal(message: str) -> ofa_client.OFAClientError:
    """The client's error for what the library refused inside the server."""
    details = f"in ensemble 'caption', {message}"
    return _status.translate_error("INVALID_ARGUMENT", details, server="server", timeout=1)


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "image_bytes",
    [b"", b"not a picture", png(3001, 1), png(99, 99)[:60], bytes(ofa.image.MAX_IMAGE_BYTES + 1)],
    ids=["empty", "not a picture", "too wide", "truncated", "too large"],
)
def test_a_refused_image_is_an_invalid_image_to_the_client(image_bytes: bytes) -> None:
    with pytest.raises(ofa.errors.InvalidImageError) as caught:
        ofa.image.decode_image(image_bytes)
    refused = refusal(str(caught.value))
    assert isinstance(refused, ofa_client.InvalidImageError)
    assert isinstance(refused, ofa_client.ImageTooLargeError) == ("the limit is" in refused.message)


@pytest.mark.parametrize("name", ["text", "text2"])
@pytest.mark.parametrize(
    "text_bytes",
    [None, b"ab\xff", bytes(ofa.tasks.task.MAX_TEXT_BYTES + 1)],
    ids=["missing", "not UTF-8", "too long"],
)
def test_a_refused_text_is_an_invalid_text_to_the_client(
    name: str, text_bytes: bytes | None
) -> None:
    request = {} if text_bytes is None else {name: np.array([text_bytes], np.object_)}
    with pytest.raises(ofa.errors.InvalidTextError) as caught:
        ofa.tasks.task.read_text(request, name)
    assert type(refusal(str(caught.value))) is ofa_client.InvalidTextError


COUNTS = sorted({task.count_option() for task in TASKS.values()})


@pytest.mark.parametrize("count_option", COUNTS)
@pytest.mark.parametrize(
    "given",
    [{name: -11} for name in SEARCH]
    + [{"beam_size": 6}, {"count": 5, "beam_size": 4}, {"min_length": 9, "max_length": 8}],
    ids=str,
)
def test_a_refused_option_is_an_invalid_option_to_the_client(
    count_option: str, given: dict[str, float]
) -> None:
    named = {count_option if name == "count" else name: value for name, value in given.items()}
    defaults = tiny.make_options(beam_size=5, max_length=16)
    limits = ofa.options.OptionLimits(max_beam_size=5, max_length=16)
    with pytest.raises(ofa.errors.InvalidOptionError) as caught:
        ofa.options.resolve_options(named, defaults, limits, count_option)
    assert type(refusal(str(caught.value))) is ofa_client.InvalidOptionError
