"""Draws scenes: a random background, the things on it, and a camera's small faults."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.scenes import Placement, Scene
from training.sprites import sprite_path
from training.things import Thing, load_things

Canvas = NDArray[np.float32]
Box = tuple[float, float, float, float]
# Fainter pixels are not part of a thing.
MIN_ALPHA = 64


def draw_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour, [3] in 0..255: often pale or muted, as walls and tables and skies are."""
    colour = rng.uniform(0, 255, size=3)
    grey = colour.mean() if rng.random() < 0.5 else rng.uniform(120, 255)
    return (colour + (grey - colour) * rng.uniform(0, 1)).astype(np.float32)


def _plain(rng: np.random.Generator, width: int, height: int) -> Canvas:
    return np.broadcast_to(draw_colour(rng), (height, width, 3)).copy()


def _mix(rng: np.random.Generator, share: NDArray[np.float32]) -> Canvas:
    """Two colours mixed by `share` [height, width] in 0..1."""
    first, second = draw_colour(rng), draw_colour(rng)
    return first + (second - first) * share[..., None]


def _gradient(rng: np.random.Generator, width: int, height: int) -> Canvas:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
    return _mix(rng, np.clip(ramp + 0.5, 0, 1))


def _glow(rng: np.random.Generator, width: int, height: int) -> Canvas:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    centre_x, centre_y = rng.uniform(0, 1, size=2)
    return _mix(rng, np.clip(np.hypot(x - centre_x, y - centre_y), 0, 1).astype(np.float32))


def _stripes(rng: np.random.Generator, width: int, height: int) -> Canvas:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 14)
    wave = np.sin(2 * np.pi * period * (np.cos(angle) * x + np.sin(angle) * y))
    return _mix(rng, np.clip(wave * rng.uniform(1, 6) + 0.5, 0, 1) * np.float32(0.6))


def _tiles(rng: np.random.Generator, width: int, height: int) -> Canvas:
    count = int(rng.integers(2, 9))
    tiles = rng.uniform(0, 255, size=(count, count, 3)) * 0.3 + draw_colour(rng) * 0.7
    image = Image.fromarray(tiles.astype(np.uint8)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    return np.asarray(image, dtype=np.float32)


def _clouds(rng: np.random.Generator, width: int, height: int) -> Canvas:
    count = int(rng.integers(3, 13))
    noise = rng.uniform(0, 255, size=(count, count)).astype(np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return _mix(rng, np.asarray(image, dtype=np.float32) / 255)


def _blobs(rng: np.random.Generator, width: int, height: int) -> Canvas:
    image = Image.new("RGB", (width, height), tuple(draw_colour(rng).astype(int).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 10))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        half_width, half_height = rng.uniform(0.03, 0.3, size=2) * min(width, height)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        fill = tuple(draw_colour(rng).astype(int).tolist())
        if rng.random() < 0.6:
            draw.ellipse(box, fill=fill)
        else:
            draw.rectangle(box, fill=fill)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))), dtype=np.float32)


def _horizon(rng: np.random.Generator, width: int, height: int) -> Canvas:
    canvas = _gradient(rng, width, height)
    canvas[int(height * rng.uniform(0.3, 0.8)) :] = draw_colour(rng)
    return canvas


BACKGROUNDS: tuple[Callable[[np.random.Generator, int, int], Canvas], ...] = (
    _plain,
    _gradient,
    _glow,
    _stripes,
    _tiles,
    _clouds,
    _blobs,
    _horizon,
)


def draw_background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    paint = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    canvas = paint(rng, width, height)
    if rng.random() < 0.3:
        canvas = canvas + rng.normal(0, rng.uniform(2, 16), size=(height, width, 1))
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def take_photo(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Light and colour cast, and now and then blur or JPEG traces."""
    gain = rng.normal(1, 0.08) * np.exp(rng.normal(0, 0.04, size=3))
    shift = rng.normal(0, 8)
    table = np.clip(np.arange(256)[None] * gain[:, None] + shift, 0, 255).astype(np.uint8)
    image = image.point(table.reshape(-1).tolist())
    if rng.random() < 0.3:
        radius = rng.uniform(0.2, 0.9) * min(image.size) / 128
        image = image.filter(ImageFilter.GaussianBlur(radius))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(45, 96)))
        image = Image.open(buffer).convert("RGB")
    return image


def _bounding_box(alpha: Image.Image) -> Box:
    """The smallest box around everything visible, as fractions of the canvas."""
    box = alpha.point(lambda value: 255 * (value >= MIN_ALPHA)).getbbox()
    left, top, right, bottom = box or (0, 0, 0, 0)
    return left / alpha.width, top / alpha.height, right / alpha.width, bottom / alpha.height


@dataclass(frozen=True)
class Picture:
    """A drawn scene.

    Attributes:
        image: RGB.
        coverage: float32 [things, grid, grid], the visible share of each grid cell that each
            placement of the scene covers.
        boxes: around each placement, hidden parts included: left, top, right and bottom as
            fractions of the canvas.
    """

    image: Image.Image
    coverage: NDArray[np.float32]
    boxes: tuple[Box, ...]


class Painter:
    """Holds the sprites of some styles in memory and draws scenes with them."""

    def __init__(self, styles: Sequence[str], sprite_size: int) -> None:
        """Loads every sprite, its longer side scaled to `sprite_size` pixels."""
        self._sprites: dict[tuple[str, Thing], Image.Image] = {}
        for thing in load_things():
            for style in styles:
                path = sprite_path(style, thing)
                if path.exists():
                    sprite = Image.open(path)
                    scale = sprite_size / max(sprite.size)
                    size = (round(sprite.width * scale), round(sprite.height * scale))
                    self._sprites[style, thing] = sprite.resize(size, Image.Resampling.LANCZOS)
        self.styles_of = tuple(
            (thing, tuple(style for style in styles if (style, thing) in self._sprites))
            for thing in load_things()
        )

    def _layer(self, placement: Placement, width: int, height: int) -> Image.Image:
        """The transformed sprite alone on a transparent canvas."""
        sprite = self._sprites[placement.style, placement.thing]
        longer_side = placement.size * min(width, height)
        scale = longer_side / max(sprite.size)
        # PIL maps canvas pixels back to sprite pixels: shift to the centre, turn, unscale.
        angle = np.deg2rad(placement.rotation)
        cos, sin = np.cos(angle), np.sin(angle)
        to_x = (-1 if placement.mirrored else 1) / (scale * placement.stretch)
        to_y = placement.stretch / scale
        centre_x, centre_y = placement.x * width, placement.y * height
        a, b = cos * to_x, -sin * to_x
        d, e = sin * to_y, cos * to_y
        c = sprite.width / 2 - a * centre_x - b * centre_y
        f = sprite.height / 2 - d * centre_x - e * centre_y
        return sprite.transform(
            (width, height),
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            resample=Image.Resampling.BILINEAR,
        )

    def paint(self, scene: Scene, width: int, height: int, grid: int) -> Picture:
        """Draws a scene on a canvas of width x height pixels."""
        rng = np.random.default_rng(scene.background_seed)
        image = draw_background(rng, width, height)
        coverage = np.zeros((len(scene.placements), grid, grid), dtype=np.float32)
        boxes = []
        for i, placement in enumerate(scene.placements):
            layer = self._layer(placement, width, height)
            image.paste(layer, (0, 0), layer)
            alpha = layer.getchannel("A")
            boxes.append(_bounding_box(alpha))
            cells = alpha.resize((grid, grid), Image.Resampling.BOX)
            share = np.asarray(cells, dtype=np.float32) / 255
            coverage[:i] *= 1 - share
            coverage[i] = share
        return Picture(take_photo(rng, image), coverage, tuple(boxes))
