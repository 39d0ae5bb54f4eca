"""The made-up text-to-image checkpoint: OFA, a VQGAN, a CLIP and CLIP's vocabulary.

Like the checkpoints of `tests.reference.checkpoints`, it is rebuilt bit for bit from seeds. The
grid of codes and the vocabulary have their published sizes, which the reference has in its code;
all else is small.
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.reference.checkpoints import (
    Recipe,
    digest,
    uncalibrated,
    uniform_weights,
    write_checkpoint,
)
from tests.reference.golden import FOLDER
from tests.reference.vocabulary import byte_alphabet

RECORDING = FOLDER / "text-to-image.json"
PICTURE = FOLDER / "text-to-image.png"

NUM_SAMPLES = 2
NUM_CODES = 1024
TEXT = "A small red CAT, sitting on the naïve 日本 table &amp; it's 10 o'clock"

#: Texts whose token ids alone are recorded.
TEXTS = (
    TEXT,
    "",
    "  Don't   they've\tSPACES\n ",
    "&lt;b&gt; schÃ¶n â€œquotedâ€\x9d ﬁne \uff26\uff35\uff2c\uff2c\x1b[31m width",
    "🍎 ½ Ⅷ ٣ …!!! a_b-c <|startoftext> <code7>",
    "word " * 73,
)

_SIZE = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "resnet_type": "resnet18",
    "code_image_size": 256,
}
RECIPE = Recipe("text-to-image", _SIZE, seed=21)

VQGAN_PARAMS: dict[str, Any] = {
    "embed_dim": 16,
    "n_embed": 8192,
    "kl_weight": 1e-08,
    "ddconfig": {
        "double_z": False,
        "z_channels": 24,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [32],
        "dropout": 0.0,
    },
    "lossconfig": {"target": "taming.modules.losses.vqperceptual.DummyLoss"},
    "temperature_scheduler_config": {"target": "taming.lr_scheduler.LambdaWarmUpCosineScheduler"},
}

_WORDS = "a small red cat dog it's they've don't sitting on the table word naïve 日本 spaces quoted"
_VISION_WIDTH, _TEXT_WIDTH, _SHARED_WIDTH, _PATCH, _GRID = 128, 64, 48, 32, 7

Shapes = Iterable[tuple[str, tuple[int, ...]]]


def uniforms() -> np.ndarray:
    """What decides the draws of both samplers: float64 [samples, codes]."""
    # By few seeds, this one among them, no code at all is drawn by as little as rounding moves.
    return np.random.default_rng(14).random((NUM_SAMPLES, NUM_CODES))


def write(folder: Path) -> str:
    """Write the checkpoint folder; returns the digest of all its weights."""
    settings = {"beam_search": {"beam_size": NUM_SAMPLES}}
    write_checkpoint(folder, RECIPE, uncalibrated(RECIPE), settings, task="text-to-image-synthesis")
    path = folder / "pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    # Else the tied projection repeats the last code for ever, see `decoder.layernorm_embedding`.
    weights["decoder.code_layernorm_embedding.weight"] *= 0.0625
    torch.save(weights, path)

    vqgan = _weights("vqgan", _vqgan_shapes())
    torch.save({"state_dict": vqgan}, folder / "vqgan_model.ckpt")
    configuration = {"model": {"params": VQGAN_PARAMS}}
    (folder / "vqgan_config.json").write_text(json.dumps(configuration))

    num_tokens = _write_clip_vocabulary(folder)
    clip = _weights("clip", _clip_shapes(num_tokens))
    module = torch.nn.Module()
    for name, tensor in clip.items():
        # As OpenAI's file: mostly float16, with three numbers that are no weights.
        _put(module, name, torch.nn.Parameter(tensor.half(), requires_grad=False))
    for name, number in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 1)):
        module.register_buffer(name, torch.tensor(number))
    torch.jit.save(torch.jit.script(module.eval()), str(folder / "ViT-B-16.pt"))
    return digest({**weights, **vqgan, **clip})


def _put(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, torch.nn.Module())
        module = getattr(module, parent)
    module.register_parameter(last, parameter)


def _weights(prefix: str, shapes: Shapes) -> dict[str, torch.Tensor]:
    """Branches of unit variance: norms near 1, biases near 0, the rest 1 / sqrt(inputs)."""
    weights = {}
    for name, shape in shapes:
        is_norm = re.search(r"norm|ln_", name) and name.endswith("weight")
        deviation = 0.1 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
        if name == "token_embedding.weight" or "embed.weight" in name:
            deviation = 1.0
        weights[name] = uniform_weights(
            RECIPE.seed, f"{prefix}.{name}", shape, 1.0 if is_norm else 0.0, deviation
        )
    return weights


def _layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _residual_block(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _layer(f"{name}.norm1", inputs)
    yield from _layer(f"{name}.conv1", outputs, inputs, 3, 3)
    yield from _layer(f"{name}.norm2", outputs)
    yield from _layer(f"{name}.conv2", outputs, outputs, 3, 3)
    if inputs != outputs:
        yield from _layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1)


def _attention_block(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _layer(f"{name}.norm", width)
    for projection in ("q", "k", "v", "proj_out"):
        yield from _layer(f"{name}.{projection}", width, width, 1, 1)


def _vqgan_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    code_width, latents = VQGAN_PARAMS["embed_dim"], VQGAN_PARAMS["ddconfig"]["z_channels"]
    yield "quantize.embed.weight", (VQGAN_PARAMS["n_embed"], code_width)
    yield from _layer("post_quant_conv", latents, code_width, 1, 1)
    yield from _layer("decoder.conv_in", 64, latents, 3, 3)
    for block in ("block_1", "block_2"):
        yield from _residual_block(f"decoder.mid.{block}", 64, 64)
    yield from _attention_block("decoder.mid.attn_1", 64)
    for level, inputs, outputs in ((3, 64, 64), (2, 64, 64), (1, 64, 32), (0, 32, 32)):
        for index in range(2):
            block = f"decoder.up.{level}.block.{index}"
            yield from _residual_block(block, outputs if index else inputs, outputs)
            if level == 3:
                yield from _attention_block(f"decoder.up.3.attn.{index}", 64)
        if level:
            yield from _layer(f"decoder.up.{level}.upsample.conv", outputs, outputs, 3, 3)
    yield from _layer("decoder.norm_out", 32)
    yield from _layer("decoder.conv_out", 3, 32, 3, 3)


def _transformer(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index in range(2):
        block = f"{name}.resblocks.{index}"
        yield f"{block}.attn.in_proj_weight", (3 * width, width)
        yield f"{block}.attn.in_proj_bias", (3 * width,)
        yield from _layer(f"{block}.attn.out_proj", width, width)
        yield from _layer(f"{block}.ln_1", width)
        yield from _layer(f"{block}.mlp.c_fc", 4 * width, width)
        yield from _layer(f"{block}.mlp.c_proj", width, 4 * width)
        yield from _layer(f"{block}.ln_2", width)


def _clip_shapes(num_tokens: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "visual.conv1.weight", (_VISION_WIDTH, 3, _PATCH, _PATCH)
    yield "visual.class_embedding", (_VISION_WIDTH,)
    yield "visual.positional_embedding", (_GRID * _GRID + 1, _VISION_WIDTH)
    yield from _layer("visual.ln_pre", _VISION_WIDTH)
    yield from _transformer("visual.transformer", _VISION_WIDTH)
    yield from _layer("visual.ln_post", _VISION_WIDTH)
    yield "visual.proj", (_VISION_WIDTH, _SHARED_WIDTH)
    yield "token_embedding.weight", (num_tokens, _TEXT_WIDTH)
    yield "positional_embedding", (77, _TEXT_WIDTH)
    yield from _transformer("transformer", _TEXT_WIDTH)
    yield from _layer("ln_final", _TEXT_WIDTH)
    yield "text_projection", (_TEXT_WIDTH, _SHARED_WIDTH)
    yield "logit_scale", ()


def _write_clip_vocabulary(folder: Path) -> int:
    """Every prefix of every word becomes a token; returns the size of the vocabulary."""
    alphabet = byte_alphabet()
    merges: dict[str, None] = {}
    for word in _WORDS.split():
        symbols = [alphabet[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        for end in range(1, len(symbols)):
            merges[f"{''.join(symbols[:end])} {symbols[end]}"] = None
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(["#version: 0.2", *merges]))
    return 2 * len(alphabet) + len(merges) + 2
