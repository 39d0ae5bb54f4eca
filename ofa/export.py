"""The one place that knows what kind of artefact Triton loads: TorchScript, for now."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ofa.checkpoint import Checkpoint
from ofa.errors import OFAError
from ofa.lowering import lower, lower_portably
from ofa.options import OptionLimits
from ofa.tasks import Task
from ofa.tensors import Tensors

#: Largest difference of a score between the exported and the eager module.
_SCORE_TOLERANCE = 1e-4
#: What an artefact holds beside its weights.
_MAX_CODE_BYTES = 2**20
#: Namespaces that every build of libtorch has.
_OWN_OPERATORS = ("aten", "prim")


class ExportReport(NamedTuple):
    """What an export found out about its artefact.

    Attributes:
        torch_version: of the exporter; the runtime must be as new.
        operators: names of those in the artefact that are not PyTorch's own (outside of `aten::`
            and `prim::`), sorted; not every build of libtorch has them.
        example_row: what the two modules were compared on.
        example_outputs: the exported module's answer to it.
        score_difference: largest difference between eager and exported floats.
    """

    torch_version: str
    operators: tuple[str, ...]
    example_row: Tensors
    example_outputs: Tensors
    score_difference: float


class ExportError(OFAError):
    """The exported module cannot be written, or does not do what the eager one does."""


def export_generator(
    checkpoint: Checkpoint,
    path: Path,
    limits: OptionLimits,
    precision: str = "float32",
    device: str = "cpu",
    *,
    portable: bool = False,
) -> ExportReport:
    """Write the checkpoint's generator to `path` and check it against the eager one.

    In float32 that is the generator as the checkpoint gives it. A narrow one answers otherwise by
    its nature, so its like before the export is asked. What is made for a GPU is checked on one if
    there is one, else on the CPU, which can run it as well.

    Args:
        checkpoint: what to export.
        path: of the TorchScript file.
        limits: largest options that the artefact will be asked for.
        precision: one of `ofa.lowering.PRECISIONS[device]`.
        device: kind of device that the artefact will run on, "cpu" or "cuda".
        portable: use PyTorch's own operators only; for `ofa.lowering.PORTABLE_PRECISIONS[device]`.

    Raises:
        ExportError: the loaded artefact answers a test picture differently.
        OSError: there is no room for it.
    """
    generator = checkpoint.build_generator()
    task = checkpoint.build_task(limits)
    image_size = checkpoint.task_config.patch_image_size
    if portable:
        lowered = lower_portably(generator, precision)
    else:
        lowered = lower(generator, image_size, precision, device)
    # Scripting comes before the first call, so that no bias computed for a shape is saved.
    scripted = torch.jit.script(lowered)
    operators = foreign_operators(scripted)
    _reserve(path, generator)
    scripted.save(str(path))  # type: ignore[no-untyped-call]
    eager = generator if precision == "float32" else lowered
    del generator, lowered, scripted
    on = torch.device(device if torch.cuda.is_available() else "cpu")
    exported = torch.jit.load(str(path), map_location=on)  # type: ignore[no-untyped-call]
    row = task.preprocess(task.example_request())
    batch = [tensor.to(on) for tensor in stack_rows([row], task)]
    if on.type != "cpu":
        # Its tensors are the checkpoint's, which stay where they are.
        eager = copy.deepcopy(eager).to(on)
    # A GPU's convolutions would round their inputs to 10 bits, and not alike in both.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        eager_outputs = as_tuple(eager(*batch))
        exported_outputs = as_tuple(exported(*batch))
    names = [spec.name for spec in task.tensors.generator_outputs]
    outputs = [tensor[0].cpu().numpy() for tensor in exported_outputs]
    return ExportReport(
        torch_version=torch.__version__,
        operators=operators,
        example_row=row,
        example_outputs=dict(zip(names, outputs, strict=True)),
        score_difference=_score_difference(eager_outputs, exported_outputs),
    )


def _reserve(path: Path, generator: nn.Module) -> None:
    """Tries whether there is room for the weights in float32, which is the most they take.

    torch ends the whole process when a disk is full.

    Raises:
        OSError: there is not.
    """
    tensors = {id(tensor): tensor for tensor in (*generator.parameters(), *generator.buffers())}
    num_bytes = sum(tensor.nbytes for tensor in tensors.values()) + _MAX_CODE_BYTES
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)


def foreign_operators(module: torch.jit.ScriptModule) -> tuple[str, ...]:
    """Names of the operators of a module, in all that it calls, that are not PyTorch's own."""
    names: list[str] = torch.jit.export_opnames(module)  # type: ignore[no-untyped-call]
    return tuple(sorted({name for name in names if name.partition("::")[0] not in _OWN_OPERATORS}))


def _score_difference(eager: Sequence[Tensor], exported: Sequence[Tensor]) -> float:
    """Largest difference of a score.

    Raises:
        ExportError: it is too large, or the tokens differ.
    """
    largest = torch.zeros((), device=eager[0].device)
    for ours, theirs in zip(eager, exported, strict=True):
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
    return difference


def stack_rows(rows: Sequence[Tensors], task: Task) -> list[Tensor]:
    """Rows of `task.preprocess`, equal in shape, as the generator's arguments for one batch."""
    return [
        torch.from_numpy(np.stack([row[spec.name] for row in rows]))
        for spec in task.tensors.generator_inputs
    ]


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A generator's outputs, whether it has one or several."""
    return (outputs,) if isinstance(outputs, Tensor) else outputs
