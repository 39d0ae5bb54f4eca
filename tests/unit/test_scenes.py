"""The rules that make one caption, and only one, true of a picture."""

import string
from itertools import combinations

import numpy as np
import pytest

from training.scenes import (
    Placement,
    Scene,
    caption,
    chinese_captions,
    compose,
    is_held_out,
    is_unambiguous,
)
from training.things import Thing, load_things

THINGS = [
    Thing("🍎", "a red apple", "红苹果"),
    Thing("🍩", "a doughnut", "甜甜圈"),
    Thing("🐈", "a cat", "猫"),
]
STYLES_OF = tuple((thing, ("flat", "round")) for thing in load_things())


def scene_at(*centres: tuple[float, float]) -> Scene:
    return Scene(
        tuple(
            Placement(thing, "flat", x, y, 0.3, 0.0, 1.0, mirrored=False)
            for thing, (x, y) in zip(THINGS, centres, strict=False)
        ),
        background_seed=0,
    )


@pytest.mark.parametrize(
    ("centres", "expected"),
    [
        ([(0.5, 0.5)], "a red apple"),
        ([(0.2, 0.5), (0.7, 0.4)], "a red apple to the left of a doughnut"),
        ([(0.7, 0.5), (0.2, 0.4)], "a doughnut to the left of a red apple"),
        ([(0.5, 0.2), (0.4, 0.8)], "a red apple above a doughnut"),
        ([(0.5, 0.8), (0.4, 0.2)], "a doughnut above a red apple"),
        ([(0.5, 0.1), (0.2, 0.9), (0.8, 0.5)], "a doughnut and a red apple and a cat"),
    ],
)
def test_caption_follows_the_positions(centres: list[tuple[float, float]], expected: str) -> None:
    assert caption(scene_at(*centres)) == expected


@pytest.mark.parametrize(
    ("centres", "expected"),
    [
        ([(0.5, 0.5)], ("一张红苹果图片", "图片里有红苹果")),
        ([(0.2, 0.5), (0.7, 0.4)], ("红苹果位于甜甜圈的左边", "左边红苹果，右边甜甜圈")),
        ([(0.5, 0.8), (0.4, 0.2)], ("甜甜圈位于红苹果的上面", "上面甜甜圈，下面红苹果")),
        (
            [(0.5, 0.1), (0.2, 0.9), (0.8, 0.5)],
            ("从左往右看是甜甜圈、红苹果和猫", "左边甜甜圈，中间红苹果，右边猫"),
        ),
    ],
)
def test_chinese_captions_follow_the_positions(
    centres: list[tuple[float, float]], expected: tuple[str, str]
) -> None:
    captions = chinese_captions(scene_at(*centres))
    assert captions == expected
    assert len(captions[0]) == len(captions[1])


@pytest.mark.parametrize(
    ("centres", "unambiguous"),
    [
        ([(0.2, 0.5), (0.8, 0.5)], True),
        ([(0.2, 0.2), (0.8, 0.8)], False),
        ([(0.2, 0.5), (0.35, 0.5)], False),
        ([(0.2, 0.2), (0.5, 0.8), (0.8, 0.2)], True),
        ([(0.2, 0.2), (0.25, 0.8), (0.8, 0.2)], False),
    ],
)
def test_doubtful_positions_are_refused(
    centres: list[tuple[float, float]], unambiguous: bool
) -> None:
    assert is_unambiguous(centres, [0.3] * len(centres)) is unambiguous


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("unseen", [False, True])
def test_random_scenes_obey_the_rules(count: int, unseen: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = compose(rng, STYLES_OF, count, unseen=unseen)
        placements = scene.placements
        assert is_unambiguous([(p.x, p.y) for p in placements], [p.size for p in placements])
        pairs = combinations([placement.thing for placement in placements], 2)
        assert any(is_held_out(*pair) for pair in pairs) == (unseen and count > 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_captions_survive_the_reference(count: int) -> None:
    """It deletes punctuation, forbids repeated trigrams and stops after 16 tokens."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        text = caption(compose(rng, STYLES_OF, count, unseen=False))
        words = text.split()
        trigrams = list(zip(words, words[1:], words[2:], strict=False))
        assert not set(text) & set(string.punctuation)
        assert len(trigrams) == len(set(trigrams))
        assert len(words) <= 16


def test_a_seed_gives_the_same_scene() -> None:
    scenes = [compose(np.random.default_rng(7), STYLES_OF, 3, unseen=False) for _ in range(2)]
    assert scenes[0] == scenes[1]


def test_whether_a_pair_is_held_out_does_not_depend_on_order() -> None:
    pairs = list(combinations(load_things(), 2))
    held_out = [pair for pair in pairs if is_held_out(*pair)]
    assert all(is_held_out(b, a) for a, b in held_out)
    assert 0.08 < len(held_out) / len(pairs) < 0.12


def test_things_are_distinct() -> None:
    things = load_things()
    assert len({thing.emoji for thing in things}) == len(things)
    assert len({thing.phrase for thing in things}) == len(things)
    assert len({thing.chinese for thing in things}) == len(things)


def test_articles_fit_the_sound_that_follows() -> None:
    for thing in load_things():
        article, _, rest = thing.phrase.partition(" ")
        if article in ("a", "an"):
            vowel = rest[0] in "aeiou" and not rest.startswith(("uni", "ukulele"))
            silent = rest.startswith("hour")
            assert (article == "an") == (vowel or silent), thing.phrase
