"""A task's inputs as the tensors that config.pbtxt names. Nothing here imports torch or Triton."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ofa.options import OPTION_DTYPES
from ofa.tasks.captioning import GeneratorInputs

#: Tensors of one request or answer by name, without their batch dimension.
Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]


def options_in(tensors: Tensors) -> dict[str, int | float]:
    """The options that a request names, from tensors of shape [1]."""
    return {name: tensors[name].item() for name in OPTION_DTYPES if name in tensors}


def generator_tensors(row: GeneratorInputs) -> Tensors:
    """One row for the generator: pixels, prompt and every option as a tensor of shape [1]."""
    options = {
        name: np.array([getattr(row.options, name)], dtype) for name, dtype in OPTION_DTYPES.items()
    }
    return {"patch_images": row.patch_images, "source_ids": row.source_ids, **options}
