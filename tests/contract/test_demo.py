"""The demo's requests are ones that can be asked, and its sheet shows all that was answered."""

import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ofa.tasks import TASKS
from ofa_client import Box, OFAClient
from training.vocabulary import chinese_tokenizer

ROOT = Path(__file__).parents[2]
REQUESTS = ROOT / "examples" / "requests.json"
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/demo.py, imported as running it does."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("demo")


def test_every_request_can_be_asked(demo: ModuleType) -> None:
    ensembles = {task.ensemble for task in TASKS.values()}
    requests = demo.read_requests(REQUESTS, ROOT / "samples")
    for request in requests:
        picture = {"image": request.picture} if request.picture else {}
        method = getattr(OFAClient, request.verb)
        inspect.signature(method).bind(OFAClient(), **picture, **request.texts)
        assert request.picture is None or request.picture.is_file()
        assert request.ensemble.removesuffix("_zh") in ensembles
    calls = json.loads(REQUESTS.read_text("utf-8"))
    assert len(requests) == sum(map(len, calls.values())) + len(calls["caption"])


def test_the_sheet_has_a_picture_once_with_its_boxes_and_all_notes(
    demo: ModuleType, tmp_path: Path
) -> None:
    picture = tmp_path / "blue.png"
    Image.new("RGB", (256, 256), BLUE).save(picture)
    caption = demo.Request("caption", "caption", {}, picture)
    ground = demo.Request("ground", "grounding", {"text": "the sky"}, picture)
    summarize = demo.Request("summarize", "summarization", {"text": "a story"}, None)
    box = Box(50, 60, 200, 100, -1.0, (-1.0,) * 4)
    answered = [
        demo.Answered(caption, "a sky"),
        demo.Answered(ground, "(50 60 200 100)", (box,)),
        demo.Answered(summarize, "story"),
    ]
    pictured, texts = demo.make_tiles(answered)
    assert [note.heading for note in pictured.notes] == ["caption", "grounding: the sky"]
    assert [note.text for note in pictured.notes] == ["a sky", "(50 60 200 100)"]
    assert texts.picture is None
    assert [note.heading for note in texts.notes] == ["summarization: a story"]

    sheet = np.asarray(demo.draw_contact_sheet([pictured, texts]))
    rows, columns = np.nonzero((sheet == RED).all(axis=-1))
    left, top = columns.min() - 50, rows.min() - 60
    assert (columns.max() - left, rows.max() - top) == (200, 100)
    assert (sheet[top : top + 50, left : left + 256] == BLUE).all()
    below, beside = sheet[top + 256 :, left : left + 256], sheet[:, left + 256 :]
    for notes in (below, beside):
        assert (notes < 100).all(axis=-1).any(), "no text"
    assert (sheet[[0, -1]] == 255).all()
    assert (sheet[:, [0, -1]] == 255).all()


def test_the_sheet_can_show_all_that_the_chinese_checkpoint_can_write(demo: ModuleType) -> None:
    font = importlib.import_module("contact_sheet").CHINESE_FONT
    unknown = bytes(font.getmask("\uffff"))
    vocabulary = chinese_tokenizer().get_vocab()
    characters = [token for token in vocabulary if len(token) == 1]
    assert len(characters) > 400
    assert [each for each in characters if bytes(font.getmask(each)) == unknown] == []


def test_a_row_is_as_high_as_its_highest_tile(demo: ModuleType) -> None:
    sheet_module = importlib.import_module("contact_sheet")
    short = sheet_module.Tile(Image.new("RGB", (256, 256), BLUE), [])
    long = short._replace(notes=[sheet_module.Note("asked", "many words " * 50)])
    sheet = np.asarray(demo.draw_contact_sheet([long, short, short, short, short]))
    blue_rows = np.nonzero((sheet == BLUE).all(axis=-1).any(axis=1))[0]
    text_rows = np.nonzero((sheet < 100).all(axis=-1).any(axis=1))[0]
    second_picture = blue_rows[np.nonzero(np.diff(blue_rows) > 1)[0][0] + 1]
    assert text_rows.max() < second_picture
    assert len(blue_rows) == 2 * 256
