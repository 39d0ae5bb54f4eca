"""Makes ModelScope importable without the packages that its OFA image and text tasks never call.

ModelScope imports audio, video and CLIP libraries at module level. Empty stand-ins take their
place, so the oracle's environment stays small. Import this module before `modelscope`.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

UNUSED_PACKAGES = frozenset(
    {
        *("torchaudio", "librosa", "soundfile", "decord", "fairseq", "open_clip"),
        *("pytorch_lightning", "omegaconf"),
    }
)


class _StandIn(ModuleType):
    """A module in which every public name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in UNUSED_PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """A stand-in has no body."""


sys.meta_path.insert(0, _StandInFinder())
# The one that is called: without apex, fairseq's LayerNorm is torch's.
vars(importlib.import_module("fairseq.modules"))["LayerNorm"] = torch.nn.LayerNorm

# torchvision's wheel is linked against CUDA, so its C extension does not load beside a CPU torch.
# It tolerates that once the two operators whose shape functions it registers exist.
_operators = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
