"""One small picture through every model before the first request.

`ofa export` writes the tensors as Triton reads them: `MODEL/warmup/INPUT`, raw. Triton itself sends
them to preprocess, generator and postprocess while it loads them. It takes no warm-up for an
ensemble, so `ofa serve` sends that one, through gRPC like any client, before it says ready.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ofa_server.tensors import Tensors

_FOLDER = "warmup"
_TRITON_TYPES = {
    np.dtype(np.object_): "TYPE_STRING",
    np.dtype(np.uint8): "TYPE_UINT8",
    np.dtype(np.int32): "TYPE_INT32",
    np.dtype(np.int64): "TYPE_INT64",
    np.dtype(np.float32): "TYPE_FP32",
}


def warmup_image() -> bytes:
    """A grey PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "grey").save(buffer, "PNG")
    return buffer.getvalue()


def write_warmup_files(model: Path, tensors: Tensors) -> None:
    """Writes the tensors of one request, without batch dimension, beside a model's versions."""
    (model / _FOLDER).mkdir()
    for name, tensor in tensors.items():
        (model / _FOLDER / name).write_bytes(_to_raw(tensor))


def warmup_block(tensors: Tensors) -> str:
    """The `model_warmup` of config.pbtxt for the files that `write_warmup_files` writes."""
    inputs = "".join(
        f'  inputs {{ key: "{name}" value {{ data_type: {_TRITON_TYPES[tensor.dtype]}'
        f'  dims: {list(tensor.shape)}  input_data_file: "{name}" }} }}\n'
        for name, tensor in tensors.items()
    )
    # TorchScript optimises in its first two runs.
    return f'\nmodel_warmup {{\n  name: "picture"\n  batch_size: 1\n  count: 2\n{inputs}}}\n'


def read_warmup_files(model: Path) -> dict[str, bytes]:
    """Raw tensors by input name; none where a repository was not written by `ofa export`."""
    folder = model / _FOLDER
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}


def _to_raw(tensor: npt.NDArray[Any]) -> bytes:
    if tensor.dtype != np.object_:
        return tensor.tobytes()
    # Triton's form of a BYTES tensor: every element behind its length.
    return b"".join(struct.pack("<I", len(element)) + element for element in tensor.flat)
