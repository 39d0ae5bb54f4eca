"""Ours draws as ModelScope's class did when `tests/golden/text-to-image.*` was recorded."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ofa.generation.image_generator import ImageGenerator
from ofa.tasks import Task
from tests.reference import text_to_image
from tests.reference.compare import TIE_MARGIN, Gaps, Subject
from tests.reference.compare_drawing import (
    MASS_ROUNDING,
    SIMILARITY,
    TOLERANCES,
    Drawing,
    Recorded,
    check_best_picture,
    check_codes,
    check_nuclei,
    check_painting,
    check_prompt,
)
from tests.reference.golden import FOLDER
from tests.reference.parity_all import draw_now


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded.load(FOLDER)


@pytest.fixture(scope="module")
def subject(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("text-to-image")
    digest = text_to_image.write(folder)
    assert digest == recorded.values["weights_sha256"], "these are not the recorded weights"
    return Subject.load(folder)


@pytest.fixture(scope="module")
def generator(subject: Subject) -> ImageGenerator:
    assert isinstance(subject.generator, ImageGenerator)
    return subject.generator


@pytest.fixture(scope="module")
def task(subject: Subject) -> Task:
    return subject.task


@pytest.fixture(scope="module")
def drawing(generator: ImageGenerator, task: Task) -> Drawing:
    return Drawing(generator, task)


@pytest.fixture
def gaps() -> Gaps:
    return Gaps(TOLERANCES)


@pytest.mark.parametrize("index", range(len(text_to_image.TEXTS)))
def test_token_ids(task: Task, recorded: Recorded, index: int) -> None:
    check_prompt(task, index, recorded)


def test_codes_and_log_probs(drawing: Drawing, recorded: Recorded, gaps: Gaps) -> None:
    check_codes(drawing, recorded, gaps)


def test_nuclei(drawing: Drawing, recorded: Recorded) -> None:
    check_nuclei(drawing.nuclei, recorded)


def test_another_nucleus_passes_only_in_a_tie(recorded: Recorded) -> None:
    nuclei = recorded.values["nuclei"]
    check_nuclei([*nuclei[:7], [1, 2], *nuclei[8:]], with_margins(recorded, MASS_ROUNDING / 2, 1.0))
    check_nuclei([*nuclei[:7], [1, 2], *nuclei[8:]], with_margins(recorded, 1.0, TIE_MARGIN / 2))
    with pytest.raises(AssertionError, match=r"\[7\]"):
        check_nuclei([*nuclei[:7], [1, 2], *nuclei[8:]], with_margins(recorded, 1.0, 1.0))


def with_margins(recorded: Recorded, mass: float, nats: float) -> Recorded:
    """The same with other margins in step 7."""
    margins = list(recorded.values["nucleus_margins"])
    margins[7] = [mass, nats]
    return dataclasses.replace(recorded, values={**recorded.values, "nucleus_margins": margins})


def test_painting_and_judgement(
    generator: ImageGenerator, task: Task, recorded: Recorded, gaps: Gaps
) -> None:
    check_painting(generator, task, recorded, gaps)


def test_the_best_picture(drawing: Drawing, recorded: Recorded, gaps: Gaps) -> None:
    check_best_picture(drawing, recorded, gaps)


def test_the_recording_bites(recorded: Recorded) -> None:
    """The codes vary, the nuclei leave most of them out, and the samples differ."""
    first, second = recorded.values["codes"]
    assert len(set(first)) > 50
    assert first != second
    assert len({crc for step in recorded.values["nuclei"] for crc in step}) > 1000
    assert abs(np.subtract(*recorded.values["similarities"])) > 10 * TOLERANCES[SIMILARITY]


@pytest.mark.parametrize(
    "part",
    ["vqgan.post_quant_conv.weight", "vqgan.decoder.norm_out.bias", "clip.visual.class_embedding"],
)
def test_a_broken_painter_or_judge_is_noticed(
    generator: ImageGenerator, task: Task, recorded: Recorded, gaps: Gaps, part: str
) -> None:
    broken = copy.deepcopy(generator)
    weight = broken.get_parameter(part)
    weight.data = weight.data.flip(0)
    with pytest.raises(AssertionError):
        check_painting(broken, task, recorded, gaps)


@pytest.mark.parity
def test_draws_as_the_reference_does_now(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():  # progress: it takes minutes
        draw_now(tmp_path)
