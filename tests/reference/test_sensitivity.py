"""One thing broken at a time turns parity red: the recordings would notice."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

import ofa.generation.beam_decoder
import ofa.generation.beam_search
import ofa.model.encoder
import ofa.model.vit
import ofa.tasks.task
import ofa.tasks.text_task
import ofa.tasks.visual_grounding
import ofa.tasks.visual_question_answering
from ofa.model.encoder import Encoder
from ofa.model.positions import UnappliedLayerNorm
from ofa.model.vit import QuickGELU, VisionTransformer
from ofa.tokenizer import EnglishTokenizer, Tokenizer
from tests.reference.cases import CASES, Case
from tests.reference.checkpoints import write_configuration
from tests.reference.compare import Gaps, Subject, check_answer, generate, requests_of
from tests.reference.golden import FOLDER, Recording

Break = Callable[[Subject, pytest.MonkeyPatch], None]
"""Changes a loaded checkpoint or the library."""


def _zero(part: str) -> Break:
    """Forget the parameters whose name contains `part`."""

    def apply(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [n for n, _ in subject.checkpoint.model.named_parameters() if part in n]
        assert names
        for name in names:
            subject.checkpoint.model.get_parameter(name).data.zero_()

    return apply


def _swap_heads(module: str) -> Break:
    """Exchange the scales of the first two heads of one attention."""

    def apply(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        scales = subject.checkpoint.model.get_parameter(f"{module}.c_attn").data
        scales[[0, 1]] = scales[[1, 0]]

    return apply


def _rewrite_search(old: str, new: str) -> Break:
    """Run the beam search with one expression of its source replaced."""

    def apply(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        source = inspect.getsource(ofa.generation.beam_search)
        assert source.count(old) == 1, f"the search no longer says {old!r} once"
        broken: dict[str, object] = {"__name__": "broken_search"}
        exec(source.replace(old, new), broken)  # noqa: S102  # our own source
        monkeypatch.setattr(ofa.generation.beam_decoder, "advance", broken["advance"])

    return apply


def _replace(owner: object, name: str, value: object) -> Break:
    """Put something else in the place of a function of the library."""

    def apply(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, value)

    return apply


def _bilinear(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, size, _: resize(image, size, Image.Resampling.BILINEAR)
    )


def _bgr(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    resize = ofa.tasks.task.resize_square
    monkeypatch.setattr(
        ofa.tasks.task,
        "resize_square",
        lambda image, size: np.ascontiguousarray(resize(image, size)[::-1]),
    )


def _raw_position_states(
    encoder: Encoder, grid_height: int, grid_width: int, prompt_length: int
) -> Tensor:
    """`Encoder.position_states` before its two norms."""
    image = encoder.image_positions(grid_height, grid_width)
    return torch.cat([image, encoder.embed_positions.weight[:prompt_length]])


def _encode_label_bare(tokenizer: Tokenizer, label: str) -> list[int]:
    return tokenizer.encode(label, 256)[1:-1]


def _with_decoder_positions(*, added: bool) -> Break:
    """Add positions to the decoder's inputs or do not, whatever the checkpoint says."""

    def apply(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        subject.checkpoint.model.decoder.adds_positions = added

    return apply


_NO_EXIF_TURN = _replace(ImageOps, "exif_transpose", lambda image, *, in_place: None)

# What is broken, and the case whose recording must notice.
BREAKS: dict[str, tuple[str, Break]] = {
    "no relative bias of the prompt": ("defaults", _zero("encoder.token_rel_pos_table_list")),
    "no relative bias of the picture": ("defaults", _zero("encoder.image_rel_pos_table_list")),
    "no relative bias of the answer": ("defaults", _zero("decoder.token_rel_pos_table_list")),
    "no absolute bias of the picture": ("defaults", _zero("encoder.pos_q_linear")),
    "no cross-attention bias": ("defaults", _zero("decoder.cross_pos_q_linear")),
    "two heads swapped in the encoder": ("defaults", _swap_heads("encoder.layers.0.self_attn")),
    "two heads swapped in the decoder": ("defaults", _swap_heads("decoder.layers.1.self_attn")),
    "two heads swapped in cross-attention": (
        "defaults",
        _swap_heads("decoder.layers.2.cross_attn"),
    ),
    "tanh in the GELU": (
        "defaults",
        _replace(ofa.model.encoder.F, "gelu", partial(F.gelu, approximate="tanh")),
    ),
    "source positions without their norm": (
        "defaults",
        _replace(ofa.model.encoder.Encoder, "position_states", _raw_position_states),
    ),
    "EOS rank rule": ("defaults", _rewrite_search("(rank < beam_size)", "(rank < beam_size - 1)")),
    "length divisor": ("defaults", _rewrite_search("step + 1.0", "step + 2.0")),
    "bilinear for bicubic": ("defaults", _bilinear),
    "missing EXIF turn": ("defaults", _NO_EXIF_TURN),
    "BGR": ("defaults", _bgr),
    "boxes before the EXIF turn": ("grounding", _NO_EXIF_TURN),
    "bins divided by their number": (
        "grounding",
        _replace(ofa.tasks.visual_grounding, "NUM_BINS", 1001),
    ),
    "statements as they come": (
        "grounding",
        _replace(ofa.tasks.visual_grounding, "clean_caption", lambda text, _: text),
    ),
    "questions as they come": (
        "vqa-generation",
        _replace(ofa.tasks.visual_question_answering, "clean_question", lambda text, _: text),
    ),
    "labels without their space": (
        "vqa-traverse",
        _replace(EnglishTokenizer, "encode_label", _encode_label_bare),
    ),
    "spaces between Chinese characters": (
        "captioning-meme",
        _replace(ofa.tasks.text_task, "join_chinese", lambda text: text),
    ),
    "another GELU in the ViT": ("ofasys", _replace(QuickGELU, "forward", lambda _, x: F.gelu(x))),
    "the class token's position in the ViT": (
        "ofasys",
        _replace(VisionTransformer, "positions", lambda vit, *_: vit.positional_embedding[:-1]),
    ),
    "stretched positions of the ViT aligned by their corners": (
        "ofasys-shared-bias",
        _replace(ofa.model.vit.F, "interpolate", partial(F.interpolate, align_corners=True)),
    ),
    "normalised positions of the picture": (
        "ofasys",
        _replace(UnappliedLayerNorm, "forward", nn.LayerNorm.forward),
    ),
    "entangled decoder without positions": (
        "ofasys-entangled",
        _with_decoder_positions(added=False),
    ),
    "disentangled decoder with positions": (
        "ofasys-entangled-encoder",
        _with_decoder_positions(added=True),
    ),
}

# What the folder's settings forget, and the case whose recording must notice.
FORGOTTEN: dict[str, tuple[str, dict[str, object]]] = {
    "prefix of beam search": ("entailment-trie", {"prompt_type": "none"}),
    "soft prefix": ("text-classification-free", {"prompt_type": "none"}),
    "decoder's prompt": ("vqa-traverse-after-question", {"prompt_type": "none"}),
    "EOS of the decoder's prompt": ("vqa-traverse-source", {"prompt_type": "prev_output"}),
    "ImageNet statistics": ("classification", {"imagenet_default_mean_and_std": False}),
    "divisor of boxes": ("grounding-wide", {"max_image_size": 224}),
    "range": ("grounding", {"beam_search": {"max_len_b": 4, "min_len": 4}}),
    # Its default holds for boxes too: no three location tokens may come twice.
    "n-gram blocking of boxes": (
        "grounding-free",
        {"beam_search": {"max_len_b": 4, "min_len": 4, "no_repeat_ngram_size": 0}},
    ),
    "labels": ("vqa-trie", {"answer2label": None}),
    "document": ("ocr-document-zh", {"is_document": False}),
    "prompt": ("ocr-scene", {"prompt": " what is the text on the image?"}),
    "cut": ("vqa-cut-question", {"max_src_length": 6}),
    "length by prompt": ("summarization-by-length", {"beam_search": {"max_len_b": 2}}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a case, built when it is first asked for."""
    scratch = tmp_path_factory.mktemp("checkpoints")
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = CASES[name].prepare(scratch)
        return built[name]

    return folder


def _check(case: Case, subject: Subject) -> None:
    recording = Recording.load(FOLDER / f"{case.name}.json")
    for request, sent in zip(case.requests, requests_of(case), strict=True):
        row = subject.task.preprocess(sent)
        [found] = generate(subject.generator, subject.task, [row])
        check_answer(subject.task, row, found, recording.answers[request.name], Gaps())


NOTICING = sorted({name for name, _ in [*BREAKS.values(), *FORGOTTEN.values()]})


@pytest.mark.parametrize("name", NOTICING)
def test_whole_is_green(name: str, folders: Callable[[str], Path]) -> None:
    _check(CASES[name], Subject.load(folders(name)))


@pytest.mark.parametrize("what", BREAKS)
def test_broken_is_red(
    what: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, apply = BREAKS[what]
    whole = Subject.load(folders(name))
    apply(whole, monkeypatch)
    broken = dataclasses.replace(whole, generator=whole.checkpoint.build_generator())
    with pytest.raises(AssertionError):
        _check(CASES[name], broken)


@pytest.mark.parametrize("what", FORGOTTEN)
def test_forgotten_is_red(what: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    name, changes = FORGOTTEN[what]
    folder = folders(name)
    settings = json.loads((folder / "configuration.json").read_text())["model"] | changes
    settings = {key: value for key, value in settings.items() if value is not None}
    write_configuration(tmp_path, CASES[name].task, settings)
    forgetful = Subject.load(folder, tmp_path / "configuration.json")
    with pytest.raises(AssertionError):
        _check(CASES[name], forgetful)
