"""Requests answered by the library alone, which the server has to agree with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ofa.checkpoint import load_checkpoint
from ofa.export import as_tuple, stack_rows
from ofa.tasks import Task
from ofa.tensors import Tensors
from tests.server.requests import DTYPES


@cache
def load(checkpoint: Path, configuration: Path | None) -> tuple[Task, nn.Module]:
    loaded = load_checkpoint(checkpoint, configuration)
    return loaded.build_task(loaded.default_limits()), loaded.build_generator()


def answer_of_library(
    checkpoint: Path, configuration: Path | None = None, **values: bytes | float
) -> Tensors:
    """What the task makes of a request, without a batch dimension."""
    task, generator = load(checkpoint, configuration)
    row = task.preprocess(
        {name: np.array([v], DTYPES.get(name, np.int32)) for name, v in values.items()}
    )
    with torch.inference_mode():
        outputs = as_tuple(generator(*stack_rows([row], task)))
    found = zip(task.tensors.generator_outputs, outputs, strict=True)
    return task.postprocess({**row, **{spec.name: out[0].numpy() for spec, out in found}})
