"""`ofa export` as a command."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.processes import OFA, STOP_DEADLINE_S, wait_until
from tests.unit.test_repository import contents


def test_the_manifest_says_what_was_exported(checkpoint: Path, repository: Path) -> None:
    manifest = json.loads((repository / "caption" / "1" / "manifest.json").read_text())
    weights = (checkpoint / "pytorch_model.bin").read_bytes()
    assert manifest["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert manifest["checkpoint"] == "small"
    assert manifest["name"] == "caption"
    assert (manifest["task"], manifest["language"]) == ("image-captioning", "en")
    assert manifest["num_labels"] == 0
    assert manifest["precision"] == "float32"
    assert manifest["limits"] == {"max_beam_size": 5, "max_length": 12}
    assert manifest["input_shapes"]["patch_images"] == [3, 96, 96]
    assert manifest["versions"]["torch"].startswith("2.")


def test_a_task_can_be_named_and_names_the_models(checkpoint: Path, tmp_path: Path) -> None:
    command = [OFA, "export", checkpoint, "--repository", tmp_path, "--task", "summarization"]
    subprocess.run(command, check=True, timeout=180)
    members = {f"summarization_{member}" for member in ("preprocess", "generator", "postprocess")}
    assert {folder.name for folder in tmp_path.iterdir()} == {"summarization", *members}
    manifest = json.loads((tmp_path / "summarization" / "1" / "manifest.json").read_text())
    assert manifest["task"] == "text-summarization"
    assert "patch_images" not in manifest["input_shapes"]


def test_a_narrow_export_says_so_and_is_smaller(
    checkpoint: Path, repository: Path, tmp_path: Path
) -> None:
    command = [OFA, "export", checkpoint, "--repository", tmp_path, "--precision", "bfloat16"]
    subprocess.run(command, check=True, timeout=180)
    manifest = json.loads((tmp_path / "caption" / "1" / "manifest.json").read_text())
    assert manifest["precision"] == "bfloat16"
    model = Path("caption_generator") / "1" / "model.pt"
    assert (tmp_path / model).stat().st_size < (repository / model).stat().st_size


def failed_export(*arguments: str | Path) -> str:
    completed = subprocess.run(
        [OFA, "export", *arguments], capture_output=True, text=True, timeout=180, check=False
    )
    assert completed.returncode == 1
    [sentence] = completed.stderr.splitlines()
    return sentence


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    sentence = failed_export(folder, "--repository", tmp_path / "models")
    assert sentence == "ofa export: empty: config.json is missing"
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--max-beam-size", "4", "beam size is 4"),
        ("--max-length", "0", "length is 0"),
        ("--instances", "0", "--instances 0 does not do; CPUs take 1 or more"),
    ],
)
def test_a_number_below_its_bound_is_refused(
    checkpoint: Path, tmp_path: Path, flag: str, value: str, reason: str
) -> None:
    sentence = failed_export(checkpoint, "--repository", tmp_path, flag, value)
    assert reason in sentence
    assert not list(tmp_path.iterdir())


def test_an_interrupted_export_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    export = subprocess.Popen([OFA, "export", checkpoint, "--repository", tmp_path])
    try:
        wait_until(lambda: bool(list(tmp_path.glob(".export-*"))), "an export", STOP_DEADLINE_S)
        export.send_signal(signal.SIGTERM)
        assert export.wait(STOP_DEADLINE_S) == 128 + signal.SIGTERM
    finally:
        export.kill()
    assert not list(tmp_path.iterdir())


def truncated(folder: Path) -> None:
    weights = folder / "pytorch_model.bin"
    os.truncate(weights, weights.stat().st_size // 2)


def of_another_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 768}')


def of_another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["encoder_layers"] -= 1
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncated, "pytorch_model.bin is not a weight file that can be read safely"),
        (of_another_kind, "config.json: this is a model of the type bert; ofa is meant"),
        (of_another_size, "unknown tensors, such as encoder."),
    ],
)
def test_a_bad_checkpoint_is_said_and_changes_nothing(
    checkpoint: Path,
    repository: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(checkpoint, folder)
    spoil(folder)
    before = contents(repository)
    sentence = failed_export(folder, "--repository", repository)
    assert sentence.startswith("ofa export: bad: ")
    assert reason in sentence
    assert contents(repository) == before


@pytest.mark.parametrize("version", [[], ["--version", "2"]])
def test_a_full_disk_is_said_and_changes_nothing(
    checkpoint: Path, repository: Path, version: list[str]
) -> None:
    """No file may grow beyond 1 MB, which is what a disk is like that has so much left."""
    before = contents(repository)
    limited = 'ulimit -f 1024; exec "$@"'
    export = [OFA, "export", checkpoint, "--repository", repository, *version]
    completed = subprocess.run(
        ["bash", "-c", limited, "bash", *export],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stderr == f"ofa export: {repository} cannot be written: File too large\n"
    assert contents(repository) == before


def test_a_repository_that_cannot_be_made_is_said(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, reason in (("file", "File exists"), ("file/models", "Not a directory")):
        where = tmp_path / folder
        sentence = failed_export(checkpoint, "--repository", where)
        assert sentence == f"ofa export: {where} cannot be written: {reason}"


def test_what_cannot_be_portable_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    for precision in ("float16", "int8"):
        sentence = failed_export(
            checkpoint, "--repository", tmp_path, "--portable", "--precision", precision
        )
        assert f"--portable and --precision {precision} exclude each other" in sentence
    assert not list(tmp_path.iterdir())


def test_a_portable_export_says_so(checkpoint: Path, repository: Path, tmp_path: Path) -> None:
    command = [OFA, "export", checkpoint, "--repository", tmp_path, "--portable"]
    subprocess.run([*command, "--precision", "float32"], check=True, timeout=180)

    def operators(folder: Path) -> list[str]:
        manifest = json.loads((folder / "caption" / "1" / "manifest.json").read_text())
        return [str(name) for name in manifest["operators"]]

    assert operators(tmp_path) == []
    assert "mkldnn::_linear_pointwise" in operators(repository)
