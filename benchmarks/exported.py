"""What is measured: pictures, and a checkpoint as `ofa export` writes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import OUTPUT, ROOT
from ofa.tasks import Task, load_task
from ofa.tensors import Tensors

SAMPLES = ROOT / "samples"
_PICTURE_SUFFIXES = {".jpg", ".png", ".webp"}


def list_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder by name.

    Raises:
        FileNotFoundError: it has none.
    """
    pictures = sorted(file for file in folder.iterdir() if file.suffix in _PICTURE_SUFFIXES)
    if not pictures:
        raise FileNotFoundError(f"there are no pictures in {folder}")
    return pictures


def export(checkpoint: Path, name: str, precision: str = "float32") -> Path:
    """Export a checkpoint under a name and return the repository."""
    repository = OUTPUT / "repository"
    command = [str(Path(sys.executable).with_name("ofa")), "export", str(checkpoint)]
    command += ["--repository", str(repository), "--name", name, "--precision", precision]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return repository


def load_exported_task(repository: Path, name: str) -> Task:
    """The pre- and postprocessing of an export."""
    return load_task(repository / f"{name}_preprocess" / "1")


def load_exported_generator(repository: Path, name: str) -> torch.jit.ScriptModule:
    """The generator of an export, as the server's backend loads it."""
    return torch.jit.load(str(repository / f"{name}_generator" / "1" / "model.pt"))


def read_texts(task: Task, row: Tensors, outputs: Sequence[Tensor]) -> list[str]:
    """What a task says of one request, best first.

    Args:
        task: the request's.
        row: what its preprocessing made of the request.
        outputs: of the generator, for a batch of this row alone.
    """
    tensors = {spec.name: row[spec.name] for spec in task.tensors.kept}
    for spec, tensor in zip(task.tensors.generator_outputs, outputs, strict=True):
        tensors[spec.name] = tensor[0].numpy()
    return [text.decode() for text in task.postprocess(tensors)[task.results]]
