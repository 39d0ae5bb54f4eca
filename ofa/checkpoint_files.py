"""Files of a checkpoint folder, read without running what they may hold."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        CheckpointError: the file is missing, is no JSON, or holds something else.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name} is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path.name} must hold an object")
    return values


def read_tensors(path: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by name, as `read` finds them in a weight file.

    Raises:
        CheckpointError: the file is missing, `read` fails, or it finds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.name} is missing")
    # A damaged file makes the readers raise nearly anything.
    try:
        tensors = read(path)
    except Exception as error:
        raise CheckpointError(
            f"{path.name} is not a weight file that can be read safely"
        ) from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CheckpointError(f"{path.name} must hold tensors by name")
    return dict(tensors)


def read_pickle(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote, tensors and plain containers only; mapped into memory if it can be.

    Files of torch before 1.6 are no zip archives and cannot be mapped.
    """
    values: dict[str, Any] = torch.load(
        path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
    )
    return values
