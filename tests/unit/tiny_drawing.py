"""A made-up text-to-image checkpoint that draws pictures of 4 x 4 codes and 32 x 32 pixels."""

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ofa.clip_tokenizer import CONTEXT_LENGTH
from ofa.model import OFAModel
from ofa.model.clip import CLIP, CLIPConfig
from ofa.model.vqgan import VQGAN, VQGANConfig
from tests.unit import tiny

GRID_SIZE = 4
PICTURE_SIZE = 8 * GRID_SIZE
NUM_CODES = GRID_SIZE**2

VQGAN_PARAMS: dict[str, Any] = {
    "embed_dim": 8,
    "n_embed": 8192,
    "ddconfig": {
        "z_channels": 8,
        "resolution": PICTURE_SIZE,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
    },
}

#: What the byte-pair encoding knows, letter by letter: "a red dog's cat".
CLIP_MERGES = ["c a", "ca t</w>", "r e", "re d</w>", "d o", "do g</w>", "' s</w>"]
NUM_CLIP_TOKENS = 512 + len(CLIP_MERGES) + 2


def make_vqgan(seed: int = 0) -> VQGAN:
    """A VQGAN with random weights whose pictures have contrast."""
    torch.manual_seed(seed)
    vqgan = VQGAN(VQGANConfig.from_dict({"model": {"params": VQGAN_PARAMS}})).eval()
    with torch.no_grad():
        vqgan.decoder.conv_out.weight.mul_(4)
    return vqgan.requires_grad_(requires_grad=False)


def make_clip(seed: int = 0) -> CLIP:
    """A CLIP with random weights, for pictures of 24 x 24 pixels."""
    torch.manual_seed(seed)
    config = CLIPConfig(
        image_size=24,
        patch_size=8,
        vision_width=64,
        vision_layers=2,
        text_width=64,
        text_layers=2,
        context_length=CONTEXT_LENGTH,
        vocab_size=NUM_CLIP_TOKENS,
        shared_width=16,
    )
    clip = CLIP(config).eval()
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            if "embedding" in name or "proj" in name.rpartition(".")[2]:
                parameter.normal_(0, 0.3)
    return clip.requires_grad_(requires_grad=False)


def make_model(seed: int = 0) -> OFAModel:
    """An OFA that writes 4 x 4 codes, not one and the same for ever."""
    model = tiny.make_model(
        tiny.make_config(code_image_size=PICTURE_SIZE, max_position_embeddings=128), seed
    )
    with torch.no_grad():
        model.decoder.code_layernorm_embedding.weight.mul_(0.1)
        model.decoder.layer_norm.bias.zero_()  # which prefers the end token
        model.decoder.embed_tokens.weight[-tiny.NUM_CODES_AND_BINS :] *= 6
    return model


def write_clip_vocabulary(folder: Path) -> None:
    """`bpe_simple_vocab_16e6.txt.gz`."""
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(["#version: 0.2", *CLIP_MERGES]))


def write_clip(path: Path, tensors: dict[str, Tensor]) -> None:
    """A TorchScript archive as OpenAI publishes it, in float16 and with numbers beside."""
    module = nn.Module()
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        parent = module
        for part in parents:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.register_parameter(last, nn.Parameter(tensor.half(), requires_grad=False))
    module.register_buffer("input_resolution", torch.tensor(24))
    torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]


def write_checkpoint(folder: Path, model: OFAModel, tokenizer_folder: Path) -> None:
    """A checkpoint folder in ModelScope's layout."""
    tiny.write_checkpoint(folder, model, tokenizer_folder)
    settings = {
        "framework": "pytorch",
        "task": "text-to-image-synthesis",
        "model": {
            "type": "ofa",
            "patch_image_size": 64,
            "max_src_length": 64,
            "beam_search": {"beam_size": 3, "max_len_b": NUM_CODES, "min_len": NUM_CODES},
        },
    }
    (folder / "configuration.json").write_text(json.dumps(settings))
    (folder / "vqgan_config.json").write_text(json.dumps({"model": {"params": VQGAN_PARAMS}}))
    # The published file holds the encoder and the losses, too.
    weights = {**make_vqgan().state_dict(), "encoder.conv_in.weight": torch.zeros(1)}
    torch.save({"state_dict": weights, "epoch": 3}, folder / "vqgan_model.ckpt")
    write_clip(folder / "ViT-B-16.pt", make_clip().state_dict())
    write_clip_vocabulary(folder)
