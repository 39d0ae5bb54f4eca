import json
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from ofa_client._cli import main
from tests.unit.scripted_triton import (
    ScriptedTriton,
    bytes_tensor,
    captions_answer,
    scripted_server,
    texts_answer,
)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two pictures in the working directory."""
    monkeypatch.chdir(tmp_path)
    names = ["apple.jpg", "Äpfel.png"]
    for name in names:
        Path(name).write_bytes(name.encode())
    return names


def name_as_caption(scripted_triton: ScriptedTriton) -> None:
    """Answer with the picture's bytes, which are its name, and a second caption."""
    scripted_triton.answer = lambda request, _: captions_answer(
        [request["image"].item().decode(), "second"], [-0.5, -1.25], [[-0.5], [-1.25]]
    )


def test_text_names_each_picture_and_its_captions(
    pictures: list[str], scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    name_as_caption(scripted_triton)
    assert main(["caption", *pictures, "--server", scripted_triton.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  (")[0] for line in lines[::3]] == pictures
    assert [line.split() for line in lines[1::3]] == [["-0.500", name] for name in pictures]
    assert [line.split() for line in lines[2::3]] == [["-1.250", "second"]] * 2


def test_json_is_one_object_a_line(
    pictures: list[str], scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    name_as_caption(scripted_triton)
    assert main(["caption", *pictures, "--json", "--server", scripted_triton.address]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "image": name,
            "captions": [{"text": name, "score": -0.5}, {"text": "second", "score": -1.25}],
        }
        for name in pictures
    ]


def test_a_failed_picture_does_not_stop_the_others(
    pictures: list[str], scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    name_as_caption(scripted_triton)
    given = ["missing.jpg", *pictures]
    assert main(["caption", *given, "--json", "--server", scripted_triton.address]) == 1
    failed, *answered = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert failed == {
        "image": "missing.jpg",
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": "image 'missing.jpg' cannot be read: No such file or directory",
        },
    }
    assert [answer["image"] for answer in answered] == pictures

    assert main(["caption", *given, "--server", scripted_triton.address]) == 1
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        "missing.jpg: image 'missing.jpg' cannot be read: No such file or directory"
    ]
    assert len(output.out.splitlines()) == 6


def test_a_refusal_carries_the_status_of_the_server(
    pictures: list[str], scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_triton.fail(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    assert main(["caption", pictures[0], "--json", "--server", scripted_triton.address]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "UNAVAILABLE"
    assert error["message"].endswith("is busy: Exceeds maximum queue size")


def test_model_and_number_of_captions_reach_the_server(
    pictures: list[str], scripted_triton: ScriptedTriton
) -> None:
    given = ["--model", "emoji", "--num-captions", "3", "--server", scripted_triton.address]
    assert main(["caption", pictures[0], *given]) == 0
    assert scripted_triton.models == ["emoji"]
    assert scripted_triton.requests[0]["num_captions"].tolist() == [[3]]


def test_the_timeout_holds_for_each_picture(
    pictures: list[str], scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--timeout", "0", "--json", "--server", scripted_triton.address]
    assert main(["caption", *pictures, *given]) == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["error"]["code"] for answer in answers] == ["DEADLINE_EXCEEDED"] * 2


def test_a_name_that_is_not_text_is_printed_all_the_same(
    scripted_triton: ScriptedTriton, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = str(tmp_path / "\udcff.jpg")
    Path(name).write_bytes(b"picture")
    assert main(["caption", name, "--server", scripted_triton.address]) == 0
    assert r"\udcff.jpg" in capfd.readouterr().out


LABELS = {
    "labels": bytes_tensor("yes", "maybe"),
    "probabilities": np.array([[0.75, 0.125]], np.float32),
}
LABELS_JSON = {
    "labels": [{"label": "yes", "probability": 0.75}, {"label": "maybe", "probability": 0.125}]
}
LABELS_LINES = ["0.750  yes", "0.125  maybe"]
BOXES = {
    "boxes": np.array([[[1.5, 2, 30, 40]]], np.float32),
    "scores": np.array([[-0.5]], np.float32),
    "token_log_probs": np.full((1, 1, 4), -0.5, np.float32),
}
NO_BOXES = {
    "boxes": np.empty((1, 0, 4), np.float32),
    "scores": np.empty((1, 0), np.float32),
    "token_log_probs": np.empty((1, 0, 4), np.float32),
}
TEXTS = texts_answer("texts", ["one", ""], [-0.5, -np.inf], [[-0.5], [0]])
TEXTS_JSON = {"texts": [{"text": "one", "score": -0.5}, {"text": "", "score": None}]}
TEXTS_LINES = ["-0.500  one", "-inf  "]

#: Verb and arguments, the model, what is sent, the answer, its JSON and its lines.
VERBS: list[tuple[list[str], str, dict[str, Any], Any, dict[str, Any], list[str]]] = [
    (
        ["answer", "apple.jpg", "what?", "--num-answers", "2"],
        "vqa",
        {"image": b"apple.jpg", "text": b"what?", "num_answers": 2},
        texts_answer("answers", ["red", "green"], [-0.5, -1], [[-0.5], [-1]]),
        {
            "image": "apple.jpg",
            "question": "what?",
            "answers": [{"text": "red", "score": -0.5}, {"text": "green", "score": -1.0}],
        },
        ["-0.500  red", "-1.000  green"],
    ),
    (
        ["ground", "apple.jpg", "the apple", "--num-boxes", "1"],
        "grounding",
        {"image": b"apple.jpg", "text": b"the apple", "num_boxes": 1},
        BOXES,
        {
            "image": "apple.jpg",
            "text": "the apple",
            "boxes": [{"box": [1.5, 2.0, 30.0, 40.0], "score": -0.5}],
        },
        ["-0.500  1.5 2.0 30.0 40.0"],
    ),
    (
        ["ground", "apple.jpg", "the pear"],
        "grounding",
        {"image": b"apple.jpg", "text": b"the pear"},
        NO_BOXES,
        {"image": "apple.jpg", "text": "the pear", "boxes": []},
        [],
    ),
    (
        ["entail", "apple.jpg", "an apple", "--num-labels", "2"],
        "entailment",
        {"image": b"apple.jpg", "text": b"an apple", "num_labels": 2},
        LABELS,
        {"image": "apple.jpg", "text": "an apple"} | LABELS_JSON,
        LABELS_LINES,
    ),
    (
        ["entail", "apple.jpg", "an apple", "a fruit"],
        "entailment",
        {"image": b"apple.jpg", "text": b"an apple", "text2": b"a fruit"},
        LABELS,
        {"image": "apple.jpg", "text": "an apple", "text2": "a fruit"} | LABELS_JSON,
        LABELS_LINES,
    ),
    (
        ["classify", "apple.jpg", "--num-labels", "2"],
        "classification",
        {"image": b"apple.jpg", "num_labels": 2},
        LABELS,
        {"image": "apple.jpg"} | LABELS_JSON,
        LABELS_LINES,
    ),
    (
        ["read-text", "apple.jpg", "--num-texts", "2"],
        "ocr",
        {"image": b"apple.jpg", "num_texts": 2},
        TEXTS,
        {"image": "apple.jpg"} | TEXTS_JSON,
        TEXTS_LINES,
    ),
    (
        ["summarize", "a long story", "--num-texts", "2"],
        "summarization",
        {"text": b"a long story", "num_texts": 2},
        TEXTS,
        {"text": "a long story"} | TEXTS_JSON,
        TEXTS_LINES,
    ),
    (
        ["classify-text", "an apple", "a fruit", "--num-labels", "2"],
        "text_classification",
        {"text": b"an apple", "text2": b"a fruit", "num_labels": 2},
        LABELS,
        {"text": "an apple", "text2": "a fruit"} | LABELS_JSON,
        LABELS_LINES,
    ),
    (
        ["generate", " a prompt", "--num-texts", "2"],
        "generate",
        {"text": b" a prompt", "num_texts": 2, "allow_special_tokens": False},
        TEXTS,
        {"prompt": " a prompt"} | TEXTS_JSON,
        TEXTS_LINES,
    ),
    (
        ["generate", "<mask>", "--image", "apple.jpg", "--allow-special-tokens"],
        "generate",
        {"text": b"<mask>", "image": b"apple.jpg", "allow_special_tokens": True},
        TEXTS,
        {"prompt": "<mask>", "image": "apple.jpg"} | TEXTS_JSON,
        TEXTS_LINES,
    ),
]


@pytest.mark.parametrize(
    ("given", "model", "sent", "answer", "as_json", "lines"),
    VERBS,
    ids=[" ".join(verb[0]) for verb in VERBS],
)
def test_each_verb_asks_and_prints(
    pictures: list[str],
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    model: str,
    sent: dict[str, Any],
    answer: Any,
    as_json: dict[str, Any],
    lines: list[str],
) -> None:
    scripted_triton.answer = lambda *_: answer
    assert main([*given, "--server", scripted_triton.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == as_json
    (request,) = scripted_triton.requests
    assert {name: tensor.item() for name, tensor in request.items()} == sent
    assert scripted_triton.models == [model]

    assert main([*given, "--server", scripted_triton.address, "--model", "mine"]) == 0
    title, *items = capsys.readouterr().out.splitlines()
    inputs = [value for name, value in as_json.items() if isinstance(value, str)]
    assert title.startswith("  ".join(inputs) + "  (")
    assert [item.strip() for item in items] == [line.strip() for line in lines]
    assert scripted_triton.models == [model, "mine"]


@pytest.mark.parametrize("verb", ["classify", "read-text"])
def test_several_pictures_are_asked_about_one_by_one(
    pictures: list[str],
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    scripted_triton.answer = lambda *_: LABELS | TEXTS
    assert main([verb, *pictures, "--json", "--server", scripted_triton.address]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == pictures


def test_several_texts_are_summarized_one_by_one(
    scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_triton.answer = lambda *_: TEXTS
    given = ["summarize", "one story", "another", "--json", "--server", scripted_triton.address]
    assert main(given) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["one story", "another"]


def test_ground_paints_the_boxes_onto_the_picture(
    scripted_triton: ScriptedTriton, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, painted = tmp_path / "turned.jpg", tmp_path / "out.png"
    Image.new("RGB", (60, 40)).save(picture, exif=exif)
    scripted_triton.answer = lambda *_: BOXES
    given = ["ground", str(picture), "the apple", "--draw", str(painted)]
    assert main([*given, "--server", scripted_triton.address]) == 0
    with Image.open(painted) as opened:
        assert opened.size == (40, 60)
        red = (np.asarray(opened) == (255, 0, 0)).all(axis=-1)
    assert red[[2, 40], 20].all()
    assert red[20, 30]


@pytest.mark.parametrize("name", ["missing/out.png", "out.nothing"])
def test_a_painting_that_cannot_be_written_is_an_error(
    pictures: list[str],
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    Image.new("RGB", (60, 40)).save("apple.jpg")
    scripted_triton.answer = lambda *_: BOXES
    given = ["ground", "apple.jpg", "the apple", "--draw", name]
    assert main([*given, "--server", scripted_triton.address]) == 1
    output = capsys.readouterr()
    assert "1.5 2.0 30.0 40.0" in output.out
    assert output.err.startswith("ofa-client: ")


def test_without_pillow_painting_is_an_error_that_says_so(
    pictures: list[str],
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    scripted_triton.answer = lambda *_: BOXES
    given = ["ground", "apple.jpg", "the apple", "--draw", "out.png"]
    assert main([*given, "--server", scripted_triton.address]) == 1
    assert "pip install 'ofa-client[pillow]'" in capsys.readouterr().err


def test_draw_writes_every_picture_the_best_under_the_given_name(
    scripted_triton: ScriptedTriton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_triton.answer = lambda *_: {
        "images": bytes_tensor("best", "second"),
        "scores": np.array([[0.5, 0.25]], np.float32),
        "log_probs": np.array([[-4, -3.5]], np.float32),
    }
    given = ["draw", "a red apple", "--out", str(tmp_path / "apple.v1.png"), "--seed", "-7"]
    given += ["--num-images", "2", "--json", "--server", scripted_triton.address]
    assert main(given) == 0
    (request,) = scripted_triton.requests
    assert request["seed"].item() == -7
    assert request["num_images"].item() == 2
    assert json.loads(capsys.readouterr().out) == {
        "text": "a red apple",
        "images": [{"score": 0.5, "log_prob": -4.0}, {"score": 0.25, "log_prob": -3.5}],
    }
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {"apple.v1.png": b"best", "apple.v1-2.png": b"second"}


def test_an_error_names_what_was_asked(
    pictures: list[str], scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_triton.fail(grpc.StatusCode.INVALID_ARGUMENT, "text is missing")
    given = ["answer", "apple.jpg", "what?", "--server", scripted_triton.address]
    assert main(given) == 1
    assert capsys.readouterr().err == "apple.jpg  what?: text is missing\n"
    assert main([*given, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "image": "apple.jpg",
        "question": "what?",
        "error": {"code": "INVALID_ARGUMENT", "message": "text is missing"},
    }


def test_a_long_text_is_cut_in_what_people_read_and_nowhere_else(
    scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_triton.answer = lambda *_: TEXTS
    given = ["summarize", "long " * 100, "--server", scripted_triton.address]
    assert main(given) == 0
    assert capsys.readouterr().out.startswith("long " * 16 + "…  (")
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "long " * 100
    assert scripted_triton.requests[0]["text"].item() == b"long " * 100


def test_a_url_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["summarize", "text", "--server", "http://localhost:8000"])
    assert caught.value.code == 2
    assert "server must be HOST:PORT" in capsys.readouterr().err


def test_no_picture_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["caption"])
    assert caught.value.code == 2
    assert "PICTURE" in capsys.readouterr().err


def test_several_servers_take_turns(
    pictures: list[str], scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_server() as other:
        servers = f"{scripted_triton.address},{other.address}"
        assert main(["caption", *pictures, "--server", servers]) == 0
        assert len(scripted_triton.requests) == len(other.requests) == 1
