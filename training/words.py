"""Pictures of one or two words, for reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.render import draw_background, draw_colour, take_photo
from training.scenes import are_held_out
from training.things import load_things

FONTS = Path(__file__).with_name("node_modules") / "@fontsource"
TRAINING_FONTS = ("roboto", "lora", "oswald")
LEFT_OUT_FONT = "quicksand"
WEIGHTS = (400, 700)
# Height of the letters before they are scaled to their place.
FONT_SIZE = 48
# Width of a picture in heights.
MIN_ASPECT, MAX_ASPECT = 1.2, 3.5
# Difference of luminance, of 255, between letters and what is behind them.
MIN_CONTRAST = 70


@dataclass(frozen=True)
class Sign:
    """Words in a picture.

    Attributes:
        lines: top to bottom, one word or two words each.
        font: of TRAINING_FONTS, or the one left out.
        weight: of WEIGHTS.
        aspect: width of the picture in heights.
        seed: of everything else.
    """

    lines: tuple[str, ...]
    font: str
    weight: int
    aspect: float
    seed: int

    @property
    def text(self) -> str:
        """What there is to read."""
        return " ".join(self.lines)


class Letter(NamedTuple):
    """A letter and its centre, in fractions of the picture."""

    character: str
    x: float
    y: float


@cache
def load_words() -> tuple[str, ...]:
    """Every word of the things' names."""
    return tuple(sorted({word for thing in load_things() for word in thing.name.split()}))


def compose_sign(rng: np.random.Generator, fonts: Sequence[str], *, unseen: bool) -> Sign:
    """Draws a random sign: one word, or two in one line or two lines.

    Args:
        rng: the only source of chance.
        fonts: to choose from.
        unseen: two words are a held-out pair if True, and none if False.
    """
    words = load_words()
    lines: tuple[str, ...] = (words[rng.integers(len(words))],)
    if rng.random() < 0.5:
        while True:
            first, second = (words[i] for i in rng.choice(len(words), size=2, replace=False))
            if are_held_out(first, second) == unseen:
                break
        in_one_line = len(first) + len(second) <= 10 and rng.random() < 0.5
        lines = (f"{first} {second}",) if in_one_line else (first, second)
    return Sign(
        lines=lines,
        font=fonts[rng.integers(len(fonts))],
        weight=WEIGHTS[rng.integers(len(WEIGHTS))],
        aspect=float(rng.uniform(MIN_ASPECT, MAX_ASPECT / len(lines))),
        seed=int(rng.integers(2**31)),
    )


@cache
def _font(name: str, weight: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(
        FONTS / name / "files" / f"{name}-latin-{weight}-normal.woff", FONT_SIZE
    )


def _letters(sign: Sign) -> tuple[Image.Image, list[Letter]]:
    """The text alone, white on black, trimmed, and the centre of each letter in it."""
    font = _font(sign.font, sign.weight)
    canvas = Image.new("L", (FONT_SIZE * (max(map(len, sign.lines)) + 1), 4 * FONT_SIZE))
    draw = ImageDraw.Draw(canvas)
    draw.text((24, 24), "\n".join(sign.lines), fill=255, font=font, align="center")
    widths = [font.getlength(line) for line in sign.lines]
    letters = []
    for row, (line, width) in enumerate(zip(sign.lines, widths, strict=True)):
        for column, character in enumerate(line):
            if character != " ":
                middle = (font.getlength(line[:column]) + font.getlength(line[: column + 1])) / 2
                x = ((max(widths) - width) / 2 + middle) / max(widths)
                letters.append(Letter(character, x, (row + 0.5) / len(sign.lines)))
    return canvas.crop(canvas.getbbox()), letters


def _colour_against(rng: np.random.Generator, background: Image.Image) -> tuple[int, ...]:
    """A colour that stands out from all of the background."""
    behind = np.asarray(background.convert("L"), dtype=np.float32)
    dark, light = np.quantile(behind, (0.02, 0.98))
    while True:
        colour = draw_colour(rng)
        luminance = float(colour @ (0.299, 0.587, 0.114))
        if luminance < dark - MIN_CONTRAST or luminance > light + MIN_CONTRAST:
            return tuple(colour.astype(int).tolist())


def paint_sign(sign: Sign, height: int) -> tuple[Image.Image, list[Letter]]:
    """Draws a sign on a canvas of `height` pixels; also tells where in it each letter is."""
    rng = np.random.default_rng(sign.seed)
    width = round(height * sign.aspect)
    text, letters = _letters(sign)
    while True:
        image = draw_background(rng, width, height)
        behind = np.quantile(np.asarray(image.convert("L")), (0.02, 0.98))
        if behind[0] > MIN_CONTRAST + 5 or behind[1] < 250 - MIN_CONTRAST:
            break
    scale = min(width * 0.96 / text.width, height * 0.9 / text.height) * rng.uniform(0.75, 1.0)
    text = text.resize((round(text.width * scale), round(text.height * scale)))
    left = int(rng.integers(0, width - text.width + 1))
    top = int(rng.integers(0, height - text.height + 1))
    angle = float(np.clip(rng.normal(0, 2), -4, 4))
    layer = Image.new("L", (width, height))
    layer.paste(text, (left, top))
    layer = layer.rotate(angle, Image.Resampling.BILINEAR)
    image.paste(_colour_against(rng, image), (0, 0), layer)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    placed = []
    for letter in letters:
        x = left + letter.x * text.width - width / 2
        y = top + letter.y * text.height - height / 2
        turned_x, turned_y = cos * x + sin * y, cos * y - sin * x
        placed.append(Letter(letter.character, turned_x / width + 0.5, turned_y / height + 0.5))
    return take_photo(rng, image), placed
