"""Captions pictures through a Triton of its own and stops it again: `make demo`.

Starts `ofa serve` on free ports, sends every picture with `ofa_client`, prints what comes back, and
pastes pictures and captions onto one sheet.
"""

import argparse
import math
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ofa_client import OFAClient, OFAClientError
from ofa_server.background import running_server
from ofa_server.errors import ServerError

TILE = 256  # pixels of a picture on the sheet
MARGIN = 16
LINE = 20
COLUMNS = 4


@dataclass(frozen=True)
class Captioned:
    """One picture and what the server said of it."""

    picture: Path
    text: str
    score: float
    seconds: float


def main() -> int:
    """Run the demo; 1 when the server does not start or does not answer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repository", type=Path, required=True, help="written by `ofa export`")
    parser.add_argument("--contact-sheet", type=Path, required=True, help="PNG to write")
    parser.add_argument("samples", type=Path, help="folder with pictures")
    arguments = parser.parse_args()
    pictures = sorted(
        file for file in arguments.samples.iterdir() if file.suffix in {".jpg", ".png", ".webp"}
    )
    if not pictures:
        parser.error(f"there are no pictures in {arguments.samples}")
    log = arguments.contact_sheet.with_name("demo-server.log")
    print(f"starting Triton; its log is {log}", flush=True)
    try:
        with running_server(arguments.repository, log) as address:
            captioned = caption_all(pictures, address)
            print("stopping Triton", flush=True)
    except (ServerError, OFAClientError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    draw_contact_sheet(captioned).save(arguments.contact_sheet)
    print(f"pictures and captions: {arguments.contact_sheet}")
    return 0


def caption_all(pictures: list[Path], address: str) -> list[Captioned]:
    """Send one picture after another and print each answer as it comes."""
    width = max(len(picture.name) for picture in pictures)
    print(f"\n{'picture':<{width}}  {'score':>6}  {'ms':>5}  caption")
    captioned = []
    with OFAClient(address) as client:
        for picture in pictures:
            start = time.monotonic()
            best = client.caption(picture).captions[0]
            seconds = time.monotonic() - start
            captioned.append(Captioned(picture, best.text, best.score, seconds))
            print(
                f"{picture.name:<{width}}  {best.score:6.3f}  {seconds * 1e3:5.0f}  {best.text}",
                flush=True,
            )
    print()
    return captioned


def draw_contact_sheet(captioned: list[Captioned]) -> Image.Image:
    """Return the pictures in a grid, each with its caption and name below."""
    columns = min(COLUMNS, len(captioned))
    rows = math.ceil(len(captioned) / columns)
    tile_height = TILE + 4 * LINE
    sheet = Image.new(
        "RGB",
        (MARGIN + columns * (TILE + MARGIN), MARGIN + rows * (tile_height + MARGIN)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    small = ImageFont.load_default(11)
    for index, item in enumerate(captioned):
        left = MARGIN + index % columns * (TILE + MARGIN)
        top = MARGIN + index // columns * (tile_height + MARGIN)
        with Image.open(item.picture) as opened:
            picture = ImageOps.contain(ImageOps.exif_transpose(opened).convert("RGB"), (TILE, TILE))
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top))
        for line, text in enumerate(textwrap.wrap(item.text, 34)[:3]):
            draw.text((left, top + TILE + 4 + line * LINE), text, "black", font)
        draw.text((left, top + TILE + 4 + 3 * LINE), item.picture.name, "grey", small)
    return sheet


if __name__ == "__main__":
    sys.exit(main())
