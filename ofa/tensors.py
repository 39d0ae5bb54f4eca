"""What travels from part to part: arrays by name, and the names, types and shapes they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

#: Arrays of one request, row or answer by name, without a batch dimension; bytes as objects.
Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]


class TensorSpec(NamedTuple):
    """One tensor of an interface.

    Attributes:
        name: the same wherever it occurs.
        dtype: numpy's; `np.object_` stands for bytes (Triton's STRING).
        dims: without the batch dimension; -1 where it varies.
        optional: may be left out.
    """

    name: str
    dtype: type[np.generic]
    dims: tuple[int, ...]
    optional: bool = False
