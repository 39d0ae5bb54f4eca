"""Token ids and texts are the reference tokenizers'."""

import json
from pathlib import Path
from typing import Any

import pytest

from ofa.tokenizer import Tokenizer, load_tokenizer
from tests.reference.golden import FOLDER
from tests.reference.vocabulary import write_chinese_vocabulary, write_vocabulary

RECORDED: dict[str, Any] = json.loads((FOLDER / "tokens.json").read_text(encoding="utf-8"))
VOCABULARIES = [(language, size) for language, sizes in RECORDED.items() for size in sizes]
MAX_LENGTH = 256


@pytest.fixture(params=VOCABULARIES, ids="-".join)
def vocabulary(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Language and number of entries."""
    return request.param


@pytest.fixture
def recorded(vocabulary: tuple[str, str]) -> dict[str, Any]:
    language, num_entries = vocabulary
    return RECORDED[language][num_entries]


@pytest.fixture
def tokenizer(vocabulary: tuple[str, str], tmp_path: Path) -> Tokenizer:
    language, num_entries = vocabulary
    write = write_chinese_vocabulary if language == "zh" else write_vocabulary
    write(tmp_path, int(num_entries))
    return load_tokenizer(language, tmp_path)


def test_ids_match(tokenizer: Tokenizer, recorded: dict[str, Any]) -> None:
    for text, ids in recorded["ids"]:
        assert tokenizer.encode(text, MAX_LENGTH)[1:-1] == ids, text


def test_ids_of_special_tokens_match(tokenizer: Tokenizer, recorded: dict[str, Any]) -> None:
    for text, ids in recorded["special_ids"]:
        ours = tokenizer.encode(text, MAX_LENGTH, allow_special_tokens=True)
        assert ours[1:-1] == ids, text
        assert tokenizer.encode(text, MAX_LENGTH)[1:-1] != ids, text


def test_texts_match(tokenizer: Tokenizer, recorded: dict[str, Any]) -> None:
    for ids, text in recorded["texts"]:
        assert tokenizer.decode(ids) == text, ids
