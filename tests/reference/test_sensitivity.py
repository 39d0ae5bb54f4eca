"""One thing broken at a time turns parity red: the recordings would notice."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import ofa.generation.beam_search
import ofa.generation.generator
import ofa.image
import ofa.tasks.captioning
from tests.reference.cases import CASES
from tests.reference.compare import Subject, check_hypotheses, generate, hypotheses
from tests.reference.golden import FOLDER, Recording

CASE = CASES["defaults"]
Break = Callable[[Subject, pytest.MonkeyPatch], None]


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
        monkeypatch.setattr(ofa.generation.generator, "advance", broken["advance"])

    return apply


def _bilinear(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, size, _: resize(image, size, Image.Resampling.BILINEAR)
    )


def _no_exif_turn(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda image: image)


def _bgr(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    resize = ofa.image.resize_square
    monkeypatch.setattr(
        ofa.tasks.captioning,
        "resize_square",
        lambda image, size: np.ascontiguousarray(resize(image, size)[::-1]),
    )


BREAKS: dict[str, Break] = {
    "no relative bias of the prompt": _zero("encoder.token_rel_pos_table_list"),
    "no relative bias of the picture": _zero("encoder.image_rel_pos_table_list"),
    "no relative bias of the answer": _zero("decoder.token_rel_pos_table_list"),
    "no absolute bias of the picture": _zero("encoder.pos_q_linear"),
    "no cross-attention bias": _zero("decoder.cross_pos_q_linear"),
    "two heads swapped in the encoder": _swap_heads("encoder.layers.0.self_attn"),
    "two heads swapped in the decoder": _swap_heads("decoder.layers.1.self_attn"),
    "two heads swapped in cross-attention": _swap_heads("decoder.layers.2.cross_attn"),
    "EOS rank rule": _rewrite_search("(rank < beam_size)", "(rank < beam_size - 1)"),
    "length divisor": _rewrite_search("step + 1.0", "step + 2.0"),
    "bilinear for bicubic": _bilinear,
    "missing EXIF turn": _no_exif_turn,
    "BGR": _bgr,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CASE.prepare(tmp_path_factory.mktemp("checkpoints"))


def _check(subject: Subject) -> None:
    recording = Recording.load(FOLDER / f"{CASE.name}.json")
    for picture in CASE.pictures:
        [answer] = generate(subject.generator, subject.task, [(CASE.picture_folder / picture, {})])
        ours = hypotheses(answer, subject.task.tokenizer.pad_id)
        check_hypotheses(ours, recording.answers[picture], is_tie=False)


def test_whole_is_green(folder: Path) -> None:
    _check(Subject.load(folder))


@pytest.mark.parametrize("name", BREAKS)
def test_broken_is_red(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject.load(folder)
    BREAKS[name](subject, monkeypatch)
    with pytest.raises(AssertionError):
        _check(subject)
