"""What one picture needs when nothing is computed or read twice, from the shapes alone.

Counted are convolutions and matrix products, two operations a multiply-add, and the numbers that a
decoder step reads of weights, keys and values. `limits.py` turns them into seconds.
"""

from __future__ import annotations

from typing import NamedTuple

from ofa.model import ModelConfig
from ofa.model.config import RESNET_BLOCKS
from ofa.model.resnet import PATCH_STRIDE, RESNET_CHANNELS
from ofa.model.vit import VIT_SIZES


class Work(NamedTuple):
    """Floating-point operations of one stage.

    Attributes:
        convolutions: in convolutions.
        products: in matrix products.
    """

    convolutions: int
    products: int


def count_work(
    config: ModelConfig, image_size: int, prompt_length: int, num_steps: int, beam_size: int
) -> dict[str, Work]:
    """Operations by stage, for one picture.

    Args:
        config: the architecture.
        image_size: pixels on a side of the picture.
        prompt_length: tokens of the prompt, BOS and EOS counted.
        num_steps: tokens of the answer, EOS counted.
        beam_size: hypotheses kept alive.
    """
    width = config.d_model
    source = _count_patches(config, image_size) + prompt_length
    # Queries, keys, values and output; two feed-forward projections; scores and their weighted sum.
    encoder_layer = (
        4 * _product(source, width, width)
        + 2 * _product(source, width, config.encoder_ffn_dim)
        + 2 * _product(source, width, source)
    )
    # Self-attention's four projections and cross-attention's two; its keys and values exist.
    decoder_token = (
        6 * _product(1, width, width)
        + 2 * _product(1, width, config.decoder_ffn_dim)
        + 2 * _product(1, width, source)
    )
    vocabulary = _product(1, width, config.vocab_size)
    past = sum(2 * _product(1, width, step + 1) for step in range(num_steps))
    tokens = num_steps * (config.decoder_layers * decoder_token + vocabulary)
    return {
        "stem": _vit(config, image_size) if config.use_ofasys else _resnet(config, image_size),
        "encoder": Work(0, config.encoder_layers * encoder_layer),
        "cross keys, values": Work(0, config.decoder_layers * 2 * _product(source, width, width)),
        "decoding": Work(0, beam_size * (tokens + config.decoder_layers * past)),
    }


def count_step_numbers(config: ModelConfig, image_size: int, prompt_length: int) -> dict[str, int]:
    """Numbers that every decoder step reads, by kind.

    Args:
        config: the architecture.
        image_size: pixels on a side of the picture.
        prompt_length: tokens of the prompt, BOS and EOS counted.

    Returns:
        "weights" of the layers and of the "vocabulary", once for a batch; "keys, values" of the
        source, once for every picture of it.
    """
    width = config.d_model
    source = _count_patches(config, image_size) + prompt_length
    layers = config.decoder_layers
    return {
        "weights": layers * (6 * width * width + 2 * width * config.decoder_ffn_dim),
        "vocabulary": width * config.vocab_size,
        "keys, values": layers * 2 * source * width,
    }


def _product(rows: int, inner: int, columns: int) -> int:
    """Operations of a matrix product [rows, inner] x [inner, columns]."""
    return 2 * rows * inner * columns


def _count_patches(config: ModelConfig, image_size: int) -> int:
    if config.use_ofasys:
        return int((image_size // VIT_SIZES[config.vit_type].patch_size) ** 2)
    return int(_ceil_div(image_size, PATCH_STRIDE) ** 2)


def _vit(config: ModelConfig, image_size: int) -> Work:
    """The vision transformer and the projection of its features."""
    size, num_patches = VIT_SIZES[config.vit_type], _count_patches(config, image_size)
    width = size.width
    block = (
        4 * _product(num_patches, width, width)
        + 2 * _product(num_patches, width, 4 * width)
        + 2 * _product(num_patches, width, num_patches)
    )
    projection = _product(num_patches, width, config.d_model)
    return Work(
        convolutions=_product(num_patches, 3 * size.patch_size**2, width),
        products=size.num_layers * block + projection,
    )


def _resnet(config: ModelConfig, image_size: int) -> Work:
    """The three ResNet stages, every convolution as a matrix product, and their projection."""
    side = _ceil_div(image_size, 2)
    total = _product(side**2, 3 * 7 * 7, 64)
    side = _ceil_div(side, 2)
    channels = 64
    for stage, num_blocks in enumerate(RESNET_BLOCKS[config.resnet_type]):
        planes = 64 * 2**stage
        for block in range(num_blocks):
            outer_side = side
            if block == 0:
                side = _ceil_div(side, 1 if stage == 0 else 2)
                total += _product(side**2, channels, 4 * planes)
            total += _product(outer_side**2, channels, planes)
            total += _product(side**2, 9 * planes, planes)
            total += _product(side**2, planes, 4 * planes)
            channels = 4 * planes
    return Work(total, _product(side**2, RESNET_CHANNELS, config.d_model))


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)
