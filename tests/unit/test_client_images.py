import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ofa_client import MAX_IMAGE_BYTES, ImageTooLargeError, InvalidImageError
from ofa_client._images import to_image_bytes


def decoded(image_bytes: bytes) -> np.ndarray:
    """The pixels as a server sees them: EXIF turned, RGB."""
    with Image.open(io.BytesIO(image_bytes)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    """A JPEG whose EXIF asks for a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(random_pixels(20, 30, 3)).save(path, exif=exif)
    return path


def test_encoded_pictures_go_as_they_are(jpeg: Path) -> None:
    image_bytes = jpeg.read_bytes()
    assert to_image_bytes(str(jpeg)) == image_bytes
    assert to_image_bytes(jpeg) == image_bytes
    assert to_image_bytes(image_bytes) == image_bytes
    assert to_image_bytes(bytearray(image_bytes)) == image_bytes
    assert to_image_bytes(memoryview(image_bytes)) == image_bytes
    assert to_image_bytes(io.BytesIO(image_bytes)) == image_bytes
    with jpeg.open("rb") as file:
        assert to_image_bytes(file) == image_bytes


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"]
)
def test_pil_pictures_arrive_as_their_rgb_conversion(mode: str) -> None:
    source = Image.fromarray(random_pixels(9, 13, 4))
    if mode == "I;16":
        image = Image.fromarray(random_pixels(9, 13).astype(np.uint16) * 200)
    else:
        image = source.convert("RGB").convert(mode) if mode != "RGBA" else source
    assert image.mode == mode
    np.testing.assert_array_equal(decoded(to_image_bytes(image)), np.asarray(image.convert("RGB")))


def test_a_transparent_palette_picture_keeps_its_colours() -> None:
    image = Image.fromarray(random_pixels(9, 13, 3)).convert("P")
    image.info["transparency"] = 3
    np.testing.assert_array_equal(decoded(to_image_bytes(image)), np.asarray(image.convert("RGB")))


def test_pil_pictures_are_not_turned_by_their_exif(jpeg: Path) -> None:
    with Image.open(jpeg) as image:
        sent = to_image_bytes(image)
        np.testing.assert_array_equal(decoded(sent), np.asarray(image))
        assert not Image.open(io.BytesIO(sent)).getexif()
        assert "exif" in image.info, "the caller's picture was changed"


@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 3), (9, 13, 4)])
def test_arrays_arrive_bit_for_bit(shape: tuple[int, ...]) -> None:
    array = random_pixels(*shape)
    expected = np.stack([array] * 3, axis=-1) if array.ndim == 2 else array[..., :3]
    np.testing.assert_array_equal(decoded(to_image_bytes(array)), expected)
    turned = np.swapaxes(array, 0, 1)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(decoded(to_image_bytes(turned)), np.swapaxes(expected, 0, 1))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros(5, np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(
        InvalidImageError, match="image array must be uint8 .*, not " + str(array.dtype)
    ):
        to_image_bytes(array)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0), (0, 0, 4)])
def test_a_picture_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    expected = f"image is {shape[1]} x {shape[0]} pixels"
    with pytest.raises(InvalidImageError, match=expected):
        to_image_bytes(np.zeros(shape, np.uint8))
    with pytest.raises(InvalidImageError, match=expected):
        to_image_bytes(Image.new("RGB", (shape[1], shape[0])))


def test_the_size_limit_includes_its_own_value(tmp_path: Path) -> None:
    limit = bytes(MAX_IMAGE_BYTES)
    assert MAX_IMAGE_BYTES == 10_485_760
    assert to_image_bytes(limit) == limit
    path = tmp_path / "over.jpg"
    path.write_bytes(limit + b"x")
    for image in (path, limit + b"x", io.BytesIO(limit + b"x")):
        with pytest.raises(InvalidImageError, match="image is over 10,485,760 bytes"):
            to_image_bytes(image)


def test_the_size_limit_holds_for_what_becomes_png() -> None:
    with pytest.raises(InvalidImageError, match="image encoded as PNG is over 10,485,760 bytes"):
        to_image_bytes(random_pixels(1900, 1900, 3))


@pytest.mark.parametrize("shape", [(3001, 1), (1, 3001, 3)])
def test_a_picture_of_a_longer_side_is_refused_before_it_is_encoded(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.zeros(shape, np.uint8)
    expected = f"image is {shape[1]} x {shape[0]} pixels; the limit is 3000 on a side"
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("encoded"))
    for image in (array, Image.fromarray(array)):
        with pytest.raises(ImageTooLargeError, match=expected):
            to_image_bytes(image)


def test_the_longest_side_passes() -> None:
    assert decoded(to_image_bytes(np.zeros((3000, 1), np.uint8))).shape == (3000, 1, 3)


def test_a_truncated_pil_picture_is_refused(jpeg: Path) -> None:
    with (
        Image.open(io.BytesIO(jpeg.read_bytes()[:-200])) as image,
        pytest.raises(InvalidImageError, match=r"image cannot be decoded: .*truncated"),
    ):
        to_image_bytes(image)


def test_unreadable_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match=r"nothing.jpg' cannot be read: No such file"):
        to_image_bytes(tmp_path / "nothing.jpg")
    with pytest.raises(InvalidImageError, match="cannot be read: Is a directory"):
        to_image_bytes(tmp_path)


class ShortReads(io.BytesIO):
    """A file that gives less than it is asked for, as a pipe does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1000))


def test_a_file_that_reads_in_parts_is_sent_whole() -> None:
    image_bytes = random_pixels(10_500).tobytes()
    assert to_image_bytes(ShortReads(image_bytes)) == image_bytes
    assert to_image_bytes(ShortReads(bytes(MAX_IMAGE_BYTES))) == bytes(MAX_IMAGE_BYTES)
    file = ShortReads(bytes(MAX_IMAGE_BYTES + 5000))
    with pytest.raises(ImageTooLargeError):
        to_image_bytes(file)
    assert file.tell() == MAX_IMAGE_BYTES + 1


def test_a_file_that_fails_is_refused(jpeg: Path) -> None:
    with jpeg.open("rb") as file:
        pass
    with pytest.raises(InvalidImageError, match=r"image cannot be read: .*closed file"):
        to_image_bytes(file)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("it broke off")

    with pytest.raises(InvalidImageError, match="image cannot be read: it broke off"):
        to_image_bytes(Failing())


def test_other_forms_are_refused(jpeg: Path) -> None:
    with pytest.raises(InvalidImageError, match="open it with mode 'rb'"):
        to_image_bytes(io.StringIO("text"))
    with pytest.raises(InvalidImageError, match=r"image must be a path, .*, not NoneType"):
        to_image_bytes(None)
    with pytest.raises(InvalidImageError, match="not list"):
        to_image_bytes([jpeg])


def test_without_pillow_an_array_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'ofa-client\[pillow\]'"):
        to_image_bytes(np.zeros((2, 2, 3), np.uint8))


def test_a_name_with_a_zero_byte_cannot_be_read() -> None:
    with pytest.raises(InvalidImageError, match="cannot be read: embedded null byte"):
        to_image_bytes("a\0b.jpg")
