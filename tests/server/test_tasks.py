"""Every task through a real Triton: it says what the library says, whoever else asks."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image

from ofa.options import OPTION_DTYPES
from ofa_client import OFAClient
from tests.server.library import answer_of_library
from tests.server.processes import ServeProcess
from tests.server.requests import TIMEOUT_S, ask, encoded, picture, refusal, request_inputs
from tests.server.task_repository import LABELS, Export

Values = dict[str, bytes | float]
Tensors = dict[str, np.ndarray[Any, Any]]

IMAGE = encoded(picture(0))
WIDE = encoded(picture(1, 300, 90), "JPEG")
TEXT = b"a small dog and two cats"
LONG_TEXT = b"what does the image describe? a red apple to the left of a doughnut in the snow"

#: Two requests or more for each ensemble; those of one ensemble differ in shape and options.
REQUESTS: dict[str, list[Values]] = {
    "caption_zh": [{"image": IMAGE}, {"image": WIDE, "num_captions": 3, "max_length": 5}],
    "grounding_zh": [
        {"image": WIDE, "text": "一只小狗".encode()},
        {"image": IMAGE, "text": "雪地里的猫".encode(), "num_boxes": 2},
    ],
    "ocr_zh": [{"image": WIDE}, {"image": IMAGE, "num_texts": 2}],
    "generate_zh": [
        {"text": "图片描述了什么内容?".encode(), "image": IMAGE},
        {"text": "这段文字是什么？".encode(), "num_texts": 2},
    ],
    "caption_ofasys": [{"image": IMAGE}, {"image": WIDE, "num_captions": 2, "beam_size": 2}],
    "vqa": [
        {"image": IMAGE, "text": b"what is it"},
        {"image": WIDE, "text": LONG_TEXT},
        {"image": IMAGE, "text": b"What is it?", "num_answers": 2, "beam_size": 3},
    ],
    "vqa_list": [
        {"image": IMAGE, "text": b"is it red?", "num_answers": 4},
        {"image": WIDE, "text": LONG_TEXT, "num_answers": 2, "length_penalty": 0.0},
    ],
    "vqa_traverse": [
        {"image": IMAGE, "text": b"is it red?"},
        {"image": WIDE, "text": LONG_TEXT, "num_answers": 1},
    ],
    "grounding": [
        {"image": WIDE, "text": b"the red apple", "num_boxes": 3},
        {"image": IMAGE, "text": LONG_TEXT},
        {"image": IMAGE, "text": TEXT, "max_length": 3, "min_length": 3},
    ],
    "entailment": [
        {"image": IMAGE, "text": TEXT},
        {"image": WIDE, "text": TEXT, "text2": LONG_TEXT, "num_labels": 3},
    ],
    "classification": [{"image": IMAGE}, {"image": WIDE, "num_labels": len(LABELS)}],
    "ocr": [{"image": WIDE}, {"image": IMAGE, "num_texts": 2, "temperature": 1.5}],
    "summarization": [{"text": LONG_TEXT}, {"text": TEXT, "num_texts": 3}],
    "text_classification": [
        {"text": TEXT, "text2": LONG_TEXT},
        {"text": LONG_TEXT, "text2": TEXT, "num_labels": 2},
    ],
    "generate": [
        {"text": TEXT},
        {"text": TEXT, "image": IMAGE},
        {"text": b"where is <bin_7>?", "image": WIDE, "allow_special_tokens": True},
        {"text": b"where is <bin_7>?", "image": WIDE, "num_texts": 2},
    ],
    "text_to_image": [
        {"text": b"a red dog"},
        {"text": b"a red dog", "seed": 2**40, "num_images": 1},
        {"text": LONG_TEXT, "num_images": 2},
    ],
}


def pixels(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Encoded pictures as int32 [n, height, width, 3]."""
    return np.array([np.asarray(Image.open(io.BytesIO(image)), np.int32) for image in images])


def assert_same(answer: Tensors, expected: Tensors) -> None:
    assert answer.keys() == expected.keys()
    for name, value in answer.items():
        if name == "images":
            # Rounding to bytes may fall the other way.
            decoded, wanted = pixels(value), pixels(expected[name])
            np.testing.assert_allclose(decoded, wanted, rtol=0, atol=1)
        elif value.dtype == np.object_:
            assert value.tolist() == expected[name].tolist()
        else:
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


def test_all_ensembles_are_ready_together(
    task_server: ServeProcess, exports: dict[str, Export]
) -> None:
    assert sorted(REQUESTS) == sorted(exports)
    assert f"ready: {', '.join(sorted(exports))} on gRPC " in task_server.output


@pytest.mark.parametrize(
    ("ensemble", "number"),
    [(name, number) for name, requests in REQUESTS.items() for number in range(len(requests))],
)
def test_the_server_says_what_the_library_says(
    task_client: grpcclient.InferenceServerClient,
    exports: dict[str, Export],
    ensemble: str,
    number: int,
) -> None:
    values = REQUESTS[ensemble][number]
    assert_same(
        ask(task_client, ensemble, **values), dict(answer_of_library(*exports[ensemble], **values))
    )


def test_neighbours_do_not_show(
    task_server: ServeProcess, task_client: grpcclient.InferenceServerClient
) -> None:
    """Prompts of several lengths, with and without pictures and special tokens, at once."""
    alone = {
        name: [ask(task_client, name, **values) for values in requests]
        for name, requests in REQUESTS.items()
    }
    before = generator_counts(task_client)

    def ask_on_own_connection(name: str, number: int) -> Tensors:
        with grpcclient.InferenceServerClient(task_server.grpc_address) as own:
            return ask(own, name, **REQUESTS[name][number])

    # One ensemble's requests follow each other closely, so that they meet in its queue.
    asked = [(name, n) for name, answers in alone.items() for n in 3 * list(range(len(answers)))]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask_on_own_connection, *zip(*asked, strict=True)))
    for (name, number), answer in zip(asked, answers, strict=True):
        assert_same(answer, alone[name][number])
    inferences, executions = np.subtract(generator_counts(task_client), before)
    assert inferences == len(asked)
    assert executions < inferences


def generator_counts(client: grpcclient.InferenceServerClient) -> tuple[int, int]:
    """Inferences and executions of all generators so far."""
    statistics = [
        model
        for model in client.get_inference_statistics().model_stats
        if model.name.endswith("_generator")
    ]
    return (
        sum(model.inference_count for model in statistics),
        sum(model.execution_count for model in statistics),
    )


def test_the_probabilities_of_all_labels_sum_to_one(
    task_client: grpcclient.InferenceServerClient,
) -> None:
    answer = ask(task_client, "classification", image=IMAGE, num_labels=len(LABELS))
    assert sorted(answer["labels"]) == sorted(label.encode() for label in LABELS)
    assert answer["probabilities"].sum() == pytest.approx(1, abs=1e-5)
    assert answer["probabilities"].tolist() == sorted(answer["probabilities"], reverse=True)


def test_an_answer_that_starts_with_its_prompt_is_the_label_alone(
    task_client: grpcclient.InferenceServerClient,
) -> None:
    answer = ask(task_client, "entailment", image=IMAGE, text=TEXT, num_labels=4)
    assert set(answer["labels"]) <= {label.encode() for label in LABELS}
    assert 0 < answer["probabilities"].sum() <= 1 + 1e-5


def test_what_is_no_box_is_left_out(task_client: grpcclient.InferenceServerClient) -> None:
    values: Values = {"image": IMAGE, "text": TEXT, "num_boxes": 2}
    assert ask(task_client, "grounding", **values)["boxes"].shape == (2, 4)
    cut_short = ask(task_client, "grounding", **values, max_length=3, min_length=3)
    assert {name: value.shape for name, value in cut_short.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "token_log_probs": (0, 4),
    }


def test_special_tokens_are_text_unless_they_are_allowed(
    task_client: grpcclient.InferenceServerClient,
) -> None:
    values: Values = {"image": IMAGE, "text": b"<bin_1><bin_2><code_3>"}
    default, refused, allowed = (
        ask(task_client, "generate", **values, **options)
        for options in ({}, {"allow_special_tokens": False}, {"allow_special_tokens": True})
    )
    assert_same(default, refused)
    assert default["scores"].tolist() != allowed["scores"].tolist()


def test_a_picture_is_drawn_by_its_seed_and_not_by_its_neighbours(
    task_client: grpcclient.InferenceServerClient,
) -> None:
    """More pictures of a text are the same ones and others; another seed draws others."""
    all_three = ask(task_client, "text_to_image", text=b"a red dog")
    assert all_three["scores"].tolist() == sorted(all_three["scores"], reverse=True)
    with Image.open(io.BytesIO(all_three["images"][0])) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
    one, other = (
        ask(task_client, "text_to_image", text=b"a red dog", seed=seed, num_images=1)["images"]
        for seed in (0, 1)
    )
    # Of 255 levels; rounding to bytes may fall the other way.
    distances = [
        np.abs(pixels(all_three["images"]) - pixels(p)).max((1, 2, 3)) for p in (one, other)
    ]
    assert distances[0].min() <= 1 < distances[1].min()


def test_the_client_has_a_verb_for_every_task(
    task_server: ServeProcess, task_client: grpcclient.InferenceServerClient
) -> None:
    """The same figures as from plain tritonclient, for the first request to each model."""
    text, long_text = TEXT.decode(), LONG_TEXT.decode()
    with OFAClient(task_server.grpc_address, timeout=TIMEOUT_S) as client:
        asked = "is it red?"
        figures = {
            "caption_zh": [c.score for c in client.caption(IMAGE, model="caption_zh").captions],
            "vqa": [a.score for a in client.answer(IMAGE, "what is it").answers],
            "vqa_traverse": [
                a.score for a in client.answer(IMAGE, asked, model="vqa_traverse").answers
            ],
            "grounding": [b.score for b in client.ground(WIDE, "the red apple", num_boxes=3).boxes],
            "entailment": [found.probability for found in client.entail(IMAGE, text).labels],
            "classification": [found.probability for found in client.classify(IMAGE).labels],
            "ocr": [t.score for t in client.read_text(WIDE).texts],
            "summarization": [t.score for t in client.summarize(long_text).texts],
            "text_classification": [
                found.probability for found in client.classify_text(text, long_text).labels
            ],
            "generate": [t.score for t in client.generate(text).texts],
            "text_to_image": [drawn.score for drawn in client.draw("a red dog").images],
        }
    for name, found in figures.items():
        answer = ask(task_client, name, **REQUESTS[name][0])
        expected = answer["probabilities" if "probabilities" in answer else "scores"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=name)


def test_the_manifest_says_what_a_checkpoint_does(task_server: ServeProcess) -> None:
    def manifest(name: str) -> dict[str, Any]:
        file = task_server.repository / name / "1" / "manifest.json"
        return cast("dict[str, Any]", json.loads(file.read_text("utf-8")))

    chinese, classification = manifest("caption_zh"), manifest("classification")
    assert (chinese["task"], chinese["language"]) == ("image-captioning", "zh")
    assert chinese["num_labels"] == 0
    assert classification["task"] == "image-classification"
    assert classification["num_labels"] == len(LABELS)
    assert manifest("summarization")["input_shapes"].keys() == {"source_ids", *OPTION_DTYPES}


BAD_REQUESTS: dict[str, tuple[str, Values, str]] = {
    "vqa: picture": ("vqa", {"image": b"x", "text": TEXT}, "image cannot be read"),
    "vqa: no UTF-8": ("vqa", {"image": IMAGE, "text": b"caf\xe9"}, "text is not UTF-8 (byte 3)"),
    "vqa: long": (
        "vqa",
        {"image": IMAGE, "text": b"a" * 65_537},
        "text has 65,537 bytes; the limit is 65,536",
    ),
    "vqa: count": (
        "vqa",
        {"image": IMAGE, "text": TEXT, "num_answers": 5},
        "num_answers is 5; allowed are 1 to 4",
    ),
    "vqa_traverse: count": (
        "vqa_traverse",
        {"image": IMAGE, "text": TEXT, "num_answers": 7},
        "num_answers is 7; allowed are 1 to 6",
    ),
    "vqa_traverse: beam": (
        "vqa_traverse",
        {"image": IMAGE, "text": TEXT, "beam_size": 2},
        "unexpected inference input 'beam_size'",
    ),
    "grounding: picture": ("grounding", {"image": b"", "text": TEXT}, "image is empty"),
    "grounding: count": (
        "grounding",
        {"image": IMAGE, "text": TEXT, "num_boxes": 0},
        "num_boxes is 0; allowed are 1 to 4",
    ),
    "entailment: second text": (
        "entailment",
        {"image": IMAGE, "text": TEXT, "text2": b"\xff"},
        "text2 is not UTF-8 (byte 0)",
    ),
    "classification: picture": ("classification", {"image": WIDE[:-200]}, "image is broken"),
    "classification: count": (
        "classification",
        {"image": IMAGE, "num_labels": -1},
        "num_labels is -1; allowed are 1 to 6",
    ),
    "ocr: picture": ("ocr", {"image": b"not a picture"}, "image cannot be read"),
    "ocr: length": (
        "ocr",
        {"image": IMAGE, "max_length": 9},
        "max_length is 9; allowed are 1 to 8",
    ),
    "summarization: no UTF-8": ("summarization", {"text": b"\x80"}, "text is not UTF-8 (byte 0)"),
    "summarization: no text": ("summarization", {"num_texts": 1}, "expected"),
    "text_classification: one text": ("text_classification", {"text": TEXT}, "expected"),
    "text_classification: long": (
        "text_classification",
        {"text": TEXT, "text2": b"a" * 65_537},
        "text2 has 65,537 bytes; the limit is 65,536",
    ),
    "generate: picture": ("generate", {"text": TEXT, "image": b"x"}, "image cannot be read"),
    "generate: count": (
        "generate",
        {"text": TEXT, "num_texts": 3, "beam_size": 2},
        "num_texts is 3; allowed are 1 to 2",
    ),
    "text_to_image: no UTF-8": ("text_to_image", {"text": b"\xc3"}, "text is not UTF-8 (byte 0)"),
    "text_to_image: count": (
        "text_to_image",
        {"text": TEXT, "num_images": 4},
        "num_images is 4; allowed are 1 to 3",
    ),
    "caption_zh: count": (
        "caption_zh",
        {"image": IMAGE, "num_captions": 9},
        "num_captions is 9; allowed are 1 to 4",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_with_a_reason(
    task_client: grpcclient.InferenceServerClient, name: str
) -> None:
    ensemble, values, reason = BAD_REQUESTS[name]
    assert reason in refusal(task_client, ensemble, request_inputs(**values))


def test_bad_requests_harm_no_neighbour(
    task_server: ServeProcess, task_client: grpcclient.InferenceServerClient
) -> None:
    alone = {name: ask(task_client, name, **requests[0]) for name, requests in REQUESTS.items()}

    def good_beside_bad(name: str) -> tuple[str, Tensors]:
        ensemble, values, _ = BAD_REQUESTS[name]
        with grpcclient.InferenceServerClient(task_server.grpc_address) as own:
            refusal(own, ensemble, request_inputs(**values))
            return ensemble, ask(own, ensemble, **REQUESTS[ensemble][0])

    with ThreadPoolExecutor(8) as pool:
        for ensemble, answer in pool.map(good_beside_bad, BAD_REQUESTS):
            assert_same(answer, alone[ensemble])
