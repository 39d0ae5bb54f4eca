"""The fuzzing's cases can be made again, and what it looks for would be found."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from chaos import fuzz_library
from chaos.fuzz_findings import shows_the_inside
from chaos.fuzz_messages import fuzzed_request, fuzzed_tensors, make_request
from chaos.fuzz_pictures import fuzzed_picture, make_corpus
from chaos.fuzz_wire import fuzzed_frames
from ofa.errors import InvalidImageError
from ofa.image import IMAGE_FORMATS, decode_image
from ofa.tasks import Task
from ofa.tasks.captioning import CaptioningTask
from ofa.tensors import Tensors, TensorSpec

SPECS = (
    TensorSpec("image", np.object_, (1,)),
    TensorSpec("text", np.object_, (1,)),
    TensorSpec("beam_size", np.int32, (1,), optional=True),
    TensorSpec("temperature", np.float32, (1,), optional=True),
)


@pytest.fixture(scope="module")
def corpus() -> list[bytes]:
    return make_corpus(Path(__file__).parents[2] / "samples")


def test_the_files_to_be_damaged_are_intact_and_of_every_format(corpus: list[bytes]) -> None:
    for file in corpus:
        assert decode_image(file).mode == "RGB"
    heads = {"JPEG": b"\xff\xd8", "PNG": b"\x89PNG", "WEBP": b"RIFF", "GIF": b"GIF8", "BMP": b"BM"}
    for kind in IMAGE_FORMATS:
        assert any(file.startswith(heads.get(kind, b"II*")) for file in corpus), kind


def test_a_case_can_be_made_again_from_its_number(corpus: list[bytes]) -> None:
    def make(number: int) -> list[object]:
        random = Random(number)
        request = fuzzed_request(random, "vqa", SPECS, corpus)
        tensors = make_request("vqa", fuzzed_tensors(random, SPECS, corpus)).SerializeToString()
        frames = fuzzed_frames(random, b"message")
        return [request, tensors, frames, fuzzed_picture(random, corpus)]

    for number in range(50):
        assert make(number) == make(number)
    assert make(1) != make(2)


@pytest.mark.parametrize(
    "message",
    [
        "failed to open /opt/models/caption/1/model.pt",
        'Traceback (most recent call last):\n  File "a", line 1',
        "ensemble_scheduler.cc:52: failed",
        "object at 0x7f2f57743150",
    ],
)
def test_the_inside_is_recognised(message: str) -> None:
    assert shows_the_inside(message)
    assert not shows_the_inside("in ensemble 'caption', image is empty (0 bytes)")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (InvalidImageError("image is empty (0 bytes)"), ""),
        (
            InvalidImageError("cannot open /tmp/picture"),
            "the refusal says cannot open /tmp/picture",
        ),
        (KeyError("image"), "KeyError: 'image'"),
    ],
)
def test_only_a_clean_refusal_is_none(error: Exception, fault: str) -> None:
    class Failing(CaptioningTask):
        def __init__(self) -> None:
            pass

        def preprocess(self, request: Tensors) -> Tensors:
            raise error

    task: Task = Failing()
    assert fuzz_library._fault(task, {}) == fault


def test_a_refusal_for_want_of_memory_is_a_fault() -> None:
    class Failing(CaptioningTask):
        def __init__(self) -> None:
            pass

        def preprocess(self, request: Tensors) -> Tensors:
            raise InvalidImageError("image is broken") from MemoryError()

    assert fuzz_library._fault(Failing(), {}) == "no memory was left"
