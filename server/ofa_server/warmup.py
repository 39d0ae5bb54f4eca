"""One example through every model before the first request.

`ofa export` writes the tensors as Triton reads them: `MODEL/warmup/INPUT`, raw. Triton itself sends
them to preprocess, generator and postprocess while it loads them. It takes no warm-up for an
ensemble, so `ofa serve` sends that one, through gRPC like any client, before it says ready.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa.tensors import Tensors

_FOLDER = "warmup"


def write_warmup_files(model: Path, tensors: Tensors) -> None:
    """Writes the tensors of one request, without batch dimension, beside a model's versions."""
    (model / _FOLDER).mkdir()
    for name, tensor in tensors.items():
        (model / _FOLDER / name).write_bytes(_to_raw(tensor))


def read_warmup_files(model: Path) -> dict[str, bytes]:
    """Raw tensors by input name; none where a repository was not written by `ofa export`."""
    folder = model / _FOLDER
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}


def _to_raw(tensor: npt.NDArray[Any]) -> bytes:
    if tensor.dtype != np.object_:
        return tensor.tobytes()
    # Triton's form of a BYTES tensor: every element behind its length.
    return b"".join(struct.pack("<I", len(element)) + element for element in tensor.flat)
