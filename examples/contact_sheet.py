"""Pictures in a grid, each with what was said of it below."""

import textwrap
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

COLUMNS = 4
SIDE = 256  # pixels of a picture on the sheet
MARGIN = 16
HEADING_HEIGHT = 15
LINE_HEIGHT = 20
GAP = 6  # above each note
LINE_LENGTH = 34  # Latin characters; Chinese ones are twice as wide
FONT = ImageFont.load_default(15)
HEADING_FONT = ImageFont.load_default(11)
# Noto Sans SC, cut down to the characters that the Chinese checkpoint was trained on.
CHINESE_FONT = ImageFont.truetype(Path(__file__).with_name("fonts") / "noto_sans_sc.woff", 15)
FIRST_CHINESE = "\u3000"


class Note(NamedTuple):
    """What was asked, and the answer."""

    heading: str
    text: str


class Tile(NamedTuple):
    """What the sheet shows in one place: a picture, if there is one, and notes."""

    picture: Image.Image | None
    notes: list[Note]


class Line(NamedTuple):
    """One line of text, `top` pixels below the picture."""

    top: int
    text: str
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    colour: str


def draw_contact_sheet(tiles: list[Tile]) -> Image.Image:
    """Return the tiles in rows, each as high as its highest tile."""
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    heights = [max(map(tile_height, row)) + MARGIN for row in rows]
    width = MARGIN + min(COLUMNS, len(tiles)) * (SIDE + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + sum(heights)), "white")
    for index, row in enumerate(rows):
        for column, tile in enumerate(row):
            left = MARGIN + column * (SIDE + MARGIN)
            paste_tile(sheet, tile, left, MARGIN + sum(heights[:index]))
    return sheet


def tile_height(tile: Tile) -> int:
    """Return the pixels that a tile takes."""
    lines = lay_out(tile.notes)
    below = lines[-1].top + LINE_HEIGHT if lines else 0
    return below + (SIDE if tile.picture else 0)


def paste_tile(sheet: Image.Image, tile: Tile, left: int, top: int) -> None:
    """Draw a tile onto the sheet."""
    if tile.picture:
        picture = ImageOps.contain(tile.picture, (SIDE, SIDE))
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, top))
        top += SIDE
    draw = ImageDraw.Draw(sheet)
    for line in lay_out(tile.notes):
        draw.text((left, top + line.top), line.text, line.colour, line.font)


def lay_out(notes: list[Note]) -> list[Line]:
    """Return the notes one below the other, broken into lines."""
    lines = []
    top = 0
    for note in notes:
        top += GAP
        for text in textwrap.wrap(note.heading, LINE_LENGTH * 4 // 3):
            lines.append(Line(top, text, HEADING_FONT, "grey"))
            top += HEADING_HEIGHT
        is_chinese = max(note.text, default="") >= FIRST_CHINESE
        for text in textwrap.wrap(note.text, LINE_LENGTH // 2 if is_chinese else LINE_LENGTH):
            lines.append(Line(top, text, CHINESE_FONT if is_chinese else FONT, "black"))
            top += LINE_HEIGHT
    return lines
