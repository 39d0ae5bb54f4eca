"""What each verb of OFAClient sends, and what it makes of the answer, over real gRPC."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ofa_client import (
    MAX_TEXT_BYTES,
    Answer,
    AnsweringResult,
    Box,
    Caption,
    CaptioningResult,
    DrawingResult,
    DrawnImage,
    GroundingResult,
    InvalidImageError,
    InvalidOptionError,
    InvalidTextError,
    Label,
    LabelsResult,
    OFAClient,
    ServerError,
    Text,
    TextsResult,
)
from tests.unit.scripted_triton import ScriptedTriton, Tensors, bytes_tensor, texts_answer

SEARCH: dict[str, float] = {
    "beam_size": 4,
    "max_length": 12,
    "min_length": 0,
    "no_repeat_ngram_size": 3,
    "length_penalty": 1.5,
    "temperature": 0.5,
}
LABELS: Tensors = {
    "labels": bytes_tensor("yes", "maybe"),
    "probabilities": np.array([[0.75, 0.125]], np.float32),
}
LABELS_RESULT = LabelsResult((Label("yes", 0.75), Label("maybe", 0.125)))
TEXTS_RESULT = TextsResult((Text("one", -0.5, (-0.25, -0.75)), Text("二", -1.0, (-1.0, 0.0))))


def two_texts(results: str) -> Tensors:
    return texts_answer(results, ["one", "二"], [-0.5, -1.0], [[-0.25, -0.75], [-1.0, 0.0]])


Verb = tuple[Callable[..., Any], dict[str, Any], str, dict[str, Any], str, Tensors, Any]
#: Method, arguments, model, what is sent for them, the count option, the answer, the result.
VERBS: list[Verb] = [
    (
        OFAClient.caption,
        {"image": b"picture"},
        "caption",
        {"image": b"picture"},
        "num_captions",
        two_texts("captions"),
        CaptioningResult((Caption("one", -0.5, (-0.25, -0.75)), Caption("二", -1.0, (-1.0, 0.0)))),
    ),
    (
        OFAClient.answer,
        {"image": b"picture", "question": "what is läft?"},
        "vqa",
        {"image": b"picture", "text": "what is läft?".encode()},
        "num_answers",
        two_texts("answers"),
        AnsweringResult((Answer("one", -0.5, (-0.25, -0.75)), Answer("二", -1.0, (-1.0, 0.0)))),
    ),
    (
        OFAClient.ground,
        {"image": b"picture", "text": "the red apple"},
        "grounding",
        {"image": b"picture", "text": b"the red apple"},
        "num_boxes",
        {
            "boxes": np.array([[[1.5, 2, 30, 40], [0, 0, 9, 9]]], np.float32),
            "scores": np.array([[-0.5, -2]], np.float32),
            "token_log_probs": np.array([[[-0.5] * 4, [-1, -2, -3, -2]]], np.float32),
        },
        GroundingResult(
            (
                Box(1.5, 2.0, 30.0, 40.0, -0.5, (-0.5, -0.5, -0.5, -0.5)),
                Box(0.0, 0.0, 9.0, 9.0, -2.0, (-1.0, -2.0, -3.0, -2.0)),
            )
        ),
    ),
    (
        OFAClient.entail,
        {"image": b"picture", "text": "an apple"},
        "entailment",
        {"image": b"picture", "text": b"an apple"},
        "num_labels",
        LABELS,
        LABELS_RESULT,
    ),
    (
        OFAClient.entail,
        {"image": b"picture", "text": "an apple", "text2": "a fruit"},
        "entailment",
        {"image": b"picture", "text": b"an apple", "text2": b"a fruit"},
        "num_labels",
        LABELS,
        LABELS_RESULT,
    ),
    (
        OFAClient.classify,
        {"image": b"picture"},
        "classification",
        {"image": b"picture"},
        "num_labels",
        LABELS,
        LABELS_RESULT,
    ),
    (
        OFAClient.read_text,
        {"image": b"picture"},
        "ocr",
        {"image": b"picture"},
        "num_texts",
        two_texts("texts"),
        TEXTS_RESULT,
    ),
    (
        OFAClient.summarize,
        {"text": "a long story"},
        "summarization",
        {"text": b"a long story"},
        "num_texts",
        two_texts("texts"),
        TEXTS_RESULT,
    ),
    (
        OFAClient.classify_text,
        {"text": "an apple", "text2": "a fruit"},
        "text_classification",
        {"text": b"an apple", "text2": b"a fruit"},
        "num_labels",
        LABELS,
        LABELS_RESULT,
    ),
    (
        OFAClient.generate,
        {"prompt": " what is <bin_3>?"},
        "generate",
        {"text": b" what is <bin_3>?", "allow_special_tokens": False},
        "num_texts",
        two_texts("texts"),
        TEXTS_RESULT,
    ),
    (
        OFAClient.generate,
        {"prompt": "<mask>", "image": b"picture", "allow_special_tokens": True},
        "generate",
        {"text": b"<mask>", "image": b"picture", "allow_special_tokens": True},
        "num_texts",
        two_texts("texts"),
        TEXTS_RESULT,
    ),
]
IDS = [f"{verb[0].__name__} {' '.join(verb[1])}" for verb in VERBS]
DRAWN: Tensors = {
    "images": np.array([[b"\x89PNG\0one", b"\x89PNG\0two"]], np.object_),
    "scores": np.array([[0.5, 0.25]], np.float32),
    "log_probs": np.array([[-4, -3.5]], np.float32),
}
DTYPES = {
    **dict.fromkeys(["image", "text", "text2"], "BYTES"),
    **dict.fromkeys(["num_captions", "num_answers", "num_boxes", "num_labels"], "INT32"),
    **dict.fromkeys(["num_texts", "num_images", "beam_size", "max_length"], "INT32"),
    **dict.fromkeys(["min_length", "no_repeat_ngram_size"], "INT32"),
    **dict.fromkeys(["length_penalty", "temperature"], "FP32"),
    "allow_special_tokens": "BOOL",
    "seed": "INT64",
}


@pytest.fixture
def client(scripted_triton: ScriptedTriton) -> Iterator[OFAClient]:
    with OFAClient(scripted_triton.address, timeout=20) as client:
        yield client


def last_request(scripted_triton: ScriptedTriton) -> dict[str, object]:
    """What the last request held, after a look at shapes and types."""
    request = scripted_triton.requests[-1]
    assert all(tensor.shape == (1, 1) for tensor in request.values())
    assert scripted_triton.dtypes[-1] == {name: DTYPES[name] for name in request}
    return {name: tensor.item() for name, tensor in request.items()}


@pytest.mark.parametrize(
    ("method", "arguments", "model", "sent", "count", "answer", "result"), VERBS, ids=IDS
)
def test_each_verb_asks_its_model_and_reads_its_answer(
    client: OFAClient,
    scripted_triton: ScriptedTriton,
    method: Callable[..., Any],
    arguments: dict[str, Any],
    model: str,
    sent: dict[str, Any],
    count: str,
    answer: Tensors,
    result: object,
) -> None:
    scripted_triton.answer = lambda *_: answer
    assert method(client, **arguments) == result
    assert last_request(scripted_triton) == sent
    assert method(client, **arguments, **{count: 2}, **SEARCH, model="mine") == result
    assert last_request(scripted_triton) == {**sent, count: 2, **SEARCH}
    assert scripted_triton.models == [model, "mine"]


def test_a_drawing_has_its_seed_and_png_files(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    scripted_triton.answer = lambda *_: DRAWN
    result = client.draw("a red apple")
    assert result == DrawingResult(
        (
            DrawnImage(b"\x89PNG\0one", 0.5, -4.0),
            DrawnImage(b"\x89PNG\0two", 0.25, -3.5),
        )
    )
    assert result.png == b"\x89PNG\0one"
    assert last_request(scripted_triton) == {"text": b"a red apple", "seed": 0}
    client.draw("a red apple", seed=-(2**62), num_images=3, model="mine")
    assert last_request(scripted_triton) == {
        "text": b"a red apple",
        "seed": -(2**62),
        "num_images": 3,
    }
    assert scripted_triton.models == ["text_to_image", "mine"]


def test_the_best_result_has_a_name(client: OFAClient, scripted_triton: ScriptedTriton) -> None:
    answers: dict[str, Tensors] = {verb[2]: verb[5] for verb in VERBS}

    def scripted(model: str) -> None:
        scripted_triton.answer = lambda *_: answers[model]

    scripted("vqa")
    assert client.answer(b"picture", "what?").text == "one"
    scripted("ocr")
    assert client.read_text(b"picture").text == "one"
    scripted("entailment")
    assert client.entail(b"picture", "an apple").label == "yes"
    scripted("grounding")
    result = client.ground(b"picture", "an apple")
    assert result.box == result.boxes[0]


def test_answers_from_a_list_of_candidates_have_no_tokens(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    scripted_triton.answer = lambda *_: {
        "answers": bytes_tensor("red", "green"),
        "scores": np.array([[-0.5, -1]], np.float32),
    }
    assert client.answer(b"picture", "which colour?").answers == (
        Answer("red", -0.5, ()),
        Answer("green", -1.0, ()),
    )


def test_there_may_be_no_box(client: OFAClient, scripted_triton: ScriptedTriton) -> None:
    scripted_triton.answer = lambda *_: {
        "boxes": np.empty((1, 0, 4), np.float32),
        "scores": np.empty((1, 0), np.float32),
        "token_log_probs": np.empty((1, 0, 4), np.float32),
    }
    result = client.ground(b"picture", "an apple")
    assert result == GroundingResult(())
    assert result.box is None


def test_a_box_of_three_corners_is_a_server_error(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    scripted_triton.answer = lambda *_: {
        "boxes": np.zeros((1, 1, 3), np.float32),
        "scores": np.zeros((1, 1), np.float32),
        "token_log_probs": np.zeros((1, 1, 4), np.float32),
    }
    with pytest.raises(ServerError, match=r"do not fit together: .*'boxes': 'float32 \[1, 1, 3\]'"):
        client.ground(b"picture", "an apple")


def test_there_is_always_a_label(client: OFAClient, scripted_triton: ScriptedTriton) -> None:
    scripted_triton.answer = lambda *_: {
        "labels": np.empty((1, 0), np.object_),
        "probabilities": np.empty((1, 0), np.float32),
    }
    with pytest.raises(ServerError, match="do not fit together"):
        client.classify(b"picture")


def test_the_model_of_the_client_is_asked_by_all_verbs(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.answer = lambda *_: two_texts("texts")
    with OFAClient(scripted_triton.address, model="mine") as client:
        client.read_text(b"picture")
        client.summarize("text")
        client.summarize("text", model="other")
    assert scripted_triton.models == ["mine", "mine", "other"]


def test_the_longest_text_passes_and_a_longer_one_is_not_sent(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    scripted_triton.answer = lambda *_: two_texts("texts")
    assert MAX_TEXT_BYTES == 65_536
    client.summarize("é" * (MAX_TEXT_BYTES // 2))
    with pytest.raises(
        InvalidTextError, match=r"^text is 65,538 bytes of UTF-8; the limit is 65,536$"
    ):
        client.summarize("é" * (MAX_TEXT_BYTES // 2 + 1))
    (request,) = scripted_triton.requests
    assert len(request["text"].item()) == MAX_TEXT_BYTES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"bytes", "text2 must be a str, not bytes"),
        ("ab\udc80", "text2 is not valid Unicode: it has half a surrogate pair at 2"),
    ],
)
def test_what_is_no_text_is_not_sent(
    client: OFAClient, scripted_triton: ScriptedTriton, text: Any, message: str
) -> None:
    with pytest.raises(InvalidTextError) as caught:
        client.classify_text("a text", text)
    assert (caught.value.code, caught.value.message) == ("INVALID_ARGUMENT", message)
    assert not scripted_triton.requests


def test_a_missing_input_is_refused_and_a_missing_option_is_not(
    client: OFAClient, scripted_triton: ScriptedTriton
) -> None:
    with pytest.raises(InvalidImageError, match="not NoneType"):
        client.classify(None)
    with pytest.raises(InvalidTextError, match="text must be a str, not NoneType"):
        client.answer(b"picture", None)
    assert not scripted_triton.requests


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        (OFAClient.draw, {"seed": 2**63}, "seed is 9223372036854775808, which does not fit 64"),
        (OFAClient.draw, {"seed": 0.5}, "seed must be an integer, not 0.5"),
        (OFAClient.generate, {"allow_special_tokens": 1}, "must be True or False, not 1"),
        (OFAClient.summarize, {"beam": 3}, "unknown option beam; known are .*beam_size"),
    ],
)
def test_options_that_do_not_fit_are_not_sent(
    client: OFAClient,
    scripted_triton: ScriptedTriton,
    method: Callable[..., Any],
    option: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        method(client, "a text", **option)
    assert not scripted_triton.requests
