"""The one place that knows what kind of artefact Triton loads: TorchScript, for now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ofa.checkpoint import Checkpoint
from ofa.errors import OFAError
from ofa.options import OptionLimits
from ofa.tasks import Task
from ofa.tensors import Tensors

#: Largest difference of a score between the exported and the eager module.
_SCORE_TOLERANCE = 1e-4


class ExportReport(NamedTuple):
    """What an export found out about its artefact.

    Attributes:
        torch_version: of the exporter; the runtime must be as new.
        example_row: what the two modules were compared on.
        example_outputs: the exported module's answer to it.
        score_difference: largest difference between eager and exported floats.
    """

    torch_version: str
    example_row: Tensors
    example_outputs: Tensors
    score_difference: float


class ExportError(OFAError):
    """The exported module does not do what the eager one does."""


def export_generator(checkpoint: Checkpoint, path: Path, limits: OptionLimits) -> ExportReport:
    """Write the checkpoint's generator to `path` and check it against the eager one.

    Args:
        checkpoint: what to export.
        path: of the TorchScript file.
        limits: largest options that the artefact will be asked for.

    Raises:
        ExportError: the loaded artefact answers a test picture differently.
    """
    generator = checkpoint.build_generator()
    task = checkpoint.build_task(limits)
    # Scripting comes before the first call, so that no bias computed for a shape is saved.
    torch.jit.script(generator).save(str(path))  # type: ignore[no-untyped-call]
    exported = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    row = task.preprocess(task.example_request())
    batch = stack_rows([row], task)
    with torch.inference_mode():
        eager_outputs = as_tuple(generator(*batch))
        exported_outputs = as_tuple(exported(*batch))
    largest = torch.zeros(())
    for ours, theirs in zip(eager_outputs, exported_outputs, strict=True):
        if not ours.is_floating_point():
            if not torch.equal(ours, theirs):
                raise ExportError("the exported module answers a test picture with other tokens")
            continue
        # Where nothing was found, both say -inf, whose difference is no number.
        gaps = (ours - theirs)[ours != theirs].abs()
        # Unlike Python's, this maximum of NaN and a number is NaN.
        largest = torch.cat([gaps, largest[None]]).max()
    difference = float(largest)
    if not difference <= _SCORE_TOLERANCE:
        raise ExportError(
            f"the exported module's scores differ by {difference:g}; "
            f"the limit is {_SCORE_TOLERANCE:g}"
        )
    names = [spec.name for spec in task.tensors.generator_outputs]
    outputs = [tensor[0].numpy() for tensor in exported_outputs]
    return ExportReport(
        torch_version=torch.__version__,
        example_row=row,
        example_outputs=dict(zip(names, outputs, strict=True)),
        score_difference=difference,
    )


def stack_rows(rows: Sequence[Tensors], task: Task) -> list[Tensor]:
    """Rows of `task.preprocess`, equal in shape, as the generator's arguments for one batch."""
    return [
        torch.from_numpy(np.stack([row[spec.name] for row in rows]))
        for spec in task.tensors.generator_inputs
    ]


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A generator's outputs, whether it has one or several."""
    return (outputs,) if isinstance(outputs, Tensor) else outputs
