"""Turns emoji drawings out of npm packages into small transparent pictures, once.

    python -m training.sprites

needs `npm ci` in this folder before it, and writes build/sprites/STYLE/CODEPOINTS.png.
"""

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image
from tqdm import tqdm

from training.things import Thing, load_things

PACKAGES = Path(__file__).with_name("node_modules")
SPRITES = Path(__file__).parent.parent / "build" / "sprites"
SPRITE_SIZE = 256
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"

TRAINING_STYLES = ("twemoji", "noto", "noto-v1", "fluent-emoji-flat")
# Shaded drawings by the artists of fluent-emoji-flat: never seen in training.
LEFT_OUT_STYLE = "fluent-emoji"


def _icon_names() -> dict[str, str]:
    """Maps an emoji to the name that all icon packages file it under: its CLDR name."""
    path = PACKAGES / "cldr-annotations-full" / "annotations" / "en" / "annotations.json"
    annotations = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
    return {
        emoji: re.sub(r"[^a-z0-9]+", "-", entry["tts"][0].lower().replace(APOSTROPHE, "")).strip(
            "-"
        )
        for emoji, entry in annotations.items()
        if "tts" in entry
    }


def _svg(package: Mapping[str, Any], name: str) -> str | None:
    """The SVG document of one icon, or None where the package does not draw it."""
    parent = package.get("aliases", {}).get(name, {}).get("parent", name)
    icon = package["icons"].get(parent)
    if icon is None:
        return None
    width = icon.get("width", package["width"])
    height = icon.get("height", package["height"])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">'
        f"{icon['body']}</svg>"
    )


def _rasterise(svg: str) -> Image.Image:
    """Draws an SVG and trims the transparent border, so that position and size mean the thing."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, height=SPRITE_SIZE))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    return image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox())


def sprite_path(style: str, thing: Thing) -> Path:
    """Where the drawing of a thing in a style lies."""
    codepoints = "-".join(f"{ord(char):x}" for char in thing.emoji if char != "\ufe0f")
    return SPRITES / style / f"{codepoints}.png"


def draw_all(styles: Sequence[str]) -> None:
    """Rasterises every thing in every style that has it."""
    names = _icon_names()
    for style in styles:
        icons = PACKAGES / "@iconify-json" / style / "icons.json"
        package = json.loads(icons.read_text(encoding="utf-8"))
        (SPRITES / style).mkdir(parents=True, exist_ok=True)
        for thing in tqdm(load_things(), desc=style):
            name = names.get(thing.emoji) or names[thing.emoji.replace("\ufe0f", "")]
            svg = _svg(package, name)
            if svg is not None:
                _rasterise(svg).save(sprite_path(style, thing))


if __name__ == "__main__":
    draw_all([*TRAINING_STYLES, LEFT_OUT_STYLE])
