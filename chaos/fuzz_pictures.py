"""Pictures that no camera makes: real files, damaged, and small files of huge pictures.

Everything is told by the random numbers that are handed in, so a picture can be made again.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from PIL import Image, features

_SIDE = 160
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
#: Values that lengths, counts and offsets are rarely tried with.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def make_corpus(folder: Path) -> list[bytes]:
    """Return real files in every format that is accepted, each made of a picture of the folder."""
    pictures = []
    for file in sorted(folder.glob("*.[jp][pn]g"))[::3]:
        with Image.open(file) as image:
            image.thumbnail((_SIDE, _SIDE))
            pictures.append(image.convert("RGB"))
    files = [file.read_bytes() for file in sorted(folder.glob("*.[jp][pn]g"))[:4]]
    for number, form in enumerate(_formats()):
        files.append(_encode(pictures[number % len(pictures)], *form))
    first, second = pictures[:2]
    frames = {"save_all": True, "append_images": [second] * 3}
    files += [_encode(first, "RGB", kind, frames) for kind in ("GIF", "WEBP", "TIFF", "PNG")]
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "a" * 2000})
    exif.get_ifd(0x8769)[0x9286] = b"c" * 500
    files += [
        _encode(first, "RGB", kind, {"exif": exif}) for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    ]
    return files


def _formats() -> list[tuple[str, str, dict[str, object]]]:
    compressions = ["raw", "tiff_lzw", "tiff_deflate", "packbits"]
    if features.check("libtiff"):
        compressions.append("jpeg")
    return [
        ("RGB", "JPEG", {"quality": 85}),
        ("RGB", "JPEG", {"progressive": True, "restart_marker_rows": 1}),
        ("L", "JPEG", {"icc_profile": b"p" * 3000}),
        ("CMYK", "JPEG", {"comment": b"c" * 1000}),
        *((mode, "PNG", {}) for mode in ("RGB", "RGBA", "P", "1", "L", "LA", "I;16")),
        ("RGB", "WEBP", {"quality": 60}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("P", "GIF", {"transparency": 0}),
        *((mode, "BMP", {}) for mode in ("RGB", "P", "1", "RGBA")),
        *(("RGB", "TIFF", {"compression": compression}) for compression in compressions),
        *((mode, "TIFF", {}) for mode in ("I;16", "1", "P", "CMYK", "LAB")),
    ]


def _encode(image: Image.Image, mode: str, kind: str, settings: dict[str, object]) -> bytes:
    file = io.BytesIO()
    if mode == "LAB":  # Pillow converts to it by a colour profile only
        image = Image.merge("LAB", image.split())
    else:
        image = (
            image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
        )
    image.save(file, kind, **settings)
    return file.getvalue()


def fuzzed_picture(random: Random, corpus: Sequence[bytes]) -> bytes:
    """Return a picture, damaged once or up to four times, or a bomb."""
    if random.random() < 0.12:
        return random.choice(_BOMBS)(random)
    data = random.choice(corpus)
    for _ in range(random.choice((1, 1, 2, 4))):
        damage = random.choice(_DAMAGES)
        data = damage(random, data, corpus) or data
    return data


def _flip_bits(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 2, 8, 64))):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _flip_bits_of_the_head(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    size = min(len(data), 200)
    return _flip_bits(random, data[:size], corpus) + data[size:]


def _put_edge(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A number in place of another, in either order of bytes."""
    form = random.choice(("<H", ">H", "<I", ">I"))
    number = struct.pack(form, random.choice(_EDGES) & (0xFFFF if "H" in form else 0xFFFFFFFF))
    at = random.randrange(min(len(data), random.choice((64, 400, len(data)))))
    return data[:at] + number + data[at + len(number) :]


def _truncate(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data))]


def _cut_out(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:]


def _repeat(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * random.randrange(1, 4) + data[end:]


def _insert(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 4, 64, 1000))) + data[at:]


def _splice(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """The head of one file and the tail of another."""
    other = random.choice(corpus)
    return data[: random.randrange(len(data))] + other[random.randrange(len(other)) :]


def _mix_png_chunks(random: Random, data: bytes, _: Sequence[bytes]) -> bytes | None:
    """A PNG's chunks moved, repeated, left out or damaged, with check sums that are right."""
    chunks = _png_chunks(data)
    if not chunks:
        return None
    at = random.randrange(len(chunks))
    kind, body = chunks[at]
    match random.randrange(4):
        case 0:
            chunks.insert(random.randrange(len(chunks)), chunks.pop(at))
        case 1:
            chunks.insert(at, chunks[at])
        case 2:
            del chunks[at]
        case _ if body:
            chunks[at] = (kind, _flip_bits(random, body, ()))
    return _png(chunks)


def _mix_jpeg_segments(random: Random, data: bytes, _: Sequence[bytes]) -> bytes | None:
    """A JPEG's segments moved, repeated or damaged."""
    if not data.startswith(b"\xff\xd8"):
        return None
    starts = [found.start() for found in re.finditer(rb"\xff[\xc0-\xfe]", data)]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    at = random.randrange(len(parts))
    if random.random() < 0.5:
        parts.insert(random.randrange(len(parts)), parts[at])
    else:
        parts[at] = _put_edge(random, parts[at], ())
    return b"".join(parts)


_DAMAGES: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes | None], ...] = (
    _flip_bits,
    _flip_bits_of_the_head,
    _put_edge,
    _truncate,
    _cut_out,
    _repeat,
    _insert,
    _splice,
    _mix_png_chunks,
    _mix_jpeg_segments,
)


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], len(_PNG_HEAD)
    if data.startswith(_PNG_HEAD):
        while at + 12 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
            at += 12 + length
    return chunks


def _png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    return _PNG_HEAD + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _side(random: Random) -> int:
    """Of a picture that is as large as is taken, larger, or has nothing."""
    return random.choice((0, 1, 2999, 3000, 3000, 3001, 65_535, 0x7FFFFFFF, 0xFFFFFFFF))


def _png_bomb(random: Random) -> bytes:
    """A PNG of one colour, as large as it says or not, with texts that unpack to a lot."""
    width, height = _side(random), _side(random)
    real = min(height, 3001)
    depth, colour, channels = random.choice(((8, 2, 3), (16, 6, 8), (1, 0, 1), (8, 3, 1)))
    zeros = zlib.compress(bytes(min(1 + width * channels, 40_000) * real), 9)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, random.randrange(2))
    texts = zlib.compress(bytes(random.choice((1_000, 2_000_000, 40_000_000))), 9)
    kind, body = random.choice(
        ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0"))
    )
    extra = [(kind, body + texts)] * random.choice((0, 1, 3))
    palette = [(b"PLTE", bytes(768))] if colour == 3 else []
    frames = [(b"acTL", struct.pack(">II", 100_000, 0))] * random.randrange(2)
    data = [(b"IDAT", zeros)] * random.choice((1, 1, 2))
    return _png([(b"IHDR", head), *palette, *frames, *extra, *data, (b"IEND", b"")])


def _gif_bomb(random: Random) -> bytes:
    """A GIF of a large screen, and of many frames anywhere on it."""
    screen = struct.pack("<HHBBB", *(_side(random) & 0xFFFF for _ in range(2)), 0x80, 0, 0) + bytes(
        6
    )
    frames = b""
    for _ in range(random.choice((1, 100, 20_000))):
        x, y, width, height = (random.choice((0, 1, 100, 3000, 65_535)) for _ in range(4))
        frame = b"," + struct.pack("<HHHHB", x, y, width, height, 0) + b"\x02\x02\x44\x01\x00"
        frames += b"!\xf9\x04" + bytes((random.randrange(32), 0, 0, 0, 0)) + frame
    return b"GIF89a" + screen + frames + b";"


def _jpeg_bomb(random: Random) -> bytes:
    """A JPEG of many scans, of another size than it has, or with a chain of metadata."""
    side = random.choice((64, 500, 2900))
    data = _encode(Image.new("RGB", (side, side)), "RGB", "JPEG", {"progressive": True})
    scan = data.rindex(b"\xff\xda")
    scans = data[scan:-2] * random.choice((0, 50, 99, 500, 5_000))
    segments = b"\xff\xe1\xff\xff" + b"Exif\0\0" + random.randbytes(65_527)
    size = struct.pack(">HH", _side(random) & 0xFFFF, _side(random) & 0xFFFF)
    data = data[:2] + segments * random.choice((0, 1, 20)) + data[2:-2] + scans + data[-2:]
    if random.random() < 0.5:
        at = data.index(b"\xff\xc2") + 5
        data = data[:at] + size + data[at + 4 :]
    return data


def _bmp_bomb(random: Random) -> bytes:
    """A BMP that says more of itself than it holds, run-length coded or not."""
    width, height = (_side(random) for _ in range(2))
    bits, compression = random.choice(((24, 0), (8, 1), (4, 2), (32, 3), (1, 0)))
    info = struct.pack("<IIIHHIIIIII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    runs = random.choice((b"\xff\x00", b"\x00\x02\xff\xff", b"\x00\x00")) * 2_000
    data = info + bytes(1024) + runs
    return b"BM" + struct.pack("<IHHI", 14 + len(data), 0, 0, 14 + 40 + 1024) + data


def _exif(random: Random) -> bytes:
    """A TIFF's directories: some that follow themselves, and entries of huge counts."""
    num_directories = random.choice((1, 3, 200))
    content, at = b"", 8
    for number in range(num_directories):
        entries = [
            (0x0112, 3, 1, random.choice((0, 1, 6, 8, 9, 65_535))),
            (
                random.choice((0x8769, 0x8825, 0xA005, 0x014A)),
                4,
                1,
                random.choice((8, at, 1 << 31)),
            ),
            (
                random.choice((0x010E, 0x9286, 0x927C)),
                random.randrange(14),
                *random.choices(_EDGES, k=2),
            ),
        ]
        size = 2 + 12 * len(entries) + 4
        following = random.choice((0, 8, at, at + size)) if number else at + size
        content += struct.pack("<H", len(entries))
        content += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
        content += struct.pack("<I", following)
        at += size
    return b"II*\0\x08\0\0\0" + content


def _exif_bomb(random: Random) -> bytes:
    kind = random.choice(("JPEG", "PNG", "WEBP"))
    prefix = b"Exif\0\0" if kind == "JPEG" else b""
    return _encode(Image.new("RGB", (16, 16)), "RGB", kind, {"exif": prefix + _exif(random)})


def _tiff_bomb(random: Random) -> bytes:
    """A TIFF of strips and tiles that it does not hold."""
    entries = {
        256: _side(random),
        257: _side(random),
        258: random.choice((1, 8, 16, 32, 255)),
        259: random.choice((1, 2, 3, 4, 5, 6, 7, 8, 32_773, 34_712, 50_000)),
        262: random.randrange(10),
        273: random.choice((0, 8, 200, *_EDGES)),
        277: random.choice((0, 1, 3, 4, 65_535)),
        278: random.choice(_EDGES),
        279: random.choice(_EDGES),
    }
    if random.random() < 0.4:
        entries |= {322: _side(random), 323: _side(random), 324: 8, 325: random.choice(_EDGES)}
    body = struct.pack("<H", len(entries))
    for tag, value in sorted(entries.items()):
        count = 1 if random.random() < 0.8 else random.choice(_EDGES)
        body += struct.pack("<HHII", tag, random.choice((3, 4, 4, 16)), count, value)
    following = random.choice((0, 8, 0xFFFFFFFF))
    return b"II*\0\x08\0\0\0" + body + struct.pack("<I", following) + random.randbytes(2_000)


def _webp_bomb(random: Random) -> bytes:
    """A WebP of a large canvas and of many frames."""
    small = _encode(Image.new("RGBA", (2, 2)), "RGBA", "WEBP", {"lossless": True})[12:]
    canvas = b"".join(struct.pack("<I", _side(random) & 0xFFFFFF)[:3] for _ in range(2))
    head = b"VP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + canvas
    body = struct.pack("<I", _side(random) & 0xFFFFFF)[:3] * 2 + b"\1\0\0\1\0\0\0\0\0\0" + small
    frame = b"ANMF" + struct.pack("<I", len(body)) + body
    chunks = head + b"ANIM" + struct.pack("<I", 6) + bytes(6) + frame * random.choice((1, 5_000))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


_BOMBS: tuple[Callable[[Random], bytes], ...] = (
    _png_bomb,
    _gif_bomb,
    _jpeg_bomb,
    _bmp_bomb,
    _exif_bomb,
    _exif,
    _tiff_bomb,
    _webp_bomb,
    lambda random: random.randbytes(random.choice((0, 1, 10, 10_485_760, 10_485_761))),
)
