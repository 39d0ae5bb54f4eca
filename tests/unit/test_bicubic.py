"""Resizing against Pillow, which the reference resizes with."""

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.model.bicubic import BicubicResize


@pytest.mark.parametrize(
    ("size", "new_size"),
    [(256, 224), (64, 224), (224, 224), (257, 32), (33, 32), (31, 32), (1, 5), (7, 1)],
)
@pytest.mark.parametrize("kind", ["noise", "black and white"])
def test_pixels_are_pillows(size: int, new_size: int, kind: str) -> None:
    random = np.random.default_rng(size)
    pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    if kind == "black and white":  # over- and undershoots at every edge
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    expected = Image.fromarray(pixels).resize((new_size, new_size), Image.Resampling.BICUBIC)
    resized = BicubicResize(size, new_size)(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert resized.dtype == torch.uint8
    assert np.array_equal(resized[0].permute(1, 2, 0).numpy(), np.asarray(expected))
