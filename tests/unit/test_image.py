"""Pixels as the reference's steps give them, and limits that hold before anything is decoded."""

import contextlib
import io
import re
import resource
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from ofa.errors import ImageTooLargeError, InvalidImageError
from ofa.image import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_SIDE,
    decode_image,
    resize_document,
    resize_scene,
    resize_square,
)

SIZE = 48


def noise(*shape: int, high: int = 256, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def encode(image: Image.Image, image_format: str = "PNG", **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **settings)
    return file.getvalue()


def rgb() -> Image.Image:
    return Image.fromarray(noise(60, 37, 3))


def palette_with_transparency() -> bytes:
    image = rgb().quantize(16)
    return encode(image, transparency=bytes(range(0, 256, 16)))


def grey_16_bit(image_format: str) -> bytes:
    return encode(Image.fromarray(noise(60, 37, high=65536, dtype="uint16")), image_format)


def animation(image_format: str) -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    return encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50)


def photo_with_preview() -> bytes:
    """Two JPEG pictures in one file, as telephones write them (Multi-Picture Format)."""
    return encode(rgb(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])


PICTURES: dict[str, Callable[[], bytes]] = {
    "RGB": lambda: encode(rgb()),
    "RGBA": lambda: encode(Image.fromarray(noise(60, 37, 4))),
    "LA": lambda: encode(Image.fromarray(noise(60, 37, 2))),
    "grey": lambda: encode(rgb().convert("L")),
    "1-bit": lambda: encode(rgb().convert("1")),
    "palette": lambda: encode(rgb().quantize(16)),
    "palette with one transparent entry": lambda: encode(rgb().quantize(16), transparency=3),
    "palette with transparency": palette_with_transparency,
    "RGB with a transparent colour": lambda: encode(rgb(), transparency=(1, 2, 3)),
    "16-bit PNG": lambda: grey_16_bit("PNG"),
    "16-bit TIFF": lambda: grey_16_bit("TIFF"),
    "float TIFF": lambda: encode(Image.fromarray(noise(60, 37).astype("float32")), "TIFF"),
    "CMYK JPEG": lambda: encode(rgb().convert("CMYK"), "JPEG", quality=95),
    "CMYK TIFF": lambda: encode(rgb().convert("CMYK"), "TIFF"),
    "YCbCr TIFF": lambda: encode(rgb().convert("YCbCr"), "TIFF"),
    "JPEG": lambda: encode(rgb(), "JPEG"),
    "progressive JPEG": lambda: encode(rgb(), "JPEG", progressive=True, subsampling="4:2:0"),
    "photo with preview": photo_with_preview,
    "WEBP": lambda: encode(rgb(), "WEBP"),
    "lossless WEBP with alpha": lambda: encode(
        Image.fromarray(noise(60, 37, 4)), "WEBP", lossless=True
    ),
    "BMP": lambda: encode(rgb(), "BMP"),
    "LZW TIFF": lambda: encode(rgb(), "TIFF", compression="tiff_lzw"),
    "animated GIF": lambda: animation("GIF"),
    "animated WEBP": lambda: animation("WEBP"),
    "animated PNG": lambda: animation("PNG"),
    "one pixel": lambda: encode(Image.new("RGB", (1, 1), (9, 8, 7))),
    "one row": lambda: encode(rgb().resize((200, 1))),
}


def reference_pixels(image_bytes: bytes, size: int) -> np.ndarray:
    """The reference's steps for a path: load_image, then its transform, [size, size, 3]."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(image_bytes))).convert("RGB")
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


# Pillow warns that converting drops the transparency, which is what the reference does too.
@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("name", PICTURES)
def test_pixels_equal_the_references(name: str) -> None:
    image_bytes = PICTURES[name]()
    pixels = resize_square(decode_image(image_bytes), SIZE)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, SIZE, SIZE)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels.transpose(1, 2, 0), reference_pixels(image_bytes, SIZE))


# For every EXIF orientation, what has to be done to the stored rows to see the picture upright.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: np.swapaxes(stored, 0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(np.swapaxes(stored, 0, 1), 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"lossless": True} if image_format == "WEBP" else {}
    stored = np.asarray(decode_image(encode(rgb(), image_format, **settings)))
    turned = decode_image(encode(rgb(), image_format, exif=exif, **settings))
    assert np.array_equal(np.asarray(turned), UPRIGHT[orientation](stored))


def test_alpha_is_dropped_without_compositing() -> None:
    image_bytes = encode(Image.new("RGBA", (2, 2), (10, 20, 30, 0)))
    assert decode_image(image_bytes).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(image_format: str) -> None:
    red, green, blue = decode_image(animation(image_format)).getpixel((5, 5))
    assert red > 250
    assert max(green, blue) < 5


def test_channels_are_red_green_blue_and_rows_come_first() -> None:
    image = Image.new("RGB", (4, 2), (10, 20, 30))
    image.putpixel((3, 0), (200, 201, 202))
    pixels = resize_square(decode_image(encode(image.resize((8, 8), Image.Resampling.NEAREST))), 8)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert pixels[:, 0, 7].tolist() == [200, 201, 202]


@pytest.mark.parametrize(
    ("width", "height", "fitted"),
    [
        (70, 70, (96, 96)),
        (97, 96, (96, 95)),
        (60, 37, (96, 64)),
        (90, 61, (96, 65)),
        (61, 90, (65, 96)),
        (37, 60, (64, 96)),
        (400, 3, (96, 64)),
        (1, 300, (64, 96)),
        (1, 1, (96, 96)),
    ],
)
def test_a_scene_keeps_its_aspect_ratio_between_repeated_edges(
    width: int, height: int, fitted: tuple[int, int]
) -> None:
    size = 96
    scene = Image.fromarray(noise(height, width, 3))
    resized = np.asarray(scene.resize(fitted, Image.Resampling.BICUBIC))
    # Every pixel of the square is the nearest one of the picture in its middle.
    left, top = ((size - side) // 2 for side in fitted)
    rows = [min(max(row - top, 0), fitted[1] - 1) for row in range(size)]
    columns = [min(max(column - left, 0), fitted[0] - 1) for column in range(size)]
    pixels = resize_scene(scene, size)
    assert pixels.shape == (3, size, size)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels.transpose(1, 2, 0), resized[rows][:, columns])


@pytest.mark.parametrize(("width", "height"), [(960, 32), (37, 60)])
def test_a_document_is_four_lines_from_one(width: int, height: int) -> None:
    document = Image.fromarray(noise(height, width, 3))
    line = np.asarray(document.resize((1920, 64), Image.Resampling.BICUBIC))
    pixels = resize_document(document)
    assert pixels.shape == (3, 480, 480)
    assert pixels.flags.c_contiguous
    for row in range(480):
        number, line_row = divmod(min(max(row - 112, 0), 255), 64)
        expected = line[line_row, 480 * number : 480 * (number + 1)]
        assert np.array_equal(pixels[:, row].T, expected)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and has no pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", size) + png_chunk(b"IDAT", b"")


def refuse_to_decode(*args: object) -> None:
    raise AssertionError("a picture was decoded before its size was checked")


@pytest.mark.parametrize(
    ("width", "height"),
    [(3001, 3000), (3000, 3001), (3001, 1), (1, 3001), (49_999_999, 1)],
)
def test_too_many_pixels_are_refused_from_the_header(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse_to_decode)
    with pytest.raises(ImageTooLargeError) as caught:
        decode_image(png_header(width, height))
    assert str(caught.value) == f"image is {width} x {height} pixels; the limit is 3000 on a side"


def gif_with_frame(width: int, height: int) -> bytes:
    """A GIF of 43 bytes whose first frame says how large it is and that it is to be kept."""
    control = b"!\xf9\x04\x15\0\0\0\0"
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + control + frame + b";"


@pytest.mark.parametrize(
    "bomb", [png_header(100_000, 100_000), png_header(2**31 - 1, 1), gif_with_frame(65_535, 65_535)]
)
def test_a_bomb_goes_off_in_no_memory(bomb: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageTooLargeError) as caught:
        decode_image(bomb)
    assert str(caught.value) == "image has over 100,000,000 pixels; the limit is 3000 on a side"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # KiB


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_is_measured_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, image_format: str
) -> None:
    image_bytes = encode(Image.new("L", (MAX_IMAGE_SIDE + 1, 8)), image_format)
    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse_to_decode)
    with pytest.raises(ImageTooLargeError, match=r"^image is 3001 x 8 pixels; the limit is 3000"):
        decode_image(image_bytes)


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image_bytes = encode(rgb(), "JPEG", progressive=True)
    start = image_bytes.rindex(b"\xff\xda")
    last_scan, end = image_bytes[start:-2], image_bytes[-2:]
    num_scans = image_bytes.count(b"\xff\xda")
    allowed = image_bytes[:-2] + (100 - num_scans) * last_scan + end
    assert decode_image(allowed).size == (37, 60)
    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse_to_decode)
    with pytest.raises(ImageTooLargeError) as caught:
        decode_image(image_bytes[:-2] + 10_000 * last_scan + end)
    assert str(caught.value) == f"image has {num_scans + 10_000:,} JPEG scans; the limit is 100"


def test_only_the_scans_of_a_jpeg_are_counted() -> None:
    """Not what its segments hold, nor what follows its end, as a phone's film does."""
    image_bytes = encode(rgb(), "JPEG", comment=150 * b"\xff\xda")
    assert decode_image(image_bytes + 200 * b"\xff\xda\x00\x02").size == (37, 60)


def test_a_turned_picture_is_measured_as_it_is_stored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image_bytes = encode(Image.new("L", (3000, 2)), exif=exif)
    assert decode_image(image_bytes).size == (2, 3000)


@pytest.mark.parametrize(("width", "height"), [(3000, 3000), (3000, 1), (1, 3000)])
def test_the_largest_picture_is_allowed(width: int, height: int) -> None:
    assert decode_image(encode(Image.new("L", (width, height)))).size == (width, height)


def test_the_largest_file_is_allowed_and_one_byte_more_is_not() -> None:
    picture = encode(rgb())
    assert decode_image(picture.ljust(MAX_IMAGE_BYTES, b"\0")).size == (37, 60)
    with pytest.raises(InvalidImageError) as caught:
        decode_image(picture.ljust(MAX_IMAGE_BYTES + 1, b"\0"))
    assert str(caught.value) == "image has 10,485,761 bytes; the limit is 10,485,760"


def test_no_bytes_are_refused() -> None:
    with pytest.raises(InvalidImageError, match=r"^image is empty \(0 bytes\)$"):
        decode_image(b"")


@pytest.mark.parametrize(
    "image_bytes",
    [
        b"\0",
        b"garbage " * 100,
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"II*\0\x08\0\0\0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        encode(Image.new("RGB", (8, 8)), "ICO"),
        encode(Image.new("RGB", (8, 8)), "TGA"),
        encode(Image.new("RGB", (8, 8)), "PPM"),
        encode(Image.new("RGB", (8, 8)), "PDF"),
        png_header(0, 5),
    ],
    ids=lambda image_bytes: ascii(image_bytes[:12]),
)
def test_what_is_no_picture_is_refused(image_bytes: bytes) -> None:
    with pytest.raises(InvalidImageError) as caught:
        decode_image(image_bytes)
    message = (
        "image cannot be read; supported formats are JPEG, PNG, WEBP, GIF, BMP, TIFF"
        "|image is 0 x 5 pixels; it has none"
    )
    assert re.fullmatch(message, str(caught.value))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_picture_is_refused(image_format: str) -> None:
    image_bytes = encode(rgb(), image_format)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(InvalidImageError, match=r"image (is broken|cannot be read)"):
            decode_image(image_bytes[: int(share * len(image_bytes))])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_raise_nothing_but_the_error_that_is_documented(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    settings = {} if image_format in ("GIF", "BMP") else {"exif": exif}
    intact = encode(rgb(), image_format, **settings)
    numbers = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(intact)
        for place in numbers.integers(0, len(damaged), 8):
            damaged[place] = numbers.integers(0, 256)
        with contextlib.suppress(InvalidImageError):
            assert max(decode_image(bytes(damaged)).size) <= MAX_IMAGE_SIDE
