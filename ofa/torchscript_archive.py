"""The weights in a TorchScript archive, read without running anything that the archive holds.

An archive is a zip file. Its `data.pkl` pickles the module as a tree of objects whose attributes
are tensors and further objects; the bytes of the tensors are files of their own. `torch.jit.load`
would compile and partly run the code beside them. Here only the tree is read, by an unpickler that
knows six harmless names.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


class _Module:
    """Stands for every class of the archive; unpickling fills its attributes."""


def _rebuild_tensor(
    values: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_unused: object
) -> Tensor:
    return values.as_strided(size, stride, offset)


def _without_type_tag(value: object, *_tag: object) -> object:
    return value


class _TreeUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> object:
        if module.partition(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":
            return _without_type_tag
        known: dict[tuple[str, str], object] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a TorchScript archive")
        return known[module, name]

    def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        _, dtype, key, _, _ = pid
        content = self._archive.read(f"{self._root}/data/{key}")
        return torch.frombuffer(bytearray(content), dtype=dtype)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the module tree under the name that its `state_dict` gives it.

    Tensors that are plain attributes are there too.

    Raises:
        Exception: nearly any, if the file is no such archive or a damaged one.
    """
    with zipfile.ZipFile(path) as archive:
        [root] = {
            name.partition("/")[0] for name in archive.namelist() if name.endswith("/data.pkl")
        }
        return dict(_named_tensors(_TreeUnpickler(archive, root).load(), ""))


def _named_tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _named_tensors(value, f"{prefix}{name}.")
