"""Ours beside the reference's text-to-image class, stage by stage."""

import dataclasses
import json
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ofa.generation import image_generator
from ofa.generation.image_generator import ImageGenerator
from ofa.generation.sampling import draw, nucleus
from ofa.model.vqgan import to_bytes
from ofa.tasks import Task
from tests.reference import text_to_image
from tests.reference.compare import LOG_PROB, TIE_MARGIN, Gaps, Subject
from tests.reference.golden import some_values

PAINTED = "painted value"
FEATURE = "CLIP's feature"
SIMILARITY = "similarity"
# Our log-probabilities of the codes, in float32 and in float64, part by up to 1.3e-5; those of the
# reference may by as much the other way.
TOLERANCES = {LOG_PROB: 3e-5, PAINTED: 1e-4, FEATURE: 1e-5, SIMILARITY: 1e-4}

# Likewise our sums of probabilities: by up to 6.4e-7 at the last code of a nucleus, and by up to
# 2.4e-6 before it.
MASS_ROUNDING = 2e-6
DRAW_ROUNDING = 5e-6


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What the reference did: `values` by name, and the picture that it returned."""

    values: dict[str, Any]
    picture: Tensor

    @classmethod
    def load(cls, folder: Path) -> "Recorded":
        """Read what `tests.reference.oracle.text_to_image` wrote into a folder."""
        path = folder / text_to_image.RECORDING.name
        picture = np.array(Image.open(folder / text_to_image.PICTURE.name))
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(values, torch.from_numpy(picture).permute(2, 0, 1))

    @property
    def best(self) -> int:
        """Whose painting `picture` is."""
        return int(np.argmax(self.values["similarities"]))

    def ties(self) -> set[int]:
        """The steps in which rounding can decide what a nucleus holds."""
        return {
            step
            for step, (mass, nats) in enumerate(self.values["nucleus_margins"])
            if mass < MASS_ROUNDING or nats < TIE_MARGIN
        }


def preprocess(task: Task, text: str) -> dict[str, Tensor]:
    """What the generator gets for a text, in a batch of one."""
    row = task.preprocess({"text": np.array([text.encode()], np.object_)})
    return {name: torch.from_numpy(tensor)[None] for name, tensor in row.items()}


class Drawing:
    """Ours, step by step, with the recorder's uniform numbers in place of its own."""

    def __init__(self, generator: ImageGenerator, task: Task) -> None:
        """Draw."""
        self.codes: list[Tensor] = []
        self.log_probs: list[Tensor] = []
        self.nuclei: list[list[int]] = []
        self._first_code_id = generator.first_code_id
        row = preprocess(task, text_to_image.TEXT)
        inputs = [row[spec.name] for spec in task.tensors.generator_inputs]
        numbers = torch.from_numpy(text_to_image.uniforms())[None]
        with (
            mock.patch.object(image_generator, "uniforms", return_value=numbers),
            mock.patch.object(image_generator, "draw", self._watched_draw),
            torch.inference_mode(),
        ):
            self.pixels, self.scores, self.mean_log_probs = generator(*inputs)

    def _watched_draw(self, log_probs: Tensor, top_p: float, uniform: Tensor) -> Tensor:
        drawn = draw(log_probs, top_p, uniform)
        self.codes.append(drawn[0])
        self.log_probs.append(log_probs.gather(2, drawn[:, :, None])[0, :, 0])
        probs, kept = nucleus(log_probs[0], top_p)
        self.nuclei.append(
            [crc_of_set(t[p > 0] + self._first_code_id) for p, t in zip(probs, kept, strict=True)]
        )
        return drawn


def crc_of_set(token_ids: Tensor) -> int:
    """A short digest of a set of ids, as the recorder's."""
    return zlib.crc32(token_ids.sort().values.numpy().astype("<i8").tobytes())


def check_prompt(task: Task, index: int, recorded: Recorded) -> None:
    """One text has the recorded ids of both tokenizers."""
    row = preprocess(task, text_to_image.TEXTS[index])
    source_ids, expected = row["source_ids"][0].tolist(), recorded.values["source_ids"][index]
    assert source_ids[: len(expected)] == expected
    assert set(source_ids[len(expected) :]) <= {task.tokenizer.pad_id}
    assert row["clip_ids"][0].tolist() == recorded.values["clip_ids"][index]


def check_codes(drawing: Drawing, recorded: Recorded, gaps: Gaps) -> None:
    """The codes are the recorded ones without exception, and as likely."""
    mass, nats = recorded.values["draw_margins"]
    assert mass > DRAW_ROUNDING, "rounding can decide a code: take other uniform numbers"
    assert nats > TIE_MARGIN, "rounding can decide a code: take other uniform numbers"
    codes, log_probs = torch.stack(drawing.codes, 1), torch.stack(drawing.log_probs, 1)
    # The reference ranks its samples by their mean log-probability.
    order = log_probs.mean(1).argsort(descending=True)
    assert codes[order].tolist() == recorded.values["codes"]
    gaps.close(LOG_PROB, log_probs[order], recorded.values["log_probs"])
    gaps.num_answers += 1
    gaps.num_hypotheses += codes.numel()


def check_nuclei(ours: Sequence[list[int]], recorded: Recorded) -> None:
    """Every sample draws from the recorded set in every step, but for the few ties."""
    differing = {
        step
        for step, (mine, theirs) in enumerate(zip(ours, recorded.values["nuclei"], strict=True))
        if mine != theirs
    }
    assert differing <= recorded.ties(), sorted(differing - recorded.ties())
    assert 50 * len(recorded.ties()) <= len(ours), "so many ties would excuse anything"


@torch.inference_mode()
def check_painting(generator: ImageGenerator, task: Task, recorded: Recorded, gaps: Gaps) -> None:
    """VQGAN paints the recorded codes, and CLIP sees the recorded picture, as recorded."""
    values, best = recorded.values, recorded.best
    painted = generator.vqgan(torch.tensor(values["codes"]).view(-1, 32, 32))
    gaps.close(PAINTED, [some_values(pixels, 256) for pixels in painted], values["painted"])
    # Rounding down can turn a rounding error into one level; what follows is judged on the
    # reference's own picture.
    assert_one_level(to_bytes(painted[best]), recorded.picture)

    clip_ids = preprocess(task, text_to_image.TEXT)["clip_ids"]
    clip, pixels = generator.clip, generator.clip_pixels(recorded.picture[None])
    for ours, expected in (
        (clip.visual(pixels)[0], values["image_features"][best]),
        (clip.encode_text(clip_ids)[0], values["text_features"]),
        (clip(pixels[None], clip_ids)[0, 0], values["similarities"][best]),
    ):
        gaps.close(FEATURE, ours, expected)


def check_best_picture(drawing: Drawing, recorded: Recorded, gaps: Gaps) -> None:
    """What a client gets, from end to end: the pictures in the recorded order."""
    assert_one_level(drawing.pixels[0, 0], recorded.picture)
    order = np.argsort(recorded.values["similarities"])[::-1]
    similarities = np.array(recorded.values["similarities"])[order]
    gaps.close(SIMILARITY, drawing.scores[0], similarities)
    means = np.array(recorded.values["log_probs"]).mean(1)[order]
    gaps.close(LOG_PROB, drawing.mean_log_probs[0], means)


def check_unchanged(now: Recorded, then: Recorded) -> None:
    """The reference does what it did when it was recorded before."""
    for name in ("weights_sha256", "source_ids", "clip_ids", "codes"):
        assert now.values[name] == then.values[name], name
    check_nuclei(now.values["nuclei"], then)
    gaps = Gaps(TOLERANCES)
    for kind, name in (
        (LOG_PROB, "log_probs"),
        (PAINTED, "painted"),
        (FEATURE, "text_features"),
        (SIMILARITY, "image_features"),  # of pictures that can differ by one level
        (SIMILARITY, "similarities"),
    ):
        gaps.close(kind, now.values[name], then.values[name])
    assert_one_level(now.picture, then.picture)


def assert_one_level(ours: Tensor, theirs: Tensor) -> None:
    """Two pictures of bytes differ nowhere by more than one of the 256 levels."""
    assert int((ours.int() - theirs.int()).abs().max()) <= 1


def check_drawing(recorded: Recorded) -> Gaps:
    """Our library draws as recorded, with the same weights, at every stage."""
    gaps = Gaps(TOLERANCES)
    with tempfile.TemporaryDirectory() as scratch:
        digest = text_to_image.write(Path(scratch))
        assert digest == recorded.values["weights_sha256"], "these are not the recorded weights"
        subject = Subject.load(Path(scratch))
    task, generator = subject.task, subject.generator
    assert isinstance(generator, ImageGenerator)
    for index in range(len(text_to_image.TEXTS)):
        check_prompt(task, index, recorded)
    drawing = Drawing(generator, task)
    check_codes(drawing, recorded, gaps)
    check_nuclei(drawing.nuclei, recorded)
    check_painting(generator, task, recorded, gaps)
    check_best_picture(drawing, recorded, gaps)
    return gaps
