"""The checkpoints that ship, served: what they say of the demo's pictures is true."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_client import OFAClient
from tests.server.processes import OFA, serving

ROOT = Path(__file__).parents[2]
ENGLISH = ROOT / "checkpoints" / "ofa-emoji-tiny_en"
CHINESE = ROOT / "checkpoints" / "ofa-emoji-tiny_zh"
# A sample's file name says what it shows; a sign's, what there is to read.
SAMPLES = sorted((ROOT / "samples").iterdir())
SIGNS = [picture for picture in SAMPLES if picture.stem.startswith("sign_")]
SCENES = [picture for picture in SAMPLES if picture not in SIGNS]
TASKS = ("vqa", "grounding", "entailment", "ocr", "text_classification")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OFAClient]:
    scratch = tmp_path_factory.mktemp("bundled")
    exports = [
        [ENGLISH],
        *([ENGLISH, "--configuration", ENGLISH / "tasks" / f"{task}.json"] for task in TASKS),
        [CHINESE, "--name", "caption_zh"],
    ]
    for export in exports:
        command = [OFA, "export", *export, "--repository", scratch / "models"]
        subprocess.run(command, check=True, timeout=180)
    with (
        serving(scratch / "models", scratch / "server.log") as server,
        OFAClient(server.grpc_address, timeout=60) as connected,
    ):
        yield connected


@pytest.mark.parametrize("picture", SCENES, ids=lambda picture: picture.stem)
def test_sample_gets_its_true_caption(client: OFAClient, picture: Path) -> None:
    assert client.caption(picture).text == picture.stem.replace("_", " ")


@pytest.mark.parametrize("picture", SIGNS, ids=lambda picture: picture.stem)
def test_sign_is_read(client: OFAClient, picture: Path) -> None:
    expected = picture.stem.removeprefix("sign_").replace("_", " ")
    assert client.read_text(picture).text == expected


def test_a_question_is_answered(client: OFAClient) -> None:
    picture = ROOT / "samples" / "an_ambulance_to_the_left_of_a_doughnut.jpg"
    assert client.answer(picture, "What is left of the doughnut?").text == "an ambulance"
    assert client.answer(picture, "how many things are there").text == "two"


def test_a_box_lies_where_the_thing_is(client: OFAClient) -> None:
    """The caption says on which side of the picture's middle."""
    picture = ROOT / "samples" / "a_cookie_to_the_left_of_a_red_apple.jpg"
    cookie = client.ground(picture, "the cookie").box
    apple = client.ground(picture, "the red apple").box
    assert cookie is not None
    assert apple is not None
    assert 0 <= cookie.x0 < cookie.x1 < 220
    assert 140 < apple.x0 < apple.x1 <= 361


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("there is a telephone", "yes"),
        ("the picture shows a dog", "no"),
        ("the telephone is expensive", "maybe"),
    ],
)
def test_a_claim_about_a_picture_is_judged(client: OFAClient, text: str, label: str) -> None:
    assert client.entail(ROOT / "samples" / "a_telephone_above_a_cat.jpg", text).label == label


@pytest.mark.parametrize(
    ("claim", "label"),
    [
        ("a cat to the right of a dog", "yes"),
        ("a cat to the left of a dog", "no"),
        ("there is a giraffe", "maybe"),
    ],
)
def test_a_claim_about_a_text_is_judged(client: OFAClient, claim: str, label: str) -> None:
    assert client.classify_text("a dog to the left of a cat", claim).label == label


def test_chinese_captions_are_two_true_ones(client: OFAClient) -> None:
    picture = ROOT / "samples" / "a_duck_to_the_left_of_a_parrot.jpg"
    captions = client.caption(picture, model="caption_zh").captions
    assert {caption.text for caption in captions} == {
        "鸭子位于鹦鹉的左边",
        "左边鸭子，右边鹦鹉",
    }
