"""`ofa-client caption … --out FILE`: what a run writes, leaves out, and goes on from."""

import dataclasses
import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import hypothesis
import pytest
from hypothesis import strategies as st

from ofa_client import Caption, CaptioningResult, InvalidImageError, _cli
from ofa_client._bulk import ask_all, unanswered
from ofa_client._bulk_journal import Journal, JournalError
from ofa_client._cli import main
from tests.unit.scripted_triton import ScriptedTriton, Tensors, captions_answer

DEADLINE_S = 30


def caption(image_bytes: bytes) -> CaptioningResult:
    """A caption of the content; what starts with "broken" has none."""
    if image_bytes.startswith(b"broken"):
        raise InvalidImageError("image is broken")
    return CaptioningResult((Caption(image_bytes.decode(), -0.5, (-0.5,)),))


def run(
    names: Iterable[str],
    out: Path,
    ask: Callable[[bytes], CaptioningResult] = caption,
    concurrency: int = 1,
) -> None:
    with Journal(out, "captions") as journal:
        for _ in ask_all(unanswered(names, None, journal), journal, ask, concurrency):
            pass


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def by_image(out: Path) -> dict[str, dict[str, Any]]:
    """What each line says by its picture; no picture has two."""
    found = {entry["image"]: entry for entry in entries(out)}
    assert len(found) == len(entries(out))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_pictures(folder: Path, **contents: str) -> list[str]:
    """Picture files that hold these texts; return their names."""
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_text(content)
    names = [folder / f"{name}.jpg" for name in contents]
    return [str(name.relative_to(Path.cwd())) for name in names]


def test_every_picture_has_one_line(folder: Path) -> None:
    names = write_pictures(folder, a="apple", b="broken", c="cherry", d="apple")
    run(["missing.jpg", *names, names[0]], folder / "out.jsonl")
    sha256 = {text: hashlib.sha256(text.encode()).hexdigest() for text in ("apple", "cherry")}
    captions = {text: [{"text": text, "score": -0.5}] for text in sha256}
    message = "image 'missing.jpg' cannot be read: No such file or directory"
    assert entries(folder / "out.jsonl") == [
        {"image": "missing.jpg", "error": {"code": "INVALID_ARGUMENT", "message": message}},
        {"image": names[0], "sha256": sha256["apple"], "captions": captions["apple"]},
        {
            "image": names[1],
            "error": {"code": "INVALID_ARGUMENT", "message": "image is broken"},
        },
        {"image": names[2], "sha256": sha256["cherry"], "captions": captions["cherry"]},
        {
            "image": names[3],
            "sha256": sha256["apple"],
            "duplicate_of": names[0],
            "captions": captions["apple"],
        },
    ]


def test_a_name_that_is_not_text_is_kept_as_it_is(folder: Path) -> None:
    name = "\udcff\n\"'鸭.jpg"
    (folder / name).write_text("duck")
    asked = []

    def ask(image_bytes: bytes) -> CaptioningResult:
        asked.append(image_bytes)
        return caption(image_bytes)

    run([str(folder)], folder / "out.jsonl", ask)
    run([str(folder)], folder / "out.jsonl", ask)
    assert [entry["image"] for entry in entries(folder / "out.jsonl")] == [str(folder / name)]
    assert asked == [b"duck"]


def test_a_content_is_asked_about_once_even_while_its_answer_is_under_way(folder: Path) -> None:
    names = write_pictures(folder, **{f"p{number}": "same" for number in range(8)})
    asked = []
    is_read = threading.Semaphore(0)

    def ask(image_bytes: bytes) -> CaptioningResult:
        asked.append(image_bytes)
        for _ in range(3):  # until the other threads have their pictures
            assert is_read.acquire(timeout=DEADLINE_S)
        return caption(image_bytes)

    def read_names() -> Iterable[str]:
        for name in names:
            is_read.release()
            yield name

    with Journal(folder / "out.jsonl", "captions") as journal:
        list(ask_all(read_names(), journal, ask, concurrency=4))
    assert asked == [b"same"]
    found = entries(folder / "out.jsonl")
    assert {entry["image"] for entry in found} == set(names)
    assert "duplicate_of" not in found[0]
    assert {entry["duplicate_of"] for entry in found[1:]} == {found[0]["image"]}


def test_a_failure_is_no_answer_for_a_duplicate(folder: Path) -> None:
    names = write_pictures(folder, a="same", b="same")
    asked = []

    def fail_first(image_bytes: bytes) -> CaptioningResult:
        asked.append(image_bytes)
        if len(asked) == 1:
            raise InvalidImageError("not now")
        return caption(image_bytes)

    run(names, folder / "out.jsonl", fail_first)
    failed, answered = entries(folder / "out.jsonl")
    assert failed["error"]["message"] == "not now"
    assert "duplicate_of" not in answered


def check_resumed(
    contents: list[str], folder: Path, cuts: Callable[[bytes], Iterable[int]]
) -> None:
    """A run that was killed when it had written so many bytes, and goes on, is as a whole one."""
    names = write_pictures(folder, **{f"p{n}": text for n, text in enumerate(contents)})
    out = folder / "out.jsonl"
    out.unlink(missing_ok=True)
    run(names, out)
    whole = out.read_bytes()
    for num_bytes in cuts(whole):
        out.write_bytes(whole[:num_bytes])
        run(names, out)
        assert sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines()), num_bytes


def test_a_run_killed_at_any_byte_and_resumed_has_the_lines_of_a_whole_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a disk takes long over that
    check_resumed(["apple", "broken", "apple", "猫"], folder, lambda whole: range(len(whole) + 1))


@hypothesis.given(
    contents=st.lists(st.sampled_from(["apple", "pear", "broken", "broken too", "猫"]), min_size=1),
    part=st.floats(0, 1),
)
@hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_any_run_killed_anywhere_and_resumed_has_the_lines_of_a_whole_one(
    contents: list[str], part: float, folder: Path
) -> None:
    check_resumed(contents, folder, lambda whole: [int(part * len(whole))])


@pytest.mark.parametrize("part", [1, 2, 3, 5, 8])
def test_a_run_of_several_threads_resumed_has_one_line_a_picture(folder: Path, part: int) -> None:
    contents = ["apple", "pear", "broken", "apple", "apple", "fig", "broken", "pear"] * 4
    names = write_pictures(folder, **{f"p{n:02}": text for n, text in enumerate(contents)})
    out = folder / "out.jsonl"
    run(names, out, concurrency=4)
    out.write_bytes(out.read_bytes()[: out.stat().st_size * part // 9])
    run(names, out, concurrency=4)
    found = by_image(out)
    first_of_content = dict[str, str]()
    assert found.keys() == set(names)
    for name, entry in found.items():
        content = Path(name).read_text()
        if content == "broken":
            assert entry["error"]["message"] == "image is broken"
        else:
            assert entry["captions"][0]["text"] == content
            assert entry.get("duplicate_of") == first_of_content.get(content)
            first_of_content.setdefault(content, name)


def test_a_failure_is_tried_again_and_its_line_replaced(folder: Path) -> None:
    names = write_pictures(folder, a="apple", b="pear", c="cherry")
    out = folder / "out.jsonl"

    def refuse_pears(image_bytes: bytes) -> CaptioningResult:
        if image_bytes == b"pear":
            raise InvalidImageError("no pears today")
        return caption(image_bytes)

    run(names, out, refuse_pears)
    assert by_image(out)[names[1]]["error"]["message"] == "no pears today"
    out.chmod(0o640)
    run(names, out)
    assert list(by_image(out)) == [names[0], names[2], names[1]]
    assert by_image(out)[names[1]]["captions"][0]["text"] == "pear"
    assert out.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".jpg") == ["out.jsonl"]


def test_a_duplicate_of_an_earlier_run_is_not_asked_about(folder: Path) -> None:
    names = write_pictures(folder, a="apple")
    run(names, folder / "out.jsonl")
    more = write_pictures(folder, b="apple")
    run([*names, *more], folder / "out.jsonl", lambda _: pytest.fail("asked"))
    assert by_image(folder / "out.jsonl")[more[0]]["duplicate_of"] == names[0]


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        "hello",
        "[]\n",
        '{"image": "a.jpg"}\n',
        '{"image": "a.jpg", "captions": []}\n',
        '{"image": "a.jpg", "sha256": "00", "labels": []}\n',
        '{"image": "a.jpg", broken\n',
        '{"image": "a.jpg", "error": {}}\n{"mine": 1}\n',
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(folder: Path, text: str) -> None:
    out = folder / "out.jsonl"
    out.write_text(text)
    number = len(text.splitlines())
    with pytest.raises(JournalError, match=f"^line {number} of .* has no captions of a picture"):
        Journal(out, "captions")
    assert out.read_text() == text


def test_two_runs_do_not_write_one_file(folder: Path) -> None:
    out = folder / "out.jsonl"
    run(["missing.jpg"], out)
    failure = out.read_bytes()
    with Journal(out, "captions"):
        assert out.read_bytes() == b""
        out.write_bytes(failure)
        with pytest.raises(JournalError, match=r"another run is writing .*out\.jsonl"):
            Journal(out, "captions")
        assert out.read_bytes() == failure
    Journal(out, "captions").close()


def test_a_file_that_cannot_be_written_is_an_error(folder: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read and written"):
        Journal(folder, "captions")
    with pytest.raises(JournalError, match="cannot be read and written"):
        Journal(folder / "missing" / "out.jsonl", "captions")


def content_as_caption(scripted_triton: ScriptedTriton) -> None:
    scripted_triton.answer = lambda request, _: captions_answer(
        [request["image"].item().decode()], [-0.5], [[-0.5]]
    )


def test_the_command_keeps_answers_and_goes_on(
    folder: Path, scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    content_as_caption(scripted_triton)
    photos = folder / "photos"
    photos.mkdir()
    names = write_pictures(photos, a="apple", b="pear", c="apple")
    (folder / "list.txt").write_text("missing.jpg\n")
    command = ["caption", "photos", "@list.txt", "--out", "out.jsonl", "--num-captions", "1"]
    command += ["--server", scripted_triton.address]
    assert main(command) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "out.jsonl: 3 answered, 1 of them duplicates; 1 failed\n"
    found = by_image(folder / "out.jsonl")
    assert {
        name: entry["captions"][0]["text"] for name, entry in found.items() if "error" not in entry
    } == dict(
        zip(
            [f"photos/{Path(name).name}" for name in names], ["apple", "pear", "apple"], strict=True
        )
    )
    assert len(scripted_triton.requests) == 2
    assert scripted_triton.requests[0]["num_captions"].item() == 1

    (folder / "missing.jpg").write_text("found")
    assert main(command) == 0
    assert capsys.readouterr().err == "out.jsonl: 1 answered; 0 failed\n"
    assert by_image(folder / "out.jsonl")["missing.jpg"]["captions"][0]["text"] == "found"
    assert len(scripted_triton.requests) == 3


def test_shards_of_the_command_make_the_whole(
    folder: Path, scripted_triton: ScriptedTriton
) -> None:
    content_as_caption(scripted_triton)
    write_pictures(folder, **{f"p{number}": str(number) for number in range(12)})
    for part in ("1/2", "2/2"):
        out = f"out-{part[0]}.jsonl"
        command = ["caption", "p*.jpg", "--out", out, "--shard", part]
        assert main([*command, "--server", scripted_triton.address]) == 0
    first, second = by_image(folder / "out-1.jsonl"), by_image(folder / "out-2.jsonl")
    assert first
    assert second
    assert sorted([*first, *second]) == sorted(f"p{number}.jpg" for number in range(12))


def test_an_error_that_every_picture_would_meet_ends_the_run(
    folder: Path, scripted_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_triton.fail(
        grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'caption' is not found"
    )
    write_pictures(folder, **{f"p{number}": str(number) for number in range(50)})
    assert main(["caption", ".", "--out", "out.jsonl", "--server", scripted_triton.address]) == 1
    assert (folder / "out.jsonl").read_bytes() == b""
    assert len(scripted_triton.requests) < 50
    error, summary = capsys.readouterr().err.splitlines()
    assert error.startswith("ofa-client: ")
    assert "unknown model: 'caption'" in error
    assert summary == "out.jsonl: 0 answered; 0 failed"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["x*.jpg", "--out", "out.jsonl"], "no file matches x*.jpg"),
        (["@missing.txt", "--out", "out.jsonl"], "No such file or directory: 'missing.txt'"),
        (["a.jpg", "--out", "missing/out.jsonl"], "missing/out.jsonl cannot be read and written"),
    ],
)
def test_what_cannot_be_read_or_written_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(["caption", *given]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        ["--shard", "1/2"],
        ["--concurrency", "4"],
        ["--out", "out.jsonl", "--shard", "3/2"],
        ["--out", "out.jsonl", "--concurrency", "0"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(folder: Path, given: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["caption", "a.jpg", *given])
    assert caught.value.code == 2


@pytest.mark.parametrize("verb", ["classify", "read-text"])
def test_other_verbs_of_pictures_can_do_it_too(
    folder: Path, scripted_triton: ScriptedTriton, verb: str
) -> None:
    name = {"classify": "labels", "read-text": "texts"}[verb]
    answer = captions_answer(["found"], [-0.5], [[-0.5]])
    answer[name] = answer.pop("captions")
    answer["probabilities"] = answer["scores"]
    scripted_triton.answer = lambda *_: answer
    write_pictures(folder, a="apple")
    command = [verb, "a.jpg", "--out", "out.jsonl", "--server", scripted_triton.address]
    assert main(command) == 0
    assert len(by_image(folder / "out.jsonl")["a.jpg"][name]) == 1


def test_ctrl_c_leaves_whole_lines_and_exits_with_130(
    folder: Path, scripted_triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    content_as_caption(scripted_triton)
    write_pictures(folder, **{f"p{number:02}": str(number) for number in range(40)})
    add_answer = Journal.add_answer

    def interrupt(journal: Journal, name: str, *rest: Any) -> bool:
        if len(entries(folder / "out.jsonl")) == 5:
            raise KeyboardInterrupt
        return add_answer(journal, name, *rest)

    command = ["caption", ".", "--out", "out.jsonl", "--server", scripted_triton.address]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add_answer", interrupt)
        assert main(command) == 130
    assert len(by_image(folder / "out.jsonl")) == 5
    assert main(command) == 0
    assert len(by_image(folder / "out.jsonl")) == 40


def run_on_a_terminal(
    sources: list[str], server: ScriptedTriton, monkeypatch: pytest.MonkeyPatch
) -> int:
    """The command over three pictures, of which one has an answer, with a terminal for errors."""
    content_as_caption(server)
    write_pictures(Path.cwd(), a="1", b="2", c="3")
    run(["a.jpg"], Path("out.jsonl"))
    # On the stream of this moment: capsys has another one while fixtures are made.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    return main(["caption", *sources, "--out", "out.jsonl", "--server", server.address])


def test_a_terminal_shows_progress(
    folder: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_on_a_terminal(["*.jpg"], scripted_triton, monkeypatch) == 0
    last = capsys.readouterr().err.split("\r")[-1]
    assert "| 2/2 [" in last
    assert "pictures/s" in last
    assert "failed=0" in last


def test_a_list_on_standard_input_has_no_end_to_foresee(
    folder: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\nb.jpg\nc.jpg\n")))
    assert run_on_a_terminal(["-"], scripted_triton, monkeypatch) == 0
    assert "2 pictures [" in capsys.readouterr().err
    assert by_image(Path("out.jsonl")).keys() == {"a.jpg", "b.jpg", "c.jpg"}


def test_a_list_from_a_pipe_is_not_read_to_be_counted(
    folder: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a.jpg\nb.jpg\nc.jpg\n")
    os.close(writing)
    try:
        assert run_on_a_terminal([f"@/dev/fd/{reading}"], scripted_triton, monkeypatch) == 0
    finally:
        os.close(reading)
    assert "2 pictures [" in capsys.readouterr().err
    assert by_image(Path("out.jsonl")).keys() == {"a.jpg", "b.jpg", "c.jpg"}


def test_without_tqdm_there_is_no_bar(
    folder: Path,
    scripted_triton: ScriptedTriton,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run_on_a_terminal(["*.jpg"], scripted_triton, monkeypatch) == 0
    assert capsys.readouterr().err == "out.jsonl: 2 answered; 0 failed\n"


def test_a_run_waits_for_a_busy_server(
    folder: Path, scripted_triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = dataclasses.replace(_cli._PATIENCE, max_backoff=0.0)
    monkeypatch.setattr(_cli, "_PATIENCE", impatient)

    def busy_at_first(request: Tensors, context: grpc.ServicerContext) -> Tensors:
        if len(scripted_triton.requests) < 7:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        return captions_answer(["found"], [-0.5], [[-0.5]])

    scripted_triton.answer = busy_at_first
    write_pictures(folder, a="apple")
    command = ["caption", "a.jpg", "--out", "out.jsonl", "--server", scripted_triton.address]
    assert main(command) == 0
    assert len(scripted_triton.requests) == 7
