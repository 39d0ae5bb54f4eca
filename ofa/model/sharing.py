"""Copies of modules that share their tensors with what they are copied from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def copy_sharing_tensors(
    module: _Module, replaced: Mapping[nn.Module, nn.Module] | None = None
) -> _Module:
    """New modules around the same tensors.

    Args:
        module: is not changed.
        replaced: modules within it, by what shall be in their place.
    """
    memo: dict[int, object] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    memo |= {id(old): new for old, new in (replaced or {}).items()}
    return copy.deepcopy(module, memo)
