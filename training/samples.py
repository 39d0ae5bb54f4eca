"""Draws the sample pictures of the demo, named after what they show.

    python -m training.samples samples

They show pairs of things that training never showed together. One is stored turned, with an EXIF
tag that turns it back; one is in the style that training left out. Signs are named `sign_` and what
there is to read.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.render import Painter
from training.scenes import caption, compose
from training.sprites import LEFT_OUT_STYLE, SPRITE_SIZE, TRAINING_STYLES
from training.words import TRAINING_FONTS, compose_sign, paint_sign

ORIENTATION_TAG = 0x0112
# Of the eight EXIF orientations: to be turned by 90 degrees clockwise to look right.
TURN_CLOCKWISE = 6


@dataclass(frozen=True)
class Sample:
    """One picture: chosen by eye among the scenes of consecutive seeds."""

    seed: int
    count: int
    width: int
    height: int
    suffix: str
    left_out_style: bool = False
    turned: bool = False


SAMPLES = (
    Sample(14, 1, 360, 360, "jpg"),
    Sample(17, 1, 400, 340, "jpg"),
    Sample(0, 2, 400, 340, "jpg"),
    Sample(3, 2, 360, 400, "jpg"),
    Sample(5, 2, 400, 340, "jpg"),
    Sample(7, 2, 360, 360, "jpg"),
    Sample(8, 2, 360, 360, "png"),
    Sample(15, 2, 340, 400, "jpg", turned=True),
    Sample(7, 3, 400, 340, "jpg"),
    Sample(8, 3, 360, 360, "jpg"),
    Sample(16, 2, 360, 360, "jpg", left_out_style=True),
    Sample(382, 2, 400, 340, "jpg"),
    Sample(5013, 2, 360, 360, "jpg"),
)
# Seeds of signs, and their height in pixels.
SIGN_SEEDS = (2, 10, 24)
SIGN_HEIGHT = 160


def write(sample: Sample, painter: Painter, folder: Path) -> Path:
    """Draws one sample into a folder and returns its path."""
    rng = np.random.default_rng([3, sample.count, sample.seed])
    scene = compose(rng, painter.styles_of, sample.count, unseen=True)
    image = painter.paint(scene, sample.width, sample.height, grid=1).image
    path = folder / f"{caption(scene).replace(' ', '_')}.{sample.suffix}"
    if sample.suffix == "png":
        image.save(path, optimize=True)
        return path
    exif = Image.Exif()
    if sample.turned:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION_TAG] = TURN_CLOCKWISE
    image.save(path, quality=85, optimize=True, exif=exif)
    return path


def write_sign(seed: int, folder: Path) -> Path:
    """Draws one sign into a folder and returns its path."""
    sign = compose_sign(np.random.default_rng([4, seed]), TRAINING_FONTS, unseen=True)
    image, _ = paint_sign(sign, SIGN_HEIGHT)
    path = folder / f"sign_{sign.text.replace(' ', '_')}.jpg"
    image.save(path, quality=85, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample pictures of the demo.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    painter = Painter(TRAINING_STYLES, SPRITE_SIZE)
    left_out_painter = Painter((LEFT_OUT_STYLE,), SPRITE_SIZE)
    for sample in SAMPLES:
        print(write(sample, left_out_painter if sample.left_out_style else painter, folder))
    for seed in SIGN_SEEDS:
        print(write_sign(seed, folder))


if __name__ == "__main__":
    main()
