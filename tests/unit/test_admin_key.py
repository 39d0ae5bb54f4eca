from __future__ import annotations

from pathlib import Path

import pytest

from ofa_server.admin_key import read_admin_key
from ofa_server.errors import ServerError


@pytest.mark.parametrize("key", ["0123456789abcdef", "c2VjcmV0IHNlY3JldA==", "a" * 256])
def test_a_key_is_what_stands_in_the_file(tmp_path: Path, key: str) -> None:
    file = tmp_path / "key"
    file.write_text(f"{key}\n")
    assert read_admin_key(file) == key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has 0 characters"),
        ("short", "has 5 characters"),
        ("a" * 257, "has 257 characters"),
        ("0123456789abcdef,model-config", "some that do not do"),
        ("0123456789 abcdef", "some that do not do"),
        ("0123456789abcdefé", "is not ASCII"),
    ],
)
def test_what_cannot_be_a_key_is_refused_without_being_shown(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "key"
    file.write_text(content, "utf-8")
    with pytest.raises(ServerError, match=message) as caught:
        read_admin_key(file)
    assert not content or content not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"nowhere: No such file or directory"):
        read_admin_key(tmp_path / "nowhere")


def test_without_a_file_every_server_has_a_key_of_its_own() -> None:
    first, second = read_admin_key(None), read_admin_key(None)
    assert first != second
    assert len(first) >= 40
