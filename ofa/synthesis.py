"""What a text-to-image checkpoint holds beside OFA: the VQGAN that paints, the CLIP that judges.

Source: modelscope `ofa_for_text_to_image_synthesis_model.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ofa import torchscript_archive
from ofa.checkpoint_files import read_json, read_pickle, read_tensors
from ofa.clip_tokenizer import CONTEXT_LENGTH, CLIPTokenizer
from ofa.errors import CheckpointError
from ofa.generation.image_generator import ImageGenerator
from ofa.model import ModelConfig, OFAModel
from ofa.model.clip import CLIP, CLIPConfig
from ofa.model.vqgan import VQGAN, VQGANConfig
from ofa.task_config import TaskConfig
from ofa.tokenizer import Tokenizer

_VQGAN_CONFIG_FILE = "vqgan_config.json"
_VQGAN_WEIGHTS_FILE = "vqgan_model.ckpt"
_CLIP_WEIGHTS_FILE = "ViT-B-16.pt"

_M = TypeVar("_M", bound=nn.Module)


def build_image_generator(
    folder: Path, model: OFAModel, config: TaskConfig, tokenizer: Tokenizer
) -> ImageGenerator:
    """The networks of a checkpoint folder with their search, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or malformed, or the files contradict each other.
    """
    code_ids = range(tokenizer.first_code_id, tokenizer.first_bin_id)
    _check_search(config, model.config, code_ids)
    vqgan = load_vqgan(folder)
    if vqgan.config.num_codes != len(code_ids):
        raise CheckpointError(
            f"{_VQGAN_CONFIG_FILE}: n_embed is {vqgan.config.num_codes}; the vocabulary has "
            f"{len(code_ids)} codes"
        )
    clip = load_clip(folder)
    clip_tokenizer = CLIPTokenizer(folder)
    for name, found, expected in (
        ("context_length", clip.config.context_length, CONTEXT_LENGTH),
        ("vocab_size", clip.config.vocab_size, clip_tokenizer.vocab_size),
    ):
        if found != expected:
            raise CheckpointError(
                f"{_CLIP_WEIGHTS_FILE}: {name} is {found}; the tokenizer asks for {expected}"
            )
    return ImageGenerator(model, code_ids, vqgan, clip, config.defaults.temperature).eval()


def _check_search(config: TaskConfig, model: ModelConfig, code_ids: range) -> None:
    """Refuse a `beam_search` block under which the reference draws other pictures than we do."""
    if model.use_ofasys:
        raise CheckpointError("config.json: use_ofasys has no codes; text to image needs them")
    num_codes = model.code_grid_size**2
    for name, value, required in (
        ("max_len_b", config.defaults.max_length, num_codes),
        ("min_len", config.defaults.min_length, num_codes),
        ("max_len_a", config.search.max_length_a, 0.0),
        ("match_source_len", config.search.match_source_length, False),
        ("no_repeat_ngram_size", config.defaults.no_repeat_ngram_size, 0),
        (
            "constraint_range",
            config.search.constraint_range or (code_ids.start, code_ids.stop),
            (code_ids.start, code_ids.stop),
        ),
    ):
        if value != required:
            raise CheckpointError(
                f"configuration.json: beam_search.{name} is {value}; with these codes and a "
                f"code_image_size of {model.code_image_size} it must be {required}"
            )
    if model.code_grid_size > model.image_bucket_size:
        raise CheckpointError(
            f"config.json: code_image_size is {model.code_image_size}; the position table allows "
            f"up to {8 * model.image_bucket_size + 7}"
        )


def load_vqgan(folder: Path) -> VQGAN:
    """The decoder of the folder's VQGAN in float32, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or malformed, or they contradict each other.
    """
    config = VQGANConfig.from_dict(read_json(folder / _VQGAN_CONFIG_FILE))
    path = folder / _VQGAN_WEIGHTS_FILE
    return _load_module(lambda: VQGAN(config), read_tensors(path, _read_lightning), path)


def load_clip(folder: Path) -> CLIP:
    """The folder's CLIP in float32, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or malformed, or is not a CLIP of the supported kind.
    """
    path = folder / _CLIP_WEIGHTS_FILE
    tensors = read_tensors(path, torchscript_archive.read_tensors)
    try:
        config = CLIPConfig.from_tensors(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    return _load_module(lambda: CLIP(config), tensors, path)


def _read_lightning(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = read_pickle(path)["state_dict"]
    return state


def _load_module(build: Callable[[], _M], tensors: Mapping[str, Tensor], path: Path) -> _M:
    """The module with its tensors; others (encoders, losses, counters) are left in the file."""
    with torch.device("meta"):
        module = build()
    state = {}
    for name, meta in module.state_dict().items():
        if name not in tensors:
            raise CheckpointError(f"{path.name} lacks the tensor {name}")
        if tensors[name].shape != meta.shape:
            raise CheckpointError(
                f"{path.name}: tensor {name} has shape {list(tensors[name].shape)}; "
                f"the architecture asks for {list(meta.shape)}"
            )
        state[name] = tensors[name].to(meta.dtype)
    module.load_state_dict(state, assign=True)
    return module.eval()
