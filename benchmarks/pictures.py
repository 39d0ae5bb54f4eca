"""The pictures that benchmarks ask about."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import ROOT

SAMPLES = ROOT / "samples"
_SUFFIXES = {".jpg", ".png", ".webp"}
_SEED = 2026


def list_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder by name.

    Raises:
        FileNotFoundError: it has none.
    """
    pictures = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    if not pictures:
        raise FileNotFoundError(f"there are no pictures in {folder}")
    return pictures


def cut_outs(count: int) -> list[bytes]:
    """Encoded random halves or more of the sample pictures, mirrored or not; always the same."""
    rng = np.random.default_rng(_SEED)
    samples = list_pictures(SAMPLES)
    return [_cut_out(samples[rng.integers(len(samples))], rng) for _ in range(count)]


def _cut_out(sample: Path, rng: np.random.Generator) -> bytes:
    with Image.open(sample) as image:
        width, height = (round(side * rng.uniform(0.5, 1.0)) for side in image.size)
        left = int(rng.integers(image.width - width + 1))
        top = int(rng.integers(image.height - height + 1))
        part = image.convert("RGB").crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    part.save(file, "PNG")
    return file.getvalue()
