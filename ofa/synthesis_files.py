"""What a text-to-image checkpoint holds beside OFA: the VQGAN that draws and the CLIP that judges.

Source: modelscope `ofa_for_text_to_image_synthesis_model.py`, load_vqgan and build_clip_model.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ofa import torchscript_archive
from ofa.errors import CheckpointError
from ofa.model.clip import CLIP, CLIPConfig
from ofa.model.vqgan import VQGAN, VQGANConfig

_VQGAN_CONFIG_FILE = "vqgan_config.json"
_VQGAN_WEIGHTS_FILE = "vqgan_model.ckpt"
_CLIP_WEIGHTS_FILE = "ViT-B-16.pt"

_M = TypeVar("_M", bound=nn.Module)


def load_vqgan(folder: Path) -> VQGAN:
    """The decoder of the folder's VQGAN in float32, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or malformed, or they contradict each other.
    """
    path = folder / _VQGAN_CONFIG_FILE
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name} is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path.name} must hold an object")
    config = VQGANConfig.from_dict(values)
    path = folder / _VQGAN_WEIGHTS_FILE
    return _load_module(lambda: VQGAN(config), _read_tensors(path, _read_lightning), path)


def load_clip(folder: Path) -> CLIP:
    """The folder's CLIP in float32, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or malformed, or is not a CLIP of the supported kind.
    """
    path = folder / _CLIP_WEIGHTS_FILE
    tensors = _read_tensors(path, torchscript_archive.read_tensors)
    try:
        config = CLIPConfig.from_tensors(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    return _load_module(lambda: CLIP(config), tensors, path)


def _read_lightning(path: Path) -> dict[str, Tensor]:
    mmap = zipfile.is_zipfile(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)[
        "state_dict"
    ]
    return state


def _read_tensors(path: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path.name} is missing")
    # A damaged file makes the readers raise nearly anything.
    try:
        return read(path)
    except Exception as error:
        raise CheckpointError(
            f"{path.name} is not a weight file that can be read safely"
        ) from error


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
