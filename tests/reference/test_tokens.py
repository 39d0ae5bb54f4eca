"""Token ids and texts are the reference tokenizer's."""

import json
from pathlib import Path
from typing import Any

import pytest

from ofa.tokenizer import EnglishTokenizer
from tests.reference.golden import FOLDER
from tests.reference.vocabulary import write_vocabulary

RECORDED: dict[str, Any] = json.loads((FOLDER / "tokens.json").read_text(encoding="utf-8"))


@pytest.fixture(params=RECORDED)
def num_entries(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tokenizer(num_entries: str, tmp_path: Path) -> EnglishTokenizer:
    write_vocabulary(tmp_path, int(num_entries))
    return EnglishTokenizer(tmp_path)


def test_ids_match(tokenizer: EnglishTokenizer, num_entries: str) -> None:
    for text, ids in RECORDED[num_entries]["ids"]:
        assert tokenizer.encode(text, 256)[1:-1] == ids, text


def test_texts_match(tokenizer: EnglishTokenizer, num_entries: str) -> None:
    for ids, text in RECORDED[num_entries]["texts"]:
        assert tokenizer.decode(ids) == text, ids
