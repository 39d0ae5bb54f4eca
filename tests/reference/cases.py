"""What is asked of the reference: checkpoint, settings and pictures of every recording."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests.reference.checkpoints import RECIPES, Calibration, digest, write_checkpoint
from tests.reference.draw_pictures import FOLDER as PICTURES

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "checkpoints" / "ofa-emoji-tiny_en"
SAMPLES = ROOT / "samples"

# Cases that turn on a margin below 2e-5 nat, where rounding may decide otherwise: "case/picture".
TIES: frozenset[str] = frozenset()

ALL_PICTURES = tuple(sorted(path.name for path in PICTURES.iterdir()))
THREE_PICTURES = ("scene.jpg", "turned.jpg", "palette.png")
PUBLISHED_SEARCH = {"beam_size": 5, "max_len_b": 16, "min_len": 1, "no_repeat_ngram_size": 3}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording.

    Attributes:
        name: File name of the recording.
        checkpoint: Name of a recipe; empty for the checkpoint that the project ships.
        settings: The `model` block of `configuration.json`; a shipped checkpoint has its own.
        pictures: File names in `picture_folder`.
        picture_folder: Where the pictures are.
    """

    name: str
    checkpoint: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pictures: tuple[str, ...] = THREE_PICTURES
    picture_folder: Path = PICTURES

    @property
    def size(self) -> str:
        """What `make parity PARITY_SIZES=…` calls it: tiny, small, base, large or bundled."""
        return self.checkpoint.partition("-")[0] or "bundled"

    def prepare(self, scratch: Path) -> Path:
        """The checkpoint's folder, built below `scratch` unless it ships with the project."""
        if not self.checkpoint:
            return BUNDLED
        recipe = RECIPES[self.checkpoint]
        folder = scratch / self.name
        write_checkpoint(folder, recipe, Calibration.load(recipe), self.settings)
        return folder


def weights_sha256(folder: Path) -> str:
    """The digest of a checkpoint folder's stored weights."""
    path = folder / "pytorch_model.bin"
    return digest(torch.load(path, weights_only=True, mmap=True))


def _search(name: str, checkpoint: str = "small", **beam_search: Any) -> Case:
    """A case whose `beam_search` block differs from the published one."""
    return Case(name, checkpoint, {"beam_search": {**PUBLISHED_SEARCH, **beam_search}})


CASES = {
    case.name: case
    for case in (
        Case("tiny", "tiny", {"beam_search": PUBLISHED_SEARCH}, ALL_PICTURES),
        Case("base", "base", {"beam_search": PUBLISHED_SEARCH}),
        Case("large", "large", {"beam_search": PUBLISHED_SEARCH}, ("scene.jpg", "turned.jpg")),
        Case(
            "bundled",
            "",
            pictures=tuple(sorted(path.name for path in SAMPLES.iterdir())),
            picture_folder=SAMPLES,
        ),
        _search("beam-1", beam_size=1),
        _search("beam-2", beam_size=2),
        _search("beam-12", beam_size=12),
        _search("length-penalty-0", len_penalty=0.0),
        _search("length-penalty-0.6", len_penalty=0.6),
        _search("length-penalty-1.8", len_penalty=1.8),
        _search("ngram-0", no_repeat_ngram_size=0),
        _search("ngram-1", no_repeat_ngram_size=1),
        _search("ngram-2", no_repeat_ngram_size=2),
        _search("temperature-0.7", temperature=0.7),
        _search("temperature-1.6", temperature=1.6),
        _search("max-length-1", max_len_b=1),
        _search("max-length-40", max_len_b=40),
        _search("min-length-0", min_len=0),
        _search("min-length-9", min_len=9),
        _search("exact-length-4", min_len=4, max_len_b=4),
        _search("length-by-prompt", max_len_a=1.3, max_len_b=1),
        _search("match-source-length", match_source_len=True),
        _search("unnormalized", normalize_scores=False),
        # A penalty below zero makes the unknown token likelier than any other.
        _search("unknown-wanted", unk_penalty=-41.0),
        Case("defaults", "small"),
        Case("three-captions", "small", {"num_return_sequences": 3}),
        Case("imagenet-statistics", "small", {"imagenet_default_mean_and_std": True}),
        Case("256-pixels", "small", {"patch_image_size": 256}),
        Case("672-pixels", "small", {"patch_image_size": 672}),
        Case("other-prompt", "small", {"prompt": "  What's on the naïve 日本 plate, <bin_1000>?"}),
        Case("cut-prompt", "small", {"max_src_length": 3}),
        Case("shared-bias", "small-shared-bias"),
        Case("interpolated", "small-interpolated"),
        Case("float16", "small-float16"),
        Case(
            "everything",
            "small-shared-bias",
            {
                "beam_search": {
                    "beam_size": 7,
                    "max_len_a": 0.5,
                    "max_len_b": 18,
                    "min_len": 3,
                    "no_repeat_ngram_size": 2,
                    "len_penalty": 0.8,
                    "temperature": 0.9,
                    "unk_penalty": 0.5,
                },
                "num_return_sequences": 3,
                "imagenet_default_mean_and_std": True,
                "patch_image_size": 384,
                "prompt": " what is on the plate?",
            },
        ),
    )
}
