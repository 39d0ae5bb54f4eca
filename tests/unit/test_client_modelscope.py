"""`ofa_client.modelscope`: what a server answers, in the form that ModelScope's pipelines have."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ofa_client import InvalidImageError, OFAClient
from ofa_client.modelscope import OutputKeys, Tasks, pipeline
from tests.reference.cases import CASES, Case, Request
from tests.reference.golden import FOLDER, Answer, Recording
from tests.unit.scripted_triton import ScriptedTriton, Tensors, bytes_tensor, texts_answer

TASKS = {value for name, value in vars(Tasks).items() if not name.startswith("_")}
#: Every recording of a pipeline that has the entries of its result.
RECORDED = [
    (name, request)
    for name, case in CASES.items()
    if case.task in TASKS
    for request in case.requests
]
#: What ModelScope returns as a whole, with what it was asked.
RESULTS: dict[str, Any] = json.loads((FOLDER / "results.json").read_text("utf-8"))


def served(case: Case, answer: Answer) -> Tensors:
    """The tensors with which a server says what the reference was recorded to find."""
    result = answer.result
    match case.task:
        case Tasks.visual_grounding:
            log_probs = np.array([[answer.hypotheses[0].log_probs[:4]]], np.float32)
            return {
                "boxes": np.array([result["boxes"]], np.float32),
                "scores": log_probs.mean(-1),
                "token_log_probs": log_probs,
            }
        case Tasks.visual_question_answering if answer.label_log_probs:
            best = np.array([[math.log(result["scores"])]], np.float32)
            return {"answers": bytes_tensor(result["labels"]), "scores": best}
        case Tasks.visual_entailment | Tasks.image_classification | Tasks.text_classification:
            labels = [result["labels"]] if answer.label_log_probs else result["labels"]
            probabilities = [result["scores"]] if answer.label_log_probs else [0.5] * len(labels)
            return {
                "labels": bytes_tensor(*labels),
                "probabilities": np.array([probabilities], np.float32),
            }
    name, texts = {
        Tasks.image_captioning: ("captions", "caption"),
        Tasks.visual_question_answering: ("answers", "text"),
    }.get(case.task, ("texts", "text"))
    found = result[texts]
    return texts_answer(name, found, [-0.5] * len(found), [[-0.5]] * len(found))


def asked(case: Case, request: Request) -> dict[str, str]:
    parts = {"image": request.image, "text": request.text, "text2": request.text2}
    given = {name: value for name, value in parts.items() if value is not None}
    if "image" in given:
        given["image"] = str(case.picture_folder / given["image"])
    return given


def without_none(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if value is not None}


def test_results_equal_the_recorded_ones(scripted_triton: ScriptedTriton) -> None:
    with OFAClient(scripted_triton.address, timeout=30) as client:
        for name, request in RECORDED:
            case = CASES[name]
            answer = Recording.load(FOLDER / f"{name}.json").answers[request.name]
            tensors = served(case, answer)
            scripted_triton.answer = lambda *_, tensors=tensors: tensors
            gen_type: Any = "traverse" if answer.label_log_probs else "generation"
            result = pipeline(case.task, server=client, gen_type=gen_type)(asked(case, request))
            expected = dict(answer.result)
            # Whether a checkpoint that generates has a list of labels, no answer says.
            if "labels" in expected:
                expected.setdefault("scores", [1.0])
            if "text" in expected:
                expected.pop("scores", None)
            if "scores" in expected:
                # The log-probability of an answer has been rounded to float32.
                assert result.pop("scores") == pytest.approx(expected.pop("scores")), name
            del result["samples"]
            assert without_none(result) == expected, name


@pytest.mark.parametrize("name", RESULTS)
def test_whole_results_equal_the_recorded_ones(
    scripted_triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case, recorded = CASES[name], RESULTS[name]
    answer = Recording.load(FOLDER / f"{name}.json").answers[case.requests[0].name]
    tensors = served(case, answer)
    scripted_triton.answer = lambda *_: tensors
    monkeypatch.chdir(case.picture_folder)
    gen_type: Any = "traverse" if answer.label_log_probs else "generation"
    ask = pipeline(case.task, server=scripted_triton.address, gen_type=gen_type)
    result = ask(recorded["asked"])
    expected = recorded["result"]
    assert result.keys() == expected.keys()
    assert isinstance(result["samples"], tuple)
    result["samples"] = list(result["samples"])
    if "text" in without_none(expected):
        expected["scores"] = None
    if isinstance(expected["scores"], float):
        assert result.pop("scores") == pytest.approx(expected.pop("scores"))
    assert result == expected


LABELS = {"labels": bytes_tensor("yes"), "probabilities": np.array([[0.75]], np.float32)}
#: Every task with its inputs as a dict and as what stands for it by position, and an answer.
INPUTS: list[tuple[str, dict[str, str], Any, Tensors]] = [
    (
        Tasks.image_captioning,
        {"image": "a.jpg"},
        "a.jpg",
        texts_answer("captions", ["a cat"], [-0.5], [[-0.5]]),
    ),
    (
        Tasks.visual_question_answering,
        {"image": "a.jpg", "text": "what?"},
        ("a.jpg", "what?"),
        texts_answer("answers", ["a cat"], [-0.5], [[-0.5]]),
    ),
    (
        Tasks.visual_grounding,
        {"image": "a.jpg", "text": "the cat"},
        ("a.jpg", "the cat"),
        {
            "boxes": np.array([[[1, 2, 3, 4]]], np.float32),
            "scores": np.array([[-0.5]], np.float32),
            "token_log_probs": np.full((1, 1, 4), -0.5, np.float32),
        },
    ),
    (
        Tasks.visual_entailment,
        {"image": "a.jpg", "text": "a cat", "text2": "an animal"},
        ("a.jpg", "a cat", "an animal"),
        LABELS,
    ),
    (Tasks.visual_entailment, {"image": "a.jpg", "text": "a cat"}, ("a.jpg", "a cat"), LABELS),
    (Tasks.image_classification, {"image": "a.jpg"}, "a.jpg", LABELS),
    (
        Tasks.ocr_recognition,
        {"image": "a.jpg"},
        "a.jpg",
        texts_answer("texts", ["cat"], [-0.5], [[-0.5]]),
    ),
    (
        Tasks.text_summarization,
        {"text": "a story"},
        "a story",
        texts_answer("texts", ["cat"], [-0.5], [[-0.5]]),
    ),
    (Tasks.text_classification, {"text": "a cat", "text2": "a dog"}, ("a cat", "a dog"), LABELS),
]


@pytest.mark.parametrize(("task", "parts", "by_position", "answer"), INPUTS)
def test_inputs_have_the_forms_that_modelscope_takes(
    scripted_triton: ScriptedTriton,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    parts: dict[str, str],
    by_position: Any,
    answer: Tensors,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(b"picture")
    scripted_triton.answer = lambda *_: answer
    ask = pipeline(task, server=scripted_triton.address)
    result = ask(parts)
    assert result["samples"] == (parts,)
    assert ask(by_position) == result
    assert ask([parts, by_position]) == [result, result]
    assert ask([parts] * 5, batch_size=2) == [result] * 5
    assert ask([]) == []
    sent = {"image": b"picture"} | {
        name: text.encode() for name, text in parts.items() if name != "image"
    }
    for request in scripted_triton.requests:
        contents = {
            name: request[name].item() for name in ("image", "text", "text2") if name in request
        }
        assert contents == {name: sent[name] for name in parts}


def test_a_pil_picture_is_sent_and_described(scripted_triton: ScriptedTriton) -> None:
    image = Image.new("RGB", (3, 2), "red")
    result = pipeline(Tasks.image_captioning, server=scripted_triton.address)({"image": image})
    assert result["samples"] == ({"image": str(image)},)
    with Image.open(io.BytesIO(scripted_triton.requests[0]["image"].item())) as sent:
        assert sent.size == (3, 2)


def test_a_drawing_is_a_pil_picture_and_nothing_else(scripted_triton: ScriptedTriton) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    scripted_triton.answer = lambda *_: {
        "images": np.array([[file.getvalue(), b"worse"]], np.object_),
        "scores": np.array([[0.5, 0.25]], np.float32),
        "log_probs": np.array([[-4, -4]], np.float32),
    }
    ask = pipeline(Tasks.text_to_image_synthesis, server=scripted_triton.address)
    for result in (ask({"text": "red"}), ask("red")):
        assert result.keys() == {OutputKeys.OUTPUT_IMGS}
        [image] = result[OutputKeys.OUTPUT_IMGS]
        assert isinstance(image, Image.Image)
        assert image.getpixel((0, 0)) == (255, 0, 0)


def test_no_box_is_no_boxes(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.answer = lambda *_: {
        "boxes": np.empty((1, 0, 4), np.float32),
        "scores": np.empty((1, 0), np.float32),
        "token_log_probs": np.empty((1, 0, 4), np.float32),
    }
    ask = pipeline(Tasks.visual_grounding, server=scripted_triton.address)
    result = ask({"image": b"picture", "text": "the cat"})
    assert (result["boxes"], result["scores"]) == ([], [])
    assert scripted_triton.requests[0]["num_boxes"].item() == 1


def test_the_model_can_be_another(scripted_triton: ScriptedTriton) -> None:
    pipeline(Tasks.image_captioning, "mine", server=scripted_triton.address)(b"picture")
    with OFAClient(scripted_triton.address, model="the client's") as client:
        pipeline(Tasks.image_captioning, server=client)(b"picture")
    assert scripted_triton.models == ["mine", "the client's"]


def test_the_first_error_of_a_list_is_raised(scripted_triton: ScriptedTriton) -> None:
    ask = pipeline(Tasks.image_captioning, server=scripted_triton.address)
    with pytest.raises(InvalidImageError, match=r"missing\.jpg"):
        ask([b"picture", "missing.jpg", b"picture"], batch_size=2)


@pytest.mark.parametrize(
    ("task", "given", "missing"),
    [
        (Tasks.visual_grounding, {"image": "a.jpg"}, "text"),
        (Tasks.visual_question_answering, "a.jpg", "text"),
        (Tasks.text_classification, {}, "text and text2"),
    ],
)
def test_an_input_that_lacks_something_is_refused(task: str, given: Any, missing: str) -> None:
    with pytest.raises(ValueError, match=f"the input lacks {missing};"):
        pipeline(task)(given)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="task is one of image-captioning, "):
        pipeline("sudoku")
    with pytest.raises(ValueError, match="gen_type is "):
        pipeline(Tasks.image_captioning, gen_type="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be"):
        pipeline(Tasks.image_captioning)([b"picture"], batch_size=0)
