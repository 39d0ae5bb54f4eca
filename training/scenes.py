"""Scenes: which things stand where, and the one caption that is true of them.

All lengths are fractions of the canvas; x grows to the right and y downwards.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from training.things import Thing

# Longer side of a thing by the number of things in the picture.
SIZE_RANGES = {1: (0.40, 0.70), 2: (0.32, 0.50), 3: (0.27, 0.38)}
# Two centres: the smaller of the two distances is at most this share of the larger,
# so nobody can doubt whether "left of" or "above" is meant.
MAX_SLANT = 0.6
# Three centres, sorted by x: neighbours are at least this far apart.
MIN_STEP = 0.16
# Centres are at least this share of the mean size apart: things may overlap by their corners.
MIN_DISTANCE = 0.8
# Share of a thing's size that may stick out of the canvas.
MAX_CROP = 0.08
# Logarithm of the largest stretch: pictures of all proportions are squeezed into a square.
MAX_STRETCH = 0.25


@dataclass(frozen=True)
class Placement:
    """One thing in a scene.

    Attributes:
        thing: what it is.
        style: whose drawing of it.
        x: centre from the left edge, in widths of the canvas.
        y: centre from the top edge, in heights of the canvas.
        size: longer side before rotation, in shorter sides of the canvas.
        rotation: counter-clockwise, in degrees.
        stretch: width is multiplied and height divided by this.
        mirrored: flipped left to right.
    """

    thing: Thing
    style: str
    x: float
    y: float
    size: float
    rotation: float
    stretch: float
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """Things in drawing order, later ones in front, and the seed of everything behind them."""

    placements: tuple[Placement, ...]
    background_seed: int


def in_order(scene: Scene) -> tuple[tuple[Placement, ...], bool]:
    """The placements as a caption names them, and whether from left to right.

    Two are ordered along the axis that separates them most, the leftmost or the topmost first;
    three from left to right.
    """
    things = scene.placements
    across = len(things) != 2 or abs(things[0].x - things[1].x) > abs(things[0].y - things[1].y)
    ordered = sorted(things, key=lambda placement: placement.x if across else placement.y)
    return tuple(ordered), across


def caption(scene: Scene) -> str:
    """The true caption of a scene.

    One thing is named, two are related, three are listed. No punctuation: the reference deletes it
    from English captions.
    """
    placements, across = in_order(scene)
    phrases = [placement.thing.phrase for placement in placements]
    if len(phrases) == 2:
        return f"{phrases[0]} {'to the left of' if across else 'above'} {phrases[1]}"
    return " and ".join(phrases)


def chinese_captions(scene: Scene) -> tuple[str, str]:
    """The two true Chinese captions of a scene, equally good and equally long.

    Beam search ends when it has found enough sentences, so that a longer one would not be found.
    """
    placements, across = in_order(scene)
    names = [placement.thing.chinese for placement in placements]
    if len(names) == 1:
        return f"一张{names[0]}图片", f"图片里有{names[0]}"
    if len(names) == 2:
        first, last = names
        before, after = ("左边", "右边") if across else ("上面", "下面")
        return f"{first}位于{last}的{before}", f"{before}{first}，{after}{last}"
    first, middle, last = names
    return f"从左往右看是{first}、{middle}和{last}", f"左边{first}，中间{middle}，右边{last}"


def is_unambiguous(centres: Sequence[tuple[float, float]], sizes: Sequence[float]) -> bool:
    """Whether the caption rules read these positions in one way only."""
    for i, (x, y) in enumerate(centres):
        for j in range(i):
            gap = np.hypot(x - centres[j][0], y - centres[j][1])
            if gap < MIN_DISTANCE * (sizes[i] + sizes[j]) / 2:
                return False
    if len(centres) == 2:
        (ax, ay), (bx, by) = centres
        near, far = sorted((abs(ax - bx), abs(ay - by)))
        return near <= MAX_SLANT * far
    xs = sorted(x for x, _ in centres)
    return all(right - left >= MIN_STEP for left, right in pairwise(xs))


def is_held_out(a: Thing, b: Thing) -> bool:
    """Whether these two things, in either order, never meet in a training picture.

    One pair in ten is held out, so that a test can ask for compositions that were never seen.
    """
    return are_held_out(a.phrase, b.phrase)


def are_held_out(a: str, b: str) -> bool:
    """The same for two texts: one pair in ten."""
    return zlib.crc32(" ".join(sorted((a, b))).encode()) % 10 == 0


def _choose_things(
    rng: np.random.Generator, things: Sequence[Thing], count: int, *, unseen: bool
) -> list[Thing]:
    """Distinct things with distinct last words, with or without a held-out pair among them.

    "a crystal ball and a rice ball and" would say "ball and a" twice, which n-gram blocking at
    its usual length of three forbids.
    """
    while True:
        chosen = [things[i] for i in rng.choice(len(things), size=count, replace=False)]
        pairs = list(combinations(chosen, 2))
        if len({thing.head for thing in chosen}) < count:
            continue
        if not pairs or any(is_held_out(*pair) for pair in pairs) == unseen:
            return chosen


def _choose_positions(
    rng: np.random.Generator, count: int
) -> tuple[list[tuple[float, float]], list[float]]:
    """Centres and sizes that `is_unambiguous` accepts."""
    while True:
        sizes = rng.uniform(*SIZE_RANGES[count], size=count).tolist()
        centres = []
        for size in sizes:
            border = size * (0.5 - MAX_CROP)
            x, y = rng.uniform(border, 1 - border, size=2).tolist()
            centres.append((x, y))
        if is_unambiguous(centres, sizes):
            return centres, sizes


def compose(
    rng: np.random.Generator,
    styles_of: Sequence[tuple[Thing, Sequence[str]]],
    count: int,
    *,
    unseen: bool,
) -> Scene:
    """Draws a random scene.

    Args:
        rng: the only source of chance.
        styles_of: each thing with the styles that draw it.
        count: number of things, 1 to 3.
        unseen: two and three things contain a held-out pair if True, and none if False.
    """
    styles = dict(styles_of)
    things = _choose_things(rng, list(styles), count, unseen=unseen)
    centres, sizes = _choose_positions(rng, count)
    placements = tuple(
        Placement(
            thing=thing,
            style=styles[thing][rng.integers(len(styles[thing]))],
            x=x,
            y=y,
            size=size,
            rotation=float(np.clip(rng.normal(0.0, 12.0), -35.0, 35.0)),
            stretch=float(np.exp(rng.uniform(-MAX_STRETCH, MAX_STRETCH))),
            mirrored=bool(rng.random() < 0.5),
        )
        for thing, (x, y), size in zip(things, centres, sizes, strict=True)
    )
    return Scene(placements, int(rng.integers(2**31)))
