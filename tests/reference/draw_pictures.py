"""Draws the pictures of the recordings: `python -m tests.reference.draw_pictures`.

They are committed (an encoder's bytes may change from release to release, a decoder's pixels must
not); this script shows how they were made.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FOLDER = Path(__file__).parents[1] / "golden" / "pictures"
ORIENTATION_TAG = 0x0112


def _scene(seed: int, width: int, height: int) -> Image.Image:
    """Soft clouds of colour with a horizon and a few shapes: edges, flats and gradients."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    horizon = int(height * rng.uniform(0.4, 0.8))
    draw.rectangle((0, horizon, width, height), fill=tuple(rng.integers(0, 256, 3).tolist()))
    for _ in range(6):
        left, top = rng.uniform(-0.1, 0.9, 2) * (width, height)
        right, bottom = (left, top) + rng.uniform(0.08, 0.5, 2) * (width, height)
        colour = tuple(rng.integers(0, 256, 3).tolist())
        shape = rng.choice(["ellipse", "rectangle", "line"])
        if shape == "line":
            draw.line((left, top, right, bottom), fill=colour, width=1 + width // 50)
        else:
            getattr(draw, shape)((left, top, right, bottom), fill=colour)
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def _sixteen_bit(seed: int, width: int, height: int) -> Image.Image:
    grey = np.asarray(_scene(seed, width, height).convert("L")).astype(np.uint16)
    # Mostly below 256, where Pillow's conversion to RGB clips instead of scaling.
    return Image.fromarray((grey * 2).astype(np.uint16))


def main() -> None:
    """Write every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    _scene(1, 640, 426).save(FOLDER / "scene.jpg", quality=85)
    _scene(2, 333, 500).save(FOLDER / "portrait.jpg", quality=85)
    _scene(3, 97, 41).save(FOLDER / "strip.png")

    turned = Image.Exif()
    turned[ORIENTATION_TAG] = 6
    _scene(4, 300, 200).save(FOLDER / "turned.jpg", quality=85, exif=turned)
    mirrored = Image.Exif()
    mirrored[ORIENTATION_TAG] = 5
    _scene(5, 120, 80).save(FOLDER / "mirrored.png", exif=mirrored)

    _scene(6, 160, 120).quantize(32).save(FOLDER / "palette.png", transparency=3)
    alpha = _scene(7, 100, 75).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    alpha.save(FOLDER / "alpha.png")
    _scene(8, 200, 150).convert("CMYK").save(FOLDER / "cmyk.jpg", quality=85)
    _sixteen_bit(9, 90, 120).save(FOLDER / "sixteen_bit.png")
    _scene(10, 128, 128).convert("LA").save(FOLDER / "grey_alpha.png")
    _scene(11, 150, 101).convert("1").save(FOLDER / "one_bit.png")
    _scene(12, 110, 110).save(FOLDER / "lossy.webp", quality=80)
    frames = [_scene(seed, 64, 48).quantize(16) for seed in (13, 14, 15)]
    frames[0].save(FOLDER / "animated.gif", save_all=True, append_images=frames[1:], duration=80)
    Image.new("RGB", (1, 1), (200, 30, 90)).save(FOLDER / "one_pixel.png")


if __name__ == "__main__":
    main()
