"""The one place that knows what kind of artefact Triton loads: TorchScript, for now."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ofa.checkpoint import Checkpoint
from ofa.errors import OFAError
from ofa.options import OPTION_DTYPES, GenerationOptions, OptionLimits
from ofa.tasks import CaptioningTask

#: Largest difference of a score between the exported and the eager module.
_SCORE_TOLERANCE = 1e-4


class ExportReport(NamedTuple):
    """What an export found out about its artefact.

    Attributes:
        torch_version: of the exporter; the runtime must be as new.
        input_shapes: of one row, by argument name in order.
        score_difference: largest difference between eager and exported scores.
    """

    torch_version: str
    input_shapes: dict[str, list[int]]
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
    example = _example_row(task)
    with torch.inference_mode():
        eager_ids, eager_scores, _ = generator(*example.values())
        exported_ids, exported_scores, _ = exported(*example.values())
    if not torch.equal(eager_ids, exported_ids):
        raise ExportError("the exported module answers a test picture with other tokens")
    difference = float((eager_scores - exported_scores).abs().max())
    if not difference <= _SCORE_TOLERANCE:
        raise ExportError(
            f"the exported module's scores differ by {difference:g}; "
            f"the limit is {_SCORE_TOLERANCE:g}"
        )
    return ExportReport(
        torch_version=torch.__version__,
        input_shapes={name: list(tensor.shape[1:]) for name, tensor in example.items()},
        score_difference=difference,
    )


def _example_row(task: CaptioningTask) -> dict[str, Tensor]:
    """A reproducible picture of noise with the checkpoint's default options."""
    size = task.settings.patch_image_size
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=noise)
    source_ids = task.tokenizer.encode(task.settings.prompt, task.settings.max_source_length)
    return {
        "patch_images": pixels,
        "source_ids": torch.tensor([source_ids]),
        **option_tensors([task.settings.defaults]),
    }


def option_tensors(rows: list[GenerationOptions]) -> dict[str, Tensor]:
    """Options of a batch as the generator takes them, [B, 1] each."""
    tensors = {}
    for name, dtype in OPTION_DTYPES.items():
        values = [[getattr(row, name)] for row in rows]
        kind = torch.int32 if dtype.__name__ == "int32" else torch.float32
        tensors[name] = torch.tensor(values, dtype=kind)
    return tensors
