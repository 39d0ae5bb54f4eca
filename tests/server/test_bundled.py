"""The checkpoints that ship, served: what they say of the demo's pictures is true."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_client import OFAClient
from tests.server.processes import OFA, serving
from training.evaluate import overlap

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


def test_most_samples_get_their_true_caption(client: OFAClient) -> None:
    """Word for word; how often it is so on many more pictures stands in the checkpoint's README."""
    captions = {picture: client.caption(picture).text for picture in SCENES}
    right = [p for p, text in captions.items() if text == p.stem.replace("_", " ")]
    assert len(right) >= 2 / 3 * len(SCENES), captions


@pytest.mark.parametrize("picture", SIGNS, ids=lambda picture: picture.stem)
def test_sign_is_read(client: OFAClient, picture: Path) -> None:
    expected = picture.stem.removeprefix("sign_").replace("_", " ")
    assert client.read_text(picture).text == expected


def test_a_question_is_answered(client: OFAClient) -> None:
    picture = ROOT / "samples" / "an_ambulance_to_the_left_of_a_doughnut.jpg"
    assert client.answer(picture, "What is left of the doughnut?").text == "an ambulance"
    assert client.answer(picture, "how many things are there").text == "two"


@pytest.mark.parametrize(
    ("name", "text", "drawn"),
    [
        ("a_bear", "the bear", (37, 170, 216, 331)),
        ("french_fries", "french fries", (78, 89, 255, 270)),
    ],
)
def test_a_box_lies_where_the_thing_was_drawn(
    client: OFAClient, name: str, text: str, drawn: tuple[float, float, float, float]
) -> None:
    box = client.ground(ROOT / "samples" / f"{name}.jpg", text).box
    assert box is not None
    assert overlap((box.x0, box.y0, box.x1, box.y1), drawn) > 0.5


def test_a_claim_that_no_picture_can_settle_is_judged_by_its_premise(client: OFAClient) -> None:
    picture = ROOT / "samples" / "a_magnifying_glass_above_a_frog.jpg"
    assert client.entail(picture, "the frog is old").label == "maybe"
    assert client.entail(picture, "the frog is new", "the frog is old").label == "no"


@pytest.mark.parametrize(
    ("claim", "label"), [("the bear is new", "no"), ("the bear is cheap", "maybe")]
)
def test_a_claim_about_a_text_is_judged(client: OFAClient, claim: str, label: str) -> None:
    assert client.classify_text("the bear is old", claim).label == label


def test_chinese_captions_are_two_true_ones(client: OFAClient) -> None:
    picture = ROOT / "samples" / "a_duck_to_the_left_of_a_parrot.jpg"
    captions = client.caption(picture, model="caption_zh").captions
    assert {caption.text for caption in captions} == {
        "鸭子位于鹦鹉的左边",
        "左边鸭子，右边鹦鹉",
    }
