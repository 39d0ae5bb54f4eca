"""Reading the VQGAN and the CLIP of a text-to-image checkpoint."""

import gzip
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ofa.checkpoint import load_checkpoint
from ofa.errors import CheckpointError
from ofa.export import export_generator
from ofa.generation.image_generator import ImageGenerator
from ofa.model import OFAModel
from ofa.synthesis import load_clip, load_vqgan
from ofa.torchscript_archive import read_tensors
from tests.unit import tiny, tiny_drawing
from tests.unit.rows import make_request


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A checkpoint; not to be changed."""
    folder = tmp_path_factory.mktemp("drawing")
    tiny_drawing.write_checkpoint(folder, tiny_drawing.make_model(), tokenizer_folder)
    return folder


@pytest.fixture
def folder(whole_folder: Path, tmp_path: Path) -> Path:
    """A test's own, to break as it likes."""
    return Path(shutil.copytree(whole_folder, tmp_path / "ofa_drawing"))


def change_json(path: Path, **changes: Any) -> None:
    """Set values in the innermost object of a configuration."""
    values = json.loads(path.read_text())
    inner = values["model"]
    inner = inner["params"] if "params" in inner else inner["beam_search"]
    for key, value in changes.items():
        target = inner["ddconfig"] if key in inner.get("ddconfig", {}) else inner
        target[key] = value
    path.write_text(json.dumps(values))


def change_clip(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = tiny_drawing.make_clip().state_dict()
    change(tensors)
    tiny_drawing.write_clip(path, tensors)


def test_weights_are_read(folder: Path) -> None:
    vqgan, clip = tiny_drawing.make_vqgan(), tiny_drawing.make_clip()
    for loaded, expected, dtype in (
        (load_vqgan(folder), vqgan, torch.float32),
        (load_clip(folder), clip, torch.float16),
    ):
        state = loaded.state_dict()
        assert not loaded.training
        assert state.keys() == expected.state_dict().keys()
        for name, tensor in expected.state_dict().items():
            assert torch.equal(state[name], tensor.to(dtype).float())


def test_a_checkpoint_draws_as_many_pictures_as_its_folder_says(
    folder: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(folder)
    assert isinstance(checkpoint.build_generator(), ImageGenerator)
    limits = checkpoint.default_limits()
    report = export_generator(checkpoint, tmp_path / "model.pt", limits)
    size = tiny_drawing.PICTURE_SIZE
    assert report.example_outputs["pixels"].shape == (3, 3, size, size)
    assert report.example_outputs["image_scores"].shape == (3,)
    task = checkpoint.build_task(limits)
    answer = task.postprocess({**report.example_outputs, **report.example_row})
    assert [bytes(png[:4]) for png in answer["images"]] == [b"\x89PNG"] * 3
    assert task.preprocess(make_request(text="a"))["num_hypotheses"] == 3


@pytest.mark.parametrize(
    "name", ["vqgan_config.json", "vqgan_model.ckpt", "ViT-B-16.pt", "bpe_simple_vocab_16e6.txt.gz"]
)
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_missing_or_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    (folder / name).unlink()
    if damage == "garbage":
        (folder / name).write_bytes(b"\x00garbage" * 100)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder).build_generator()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_embed": 4096}, "n_embed is 4096|embed.weight has shape"),
        ({"ch": 48}, "ch must be a multiple of 32, got 48"),
        ({"ch_mult": []}, "ch_mult is empty"),
        ({"ch_mult": "1,2"}, "ch_mult must be a list of positive integers, got '1,2'"),
        ({"z_channels": 0}, "z_channels must be a positive integer, got 0"),
        ({"out_ch": 1}, "out_ch=1 is not supported"),
        ({"num_res_blocks": 2}, r"vqgan_model.ckpt lacks the tensor decoder.up.3.block.2.norm1"),
        ({"embed_dim": 4}, r"embed.weight has shape \[8192, 8\]; the architecture asks for"),
        ({"remap": "codes.npy"}, "remap='codes.npy' is not supported"),
        ({"ddconfig": 3}, "ddconfig must be an object, got 3"),
    ],
)
def test_a_vqgan_that_does_not_fit_is_refused(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    change_json(folder / "vqgan_config.json", **change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder).build_generator()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("visual.proj"), "only CLIP models with a vision transformer"),
        (lambda tensors: tensors.pop("ln_final.bias"), "lacks the tensor ln_final.bias"),
        (lambda tensors: tensors.pop("text_projection"), "not CLIP's: 'text_projection'"),
        (
            lambda tensors: tensors.update({"positional_embedding": torch.zeros(40, 64)}),
            "context_length is 40; the tokenizer asks for 77",
        ),
        (
            lambda tensors: tensors.update({"token_embedding.weight": torch.zeros(9, 64)}),
            "vocab_size is 9; the tokenizer asks for 521",
        ),
    ],
)
def test_a_clip_that_does_not_fit_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change_clip(folder / "ViT-B-16.pt", change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder).build_generator()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_len_b": 17}, "max_len_b is 17; with these codes .* it must be 16"),
        ({"min_len": 3}, "min_len is 3"),
        ({"max_len_a": 1.0}, "max_len_a is 1.0"),
        ({"match_source_len": True}, "match_source_len is True"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size is 3; .* it must be 0"),
        ({"constraint_range": "401,500"}, r"constraint_range is \(401, 500\)"),
        ({"gen_code": False}, "gen_code must be true"),
    ],
)
def test_a_search_that_is_not_ours_is_refused(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    change_json(folder / "configuration.json", **change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder).build_generator()


def test_codes_must_stand_within_the_position_table(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "code_image_size": 64}))
    change_json(folder / "configuration.json", max_len_b=64, min_len=64)
    with pytest.raises(CheckpointError, match="code_image_size is 64; the position table allows"):
        load_checkpoint(folder).build_generator()


def test_the_ofasys_layout_has_no_codes(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    with torch.device("meta"):
        model = OFAModel(tiny.make_config(use_ofasys=True))
    with pytest.raises(CheckpointError, match="use_ofasys has no codes"):
        replace(checkpoint, model=model).build_generator()


def test_the_reference_way_to_say_the_same_is_accepted(folder: Path) -> None:
    change_json(folder / "configuration.json", gen_code=True, constraint_range="401,8593")
    load_checkpoint(folder).build_generator()


def test_vocabulary_lines_must_be_pairs(folder: Path) -> None:
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "wt") as file:
        file.write("#version\na b c")
    with pytest.raises(CheckpointError, match="two symbols a line"):
        load_checkpoint(folder).build_generator()


class Named(nn.Module):
    """A module of every kind of attribute that an archive can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.view = nn.Parameter(torch.arange(6.0).view(2, 3).t()[1:])
        self.names = ["a", "b"]
        self.number = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Anything."""
        return self.layers(x) + self.number


def test_an_archive_is_read_like_its_state_dict(tmp_path: Path) -> None:
    module = Named().half()
    torch.jit.script(module).save(str(tmp_path / "module.pt"))  # type: ignore[no-untyped-call]
    tensors = read_tensors(tmp_path / "module.pt")
    expected = module.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    assert tensors["view"].dtype == torch.float16


class Trap:
    """Pickles into a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_what_an_archive_holds_is_not_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with zipfile.ZipFile(folder / "ViT-B-16.pt", "w") as archive:
        archive.writestr("clip/data.pkl", pickle.dumps(Trap(trap), protocol=2))
        archive.writestr("clip/constants.pkl", pickle.dumps(()))
    with pytest.raises(CheckpointError, match="is not a weight file"):
        load_clip(folder)
    assert not trap.exists()
    with pytest.raises(pickle.UnpicklingError, match="mkdir has no place"):
        read_tensors(folder / "ViT-B-16.pt")
