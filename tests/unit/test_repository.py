import json
from pathlib import Path

import numpy as np
import pytest

from ofa.tasks.captioning import CaptioningTask
from ofa.tasks.task import TaskTensors
from ofa.tasks.visual_question_answering import VisualQuestionAnsweringTask
from ofa_server.errors import ServerError
from ofa_server.installation import STAND_INS
from ofa_server.model_configs import read_config
from ofa_server.repository import add_warmup, staged_export, version_of
from ofa_server.versions import (
    ENSEMBLE,
    MANIFEST,
    complete_versions,
    model_folders,
    served_version,
)
from tests.unit import tiny

TEMPLATE = STAND_INS.parent / "model_repository"
MEMBERS = ("preprocess", "generator", "postprocess")
TENSORS = CaptioningTask.tensors_for(tiny.make_settings(CaptioningTask))


def export(
    repository: Path,
    name: str,
    mark: str,
    version: int | None = None,
    tensors: TaskTensors = TENSORS,
    **facts: object,
) -> None:
    """An export as far as the repository is concerned; `mark` stands for the weights."""
    manifest = {"task": "captioning", "language": "en", "device": "cpu", "input_shapes": {}}
    with staged_export(repository, name, tensors, version=version) as models:
        (version_of(models["generator"]) / "model.pt").write_text(mark)
        text = json.dumps(manifest | facts)
        (version_of(models[ENSEMBLE]) / MANIFEST).write_text(text)


def contents(repository: Path) -> dict[str, bytes]:
    files = (file for file in repository.rglob("*") if file.is_file())
    return {str(file.relative_to(repository)): file.read_bytes() for file in files}


def test_names_of_models_and_steps_follow_the_name_of_the_export(tmp_path: Path) -> None:
    export(tmp_path, "birds-v2", "weights")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        "birds-v2",
        "birds-v2_generator",
        "birds-v2_postprocess",
        "birds-v2_preprocess",
    ]
    written = (tmp_path / "birds-v2" / "config.pbtxt").read_text()
    committed = (TEMPLATE / "caption" / "config.pbtxt").read_text()
    for member in MEMBERS:
        assert f'model_name: "birds-v2_{member}"' in written
        written = written.replace(f'"birds-v2_{member}"', f'"{member}"')
    assert written == committed  # comments and all


def test_two_names_live_side_by_side(tmp_path: Path) -> None:
    export(tmp_path, "one", "weights of one")
    before = contents(tmp_path)
    export(tmp_path, "two", "weights of two")
    after = contents(tmp_path)
    assert before.items() < after.items()


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    export(tmp_path, "caption", "old")
    (version_of(tmp_path / "caption_generator") / "stale").touch()
    export(tmp_path, "caption", "new")
    assert (tmp_path / "caption_generator" / "1" / "model.pt").read_text() == "new"
    assert not (tmp_path / "caption_generator" / "1" / "stale").exists()


def test_a_version_is_added_beside_the_others_and_does_not_answer(tmp_path: Path) -> None:
    export(tmp_path, "caption", "one")
    before = contents(tmp_path)
    export(tmp_path, "caption", "two", version=2)
    after = contents(tmp_path)
    assert before.items() < after.items()
    added = after.keys() - before.keys()
    assert {Path(name).parts[1] for name in added} == {"2"}
    assert {Path(name).parts[0] for name in added} == {
        folder.name for folder in model_folders(tmp_path, "caption").values()
    }
    assert complete_versions(model_folders(tmp_path, "caption")) == [1, 2]
    assert served_version(read_config(tmp_path / "caption")) == 1
    assert not list(tmp_path.glob("**/.*"))


def test_a_first_export_can_have_any_number(tmp_path: Path) -> None:
    export(tmp_path, "caption", "seven", version=7)
    assert complete_versions(model_folders(tmp_path, "caption")) == [7]
    assert served_version(read_config(tmp_path / "caption")) == 7


def test_what_would_harm_other_versions_is_refused(tmp_path: Path) -> None:
    export(tmp_path, "caption", "one")
    export(tmp_path, "caption", "two", version=2)
    before = contents(tmp_path)
    for version, reason in (
        (None, "caption has the versions 1, 2; --version N adds another"),
        (2, "caption has a version 2 already"),
        (0, "versions are numbered from 1"),
    ):
        with pytest.raises(ServerError, match=reason):
            export(tmp_path, "caption", "three", version=version)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("language", "zh", "its language is zh, that of earlier versions en"),
        ("device", "cuda", "its device is cuda"),
        ("input_shapes", {"patch_images": [3, 96, 96]}, r"its picture size is \[3, 96, 96\]"),
    ],
)
def test_a_version_of_another_kind_is_refused(
    tmp_path: Path, entry: str, value: object, reason: str
) -> None:
    export(tmp_path, "caption", "one")
    before = contents(tmp_path)
    with pytest.raises(ServerError, match=reason):
        export(tmp_path, "caption", "two", version=2, **{entry: value})
    assert contents(tmp_path) == before


def test_a_version_with_other_tensors_is_refused(tmp_path: Path) -> None:
    export(tmp_path, "caption", "one")
    before = contents(tmp_path)
    other = VisualQuestionAnsweringTask.tensors_for(tiny.make_settings(VisualQuestionAnsweringTask))
    reason = "caption would differ from its earlier versions in input; export it under another"
    with pytest.raises(ServerError, match=reason):
        export(tmp_path, "caption", "two", version=2, tensors=other)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("model", "said", "earlier"),
    [
        ("caption", "model_version: 1", "model_version: -1"),
        ("caption_generator", "version_policy: { all {} }", ""),
    ],
)
def test_a_version_is_not_added_where_it_would_answer_at_once(
    tmp_path: Path, model: str, said: str, earlier: str
) -> None:
    export(tmp_path, "caption", "one")
    config = tmp_path / model / "config.pbtxt"
    assert said in config.read_text()
    config.write_text(config.read_text().replace(said, earlier))
    before = contents(tmp_path)
    with pytest.raises(ServerError, match="caption was exported by an earlier release"):
        export(tmp_path, "caption", "two", version=2)
    assert contents(tmp_path) == before


def test_settings_made_by_hand_stay_when_a_version_is_added(tmp_path: Path) -> None:
    export(tmp_path, "caption", "one")
    config = tmp_path / "caption_generator" / "config.pbtxt"
    by_hand = config.read_text().replace("count: 1", "count: 2")
    config.write_text(by_hand)
    export(tmp_path, "caption", "two", version=2)
    assert config.read_text() == by_hand


def test_a_version_that_a_killed_export_left_half_is_replaced(tmp_path: Path) -> None:
    export(tmp_path, "caption", "one")
    (tmp_path / "caption_generator" / "2").mkdir()
    (tmp_path / "caption_generator" / "2" / "half").touch()
    (tmp_path / "caption" / ".export-2").mkdir()
    export(tmp_path, "caption", "two", version=2)
    assert not (tmp_path / "caption_generator" / "2" / "half").exists()
    assert (tmp_path / "caption_generator" / "2" / "model.pt").read_text() == "two"


def export_to_a_full_disk(repository: Path) -> None:
    with staged_export(repository, "caption", TENSORS) as models:
        (version_of(models["generator"]) / "model.pt").write_text("half")
        raise OSError("disk full")


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_export_leaves_everything_as_it_was(tmp_path: Path, exists: bool) -> None:
    if exists:
        export(tmp_path, "caption", "old")
    before = contents(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        export_to_a_full_disk(tmp_path)
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_a_failed_move_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path, "caption", "old")
    before = contents(tmp_path)
    rename = Path.rename

    def fail_at_the_last_model(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".export-") and self.name == "caption_postprocess":
            raise PermissionError("not now")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_at_the_last_model)
    with pytest.raises(PermissionError):
        export(tmp_path, "caption", "new")
    assert contents(tmp_path) == before


def test_what_a_killed_export_left_is_cleared_up(tmp_path: Path) -> None:
    (tmp_path / ".export-caption" / "caption").mkdir(parents=True)
    export(tmp_path, "caption", "weights")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "spaced name", "../up"])
def test_an_odd_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServerError, match="does not do"):
        export(tmp_path, name, "weights")
    assert not contents(tmp_path)


@pytest.mark.parametrize("name", ["caption_generator", "resnet"])
def test_models_of_others_are_not_replaced(tmp_path: Path, name: str) -> None:
    export(tmp_path, "caption", "weights")
    (tmp_path / "resnet" / "1").mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(ServerError, match=f"{name} is in the repository and not from an export"):
        export(tmp_path, name, "weights")
    assert contents(tmp_path) == before


def test_warm_up_files_are_as_triton_reads_them(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text('backend: "python"\n')
    texts = np.array([b"ab", b""], dtype=np.object_)
    add_warmup(tmp_path, {"text": texts, "number": np.array([258], np.int32)})
    assert (tmp_path / "warmup" / "text").read_bytes() == b"\2\0\0\0ab\0\0\0\0"
    assert (tmp_path / "warmup" / "number").read_bytes() == b"\2\1\0\0"
    config = (tmp_path / "config.pbtxt").read_text()
    assert 'key: "text" value { data_type: TYPE_STRING  dims: [2]' in config
    assert 'key: "number" value { data_type: TYPE_INT32  dims: [1]' in config
