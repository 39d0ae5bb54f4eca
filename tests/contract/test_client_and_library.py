"""The client shares no code with the library, so what both must know is compared here."""

import io

import pytest
from PIL import Image

import ofa.errors
import ofa.image
import ofa.options
import ofa_client
from ofa_client import _protocol


def test_options_have_the_same_names_order_and_types() -> None:
    assert list(_protocol.OPTION_DTYPES.items()) == list(ofa.options.OPTION_DTYPES.items())


def test_the_size_limit_is_the_same() -> None:
    assert ofa_client.MAX_IMAGE_BYTES == ofa.image.MAX_IMAGE_BYTES


def refusal(message: str) -> ofa_client.OFAClientError:
    """The client's error for what the library refused inside the server."""
    details = f"in ensemble 'caption', {message}"
    return _protocol.translate_error("INVALID_ARGUMENT", details, server="server", timeout=1)


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "image_bytes",
    [b"", b"not a picture", png(3001, 1), png(99, 99)[:60], bytes(ofa.image.MAX_IMAGE_BYTES + 1)],
    ids=["empty", "not a picture", "too wide", "truncated", "too large"],
)
def test_a_refused_image_is_an_invalid_image_to_the_client(image_bytes: bytes) -> None:
    with pytest.raises(ofa.errors.InvalidImageError) as caught:
        ofa.image.decode_image(image_bytes)
    assert type(refusal(str(caught.value))) is ofa_client.InvalidImageError


@pytest.mark.parametrize(
    "given",
    [{name: -11} for name in _protocol.OPTION_DTYPES]
    + [{"beam_size": 6}, {"num_captions": 5, "beam_size": 4}, {"min_length": 9, "max_length": 8}],
    ids=str,
)
def test_a_refused_option_is_an_invalid_option_to_the_client(given: dict[str, float]) -> None:
    defaults = ofa.options.GenerationOptions(1, 5, 16, 1, 3, 1.0, 1.0)
    limits = ofa.options.OptionLimits(max_beam_size=5, max_length=16)
    with pytest.raises(ofa.errors.InvalidOptionError) as caught:
        ofa.options.resolve_options(given, defaults, limits)
    assert type(refusal(str(caught.value))) is ofa_client.InvalidOptionError
