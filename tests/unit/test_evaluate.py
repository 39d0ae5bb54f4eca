"""`ofa evaluate`: what it asks, keeps, counts and prints, over real gRPC."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ofa_server.cli import main
from tests.unit.scripted_triton import (
    ScriptedTriton,
    Tensors,
    captions_answer,
    texts_answer,
)

Evaluate = Callable[..., int]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Pictures whose bytes are their names."""
    folder = tmp_path / "images"
    for name in ("apple.jpg", "bear.jpg", "cup.jpg", "COCO_val2014_000000000042.jpg"):
        (folder / "val2014").mkdir(parents=True, exist_ok=True)
        for path in (folder / name, folder / "val2014" / name):
            path.write_bytes(name.encode())
    return folder


@pytest.fixture
def evaluate(
    images: Path, scripted_triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch
) -> Evaluate:
    """Run `ofa evaluate` against the scripted server; without Java, whose start takes seconds."""
    monkeypatch.setattr(shutil, "which", lambda name: None)

    def run(task: str, annotations: Path, *more: str | Path) -> int:
        command = ["evaluate", "--task", task, "--images", images, "--annotations", annotations]
        return main([str(a) for a in (*command, "--server", scripted_triton.address, *more)])

    return run


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


CAPTIONS = {
    "apple.jpg": "a red apple lies here",
    "bear.jpg": "two brown bears stand up",
    "cup.jpg": "an old cup is empty",
}


def caption_truly(request: Tensors, context: grpc.ServicerContext) -> Tensors:
    return captions_answer([CAPTIONS[request["image"].item().decode()]], [-0.5], [[-0.5]])


@pytest.fixture
def caption_file(tmp_path: Path) -> Path:
    lines = [{"image": name, "captions": [text, "so it is"]} for name, text in CAPTIONS.items()]
    return write_lines(tmp_path / "captions.jsonl", *lines)


def scores_of(output: str) -> dict[str, float]:
    lines = [line.split() for line in output.splitlines()[1:]]
    return {name: float(score) for name, score in lines}


def test_captions_are_scored(
    evaluate: Evaluate,
    caption_file: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_triton.answer = caption_truly
    assert evaluate("caption", caption_file) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[0] == "caption: 3 of 3 pictures"
    scores = scores_of(output)
    assert scores["BLEU-4"] == scores["ROUGE-L"] == 100
    assert scores["CIDEr"] == pytest.approx(500, abs=1)  # the second reference has nothing of it
    assert scripted_triton.models == ["caption"] * 3


def test_a_second_run_asks_only_for_what_is_missing(
    evaluate: Evaluate,
    caption_file: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse_bears(request: Tensors, context: grpc.ServicerContext) -> Tensors:
        if request["image"].item() == b"bear.jpg":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "OFA-4000 [image]: no bears, please")
        return caption_truly(request, context)

    scripted_triton.answer = refuse_bears
    assert evaluate("caption", caption_file) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "caption: 2 of 3 pictures"
    assert scores_of(output.out)["BLEU-4"] == 100
    [sentence] = [line for line in output.err.splitlines() if "no answer" in line]
    assert sentence.startswith(
        "ofa evaluate: 1 of 3 pictures have no answer and are not in the scores; the next run asks "
        "for them again. The first: bear.jpg: "
    )
    assert sentence.endswith("no bears, please")

    scripted_triton.requests.clear()
    scripted_triton.answer = caption_truly
    assert evaluate("caption", caption_file) == 0
    assert [request["image"].item() for request in scripted_triton.requests] == [b"bear.jpg"]
    assert capsys.readouterr().out.startswith("caption: 3 of 3 pictures\n")

    scripted_triton.requests.clear()
    assert evaluate("caption", caption_file) == 0
    assert not scripted_triton.requests


def test_a_busy_server_is_asked_again(
    evaluate: Evaluate,
    caption_file: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse_once(request: Tensors, context: grpc.ServicerContext) -> Tensors:
        name = request["image"].item()
        if [asked["image"].item() for asked in scripted_triton.requests].count(name) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        return caption_truly(request, context)

    monkeypatch.setattr("ofa_server.evaluate._BUSY_PAUSE_S", 0.01)
    scripted_triton.answer = refuse_once
    assert evaluate("caption", caption_file) == 0
    assert capsys.readouterr().out.startswith("caption: 3 of 3 pictures\n")

    monkeypatch.setattr("ofa_server.evaluate._MAX_BUSY_S", -1.0)
    scripted_triton.fail(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    assert evaluate("caption", caption_file, "--predictions", caption_file.parent / "more") == 1
    assert "3 of 3 pictures have no answer" in capsys.readouterr().err


def test_no_requests_at_a_time_are_refused(
    evaluate: Evaluate, caption_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("caption", caption_file, "--concurrency", "0") == 1
    assert "--concurrency is 0; it must be 1 or more" in capsys.readouterr().err


def test_the_progress_bar_counts_what_earlier_runs_did(
    evaluate: Evaluate,
    caption_file: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def bars() -> list[str]:
        """The bar as it was drawn, one time after the other, on standard error."""
        return re.findall(r"\d+%\|.*?\| \d/\d .*? pictures", capsys.readouterr().err)

    scripted_triton.answer = caption_truly
    assert evaluate("caption", caption_file) == 0
    first, *_, last = bars()
    assert "| 0/3 " in first
    assert "| 3/3 " in last

    [kept] = caption_file.parent.glob("*.predictions.jsonl")
    origin, one, *_ = kept.read_text("utf-8").splitlines(keepends=True)
    kept.write_text(origin + one, "utf-8")
    assert evaluate("caption", caption_file) == 0
    first, *_, last = bars()
    assert "| 1/3 " in first
    assert "| 3/3 " in last


def test_half_a_line_of_a_killed_run_is_asked_again(
    evaluate: Evaluate, caption_file: Path, scripted_triton: ScriptedTriton
) -> None:
    scripted_triton.answer = caption_truly
    assert evaluate("caption", caption_file) == 0
    [kept] = caption_file.parent.glob("*.predictions.jsonl")
    whole = kept.read_text("utf-8")
    kept.write_text(whole[:-9], "utf-8")
    scripted_triton.requests.clear()
    assert evaluate("caption", caption_file) == 0
    assert len(scripted_triton.requests) == 1
    assert kept.read_text("utf-8") == whole


def test_predictions_for_another_ensemble_or_other_annotations_are_not_mixed(
    evaluate: Evaluate,
    caption_file: Path,
    tmp_path: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_triton.answer = caption_truly
    kept = tmp_path / "kept.jsonl"
    assert evaluate("caption", caption_file, "--predictions", kept) == 0
    assert evaluate("caption", caption_file, "--predictions", kept, "--model", "large") == 1
    assert "kept.jsonl holds predictions for ensemble caption, not large" in capsys.readouterr().err
    caption_file.write_text(caption_file.read_text("utf-8").replace("old cup", "new cup"), "utf-8")
    assert evaluate("caption", caption_file, "--predictions", kept) == 1
    assert "kept.jsonl holds predictions for annotations " in capsys.readouterr().err
    kept.write_text("[]\n", "utf-8")
    assert evaluate("caption", caption_file, "--predictions", kept) == 1
    assert "holds something else than predictions" in capsys.readouterr().err


def test_without_a_server_nothing_is_counted(
    evaluate: Evaluate, caption_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("caption", caption_file, "--server", "127.0.0.1:9", "--timeout", "5") == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "no answer" not in output.err


COCO = {
    "images": [{"id": 42, "file_name": "apple.jpg"}, {"id": 7, "file_name": "cup.jpg"}],
    "annotations": [
        {"image_id": 7, "caption": CAPTIONS["cup.jpg"]},
        {"image_id": 42, "caption": CAPTIONS["apple.jpg"]},
        {"image_id": 42, "caption": "an apple"},
        {"image_id": 1, "caption": "of a picture that was left out"},
    ],
}


def karpathy(name: str, cocoid: int, split: str) -> dict[str, Any]:
    sentences = [{"raw": CAPTIONS[name]}, {"raw": "an apple"}]
    place = {"filepath": "val2014", "filename": name}
    return {**place, "cocoid": cocoid, "split": split, "sentences": sentences}


KARPATHY = {
    "images": [
        karpathy("apple.jpg", 42, "test"),
        karpathy("bear.jpg", 43, "val"),
        karpathy("cup.jpg", 7, "test"),
    ]
}


@pytest.mark.parametrize("document", [COCO, KARPATHY], ids=["coco", "karpathy"])
def test_published_caption_annotations_are_read(
    document: dict[str, Any],
    evaluate: Evaluate,
    tmp_path: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_triton.answer = caption_truly
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps(document), "utf-8")
    assert evaluate("caption", annotations) == 0
    asked = {request["image"].item() for request in scripted_triton.requests}
    assert asked == {b"apple.jpg", b"cup.jpg"}
    assert scores_of(capsys.readouterr().out)["BLEU-4"] == 100
    lines = (
        (tmp_path / "annotations.json.caption.predictions.jsonl").read_text("utf-8").splitlines()
    )
    kept = {entry["key"]: entry["prediction"] for entry in map(json.loads, lines[1:])}
    assert kept == {"42": CAPTIONS["apple.jpg"], "7": CAPTIONS["cup.jpg"]}


def test_questions_are_asked_as_vqa_publishes_them(
    evaluate: Evaluate,
    tmp_path: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_triton.answer = lambda request, _: texts_answer(
        "answers", ["two" if "many" in request["text"].item().decode() else "red"], [0], [[0]]
    )
    asked = {420: "how many?", 421: "which colour?"}
    questions = tmp_path / "questions.json"
    entries = [{"question_id": i, "image_id": 42, "question": q} for i, q in asked.items()]
    questions.write_text(json.dumps({"data_subtype": "val2014", "questions": entries}), "utf-8")
    given = {420: ["2"] * 9 + ["two cups"], 421: ["green"] * 8 + ["red"] * 2}
    annotations = tmp_path / "annotations.json"
    answers = [
        {"question_id": i, "answers": [{"answer": a, "answer_id": n} for n, a in enumerate(all_)]}
        for i, all_ in given.items()
    ]
    annotations.write_text(json.dumps({"annotations": answers}), "utf-8")
    assert evaluate("vqa", annotations, "--questions", questions) == 0
    assert {request["image"].item() for request in scripted_triton.requests} == {
        b"COCO_val2014_000000000042.jpg"
    }
    assert {request["text"].item().decode() for request in scripted_triton.requests} == set(
        asked.values()
    )
    expected = 100 * (1 + (8 * 2 / 3 + 2 * 1 / 3) / 10) / 2
    assert scores_of(capsys.readouterr().out) == {"Accuracy": pytest.approx(expected, abs=0.01)}

    # Answers to other questions are no answers to these.
    questions.write_text(questions.read_text("utf-8").replace("which", "what"), "utf-8")
    assert evaluate("vqa", annotations, "--questions", questions) == 1
    assert "holds predictions for questions" in capsys.readouterr().err


def test_questions_of_ones_own(
    evaluate: Evaluate,
    tmp_path: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_triton.answer = lambda *_: texts_answer("answers", ["a cup"], [0.0], [[0.0]])
    lines = [
        {"image": "cup.jpg", "question": "what is it?", "answers": ["a cup"]},
        {"image": "bear.jpg", "question": "what is it?", "answers": ["a bear"]},
    ]
    assert evaluate("vqa", write_lines(tmp_path / "vqa.jsonl", *lines)) == 0
    assert capsys.readouterr().out == "vqa: 2 of 2 questions\n  Accuracy   50.00\n"


def test_boxes_are_scored(
    evaluate: Evaluate,
    tmp_path: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ground(request: Tensors, context: grpc.ServicerContext) -> Tensors:
        boxes = [] if request["text"].item() == b"nothing" else [[0, 0, 10, 10]]
        return {
            "boxes": np.array([boxes], np.float32).reshape(1, -1, 4),
            "scores": np.zeros((1, len(boxes)), np.float32),
            "token_log_probs": np.zeros((1, len(boxes), 4), np.float32),
        }

    scripted_triton.answer = ground
    lines = [
        {"image": "apple.jpg", "text": "the apple", "box": [0, 0, 10, 5.5]},
        {"image": "apple.jpg", "text": "the stalk", "box": [0, 0, 10, 4.5]},
        {"image": "bear.jpg", "text": "the bear", "box": [0, 0, 10, 10]},
        {"image": "bear.jpg", "text": "nothing", "box": [0, 0, 10, 10]},
    ]
    path = write_lines(tmp_path / "boxes.jsonl", *lines)
    assert evaluate("grounding", path) == 0
    assert capsys.readouterr().out == "grounding: 4 of 4 phrases\n  Accuracy   50.00\n"


@pytest.mark.parametrize(
    ("task", "line", "reason"),
    [
        ("caption", {"captions": ["a"]}, "the field 'image' is missing"),
        ("caption", {"image": "a.jpg", "captions": []}, "needs at least one caption"),
        ("caption", ["a.jpg"], "list indices must be integers"),
        ("vqa", {"image": "a.jpg", "question": "?", "answers": "no"}, "must be a list"),
        ("grounding", {"image": "a.jpg", "text": "a", "box": [1, 2, 3]}, "not enough values"),
        ("grounding", {"image": "a.jpg", "text": "a", "box": [5, 2, 3, 9]}, "box [x0, y0, x1, y1]"),
    ],
)
def test_unfit_annotations_are_refused(
    task: str,
    line: Any,
    reason: str,
    evaluate: Evaluate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(task, write_lines(tmp_path / "unfit.jsonl", line)) == 1
    error = capsys.readouterr().err
    assert error.startswith("ofa evaluate: unfit.jsonl, line 1: ")
    assert reason in error


@pytest.mark.parametrize(
    ("task", "document", "reason"),
    [
        ("caption", {"images": []}, "there is no split 'test'"),
        ("caption", KARPATHY, "there is no split 'train', only test, val"),
        ("caption", {"images": [{"id": 1, "file_name": "a"}], "annotations": []}, "at least one"),
        ("caption", "no object", "unfit.json: "),
        ("caption", {"images": [], "annotations": []}, "unfit.json holds no pictures"),
    ],
)
def test_unfit_documents_are_refused(
    task: str,
    document: Any,
    reason: str,
    evaluate: Evaluate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "unfit.json"
    path.write_text(json.dumps(document), "utf-8")
    split = "train" if document is KARPATHY else "test"
    assert evaluate(task, path, "--split", split) == 1
    error = capsys.readouterr().err
    assert error.startswith("ofa evaluate: unfit.json")
    assert reason in error


def test_missing_files_are_named(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("caption", tmp_path / "none.json") == 1
    error = capsys.readouterr().err
    assert error == "ofa evaluate: none.json cannot be read: No such file or directory\n"
