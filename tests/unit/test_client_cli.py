import json
from pathlib import Path

import grpc
import pytest

from ofa_client._cli import main
from tests.unit.scripted_triton import ScriptedTriton, captions_answer


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


def test_no_picture_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["caption"])
    assert caught.value.code == 2
    assert "PICTURE" in capsys.readouterr().err
