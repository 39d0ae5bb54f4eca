"""What the arguments of a run over many pictures stand for, and how shards share it out."""

import io
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from ofa_client._bulk_names import Shard, name_digest, picture_names


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_stands_for_the_pictures_below_it(folder: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpeg", "a.webp", "b.txt", ".hidden.jpg", ".git/x.jpg", "z.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "b" / "loop").symlink_to(folder)
    expected = ["a.webp", "b/1.jpeg", "b/2.PNG", "z.tif"]
    assert list(picture_names([str(folder)])) == [str(folder / name) for name in expected]
    assert list(picture_names(["b"])) == ["b/1.jpeg", "b/2.PNG"]


def test_a_pattern_stands_for_what_it_matches(folder: Path) -> None:
    for name in ("a/1.jpg", "a/b/2.jpg", "a/b/3.txt", "[1].jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert sorted(picture_names(["a/**/*.jpg"])) == ["a/1.jpg", "a/b/2.jpg"]
    assert list(picture_names(["[1].jpg"])) == ["[1].jpg"]
    with pytest.raises(FileNotFoundError, match=r"no file matches x\*\.jpg"):
        list(picture_names(["x*.jpg"]))


def test_a_list_stands_for_its_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "list.txt").write_bytes("a.jpg\r\n\n b.jpg\n@c.jpg\n鸭.jpg".encode() + b"\n\xff.jpg")
    names = ["a.jpg", " b.jpg", "@c.jpg", "鸭.jpg", "\udcff.jpg"]
    assert list(picture_names(["@list.txt"])) == names
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\nb.jpg\n")))
    assert list(picture_names(["x.jpg", "-"])) == ["x.jpg", "a.jpg", "b.jpg"]
    with pytest.raises(FileNotFoundError):
        list(picture_names(["@missing.txt"]))


def test_anything_else_is_the_name_of_a_picture(folder: Path) -> None:
    names = ["missing.jpg", "https://host/a.jpg?size=*"]
    assert list(picture_names(names)) == names


@hypothesis.given(
    names=st.lists(st.text(), unique=True), count=st.integers(1, 5), more=st.lists(st.text())
)
@hypothesis.settings(deadline=None)
def test_shards_share_out_a_list_that_may_grow(
    names: list[str], count: int, more: list[str]
) -> None:
    def parts(names: list[str]) -> list[set[str]]:
        shards = [Shard.parse(f"{number}/{count}") for number in range(1, count + 1)]
        return [{name for name in names if shard.holds(name_digest(name))} for shard in shards]

    assert sorted(name for part in parts(names) for name in part) == sorted(names)
    for part, grown in zip(parts(names), parts(more + names), strict=True):
        assert part <= grown


def test_shards_are_of_about_the_same_size_and_stay_as_they_are() -> None:
    names = [f"photos/{number}.jpg" for number in range(4000)]
    held = [sum(Shard(part, 4).holds(name_digest(name)) for name in names) for part in (1, 2, 3, 4)]
    assert all(900 < number < 1100 for number in held)
    # Machines of different versions must agree.
    first = [name for name in names[:8] if Shard(1, 4).holds(name_digest(name))]
    assert first == ["photos/2.jpg", "photos/7.jpg"]


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "a/b", "-1/4", "1/4/2", "1.0/2"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a shard is "):
        Shard.parse(text)
