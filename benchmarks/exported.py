"""What is measured: a checkpoint as `ofa export` writes it, and the commit that it is of."""

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

#: Where `export` exports to.
REPOSITORY = OUTPUT / "repository"
#: What an export's speed depends on.
_CODE = ("ofa", "server/ofa_server", "client/ofa_client", "model_repository")
# The command's own module, so that the code is that of this Python's path.
_OFA = (sys.executable, "-c", "import sys, ofa_server.cli as cli; sys.exit(cli.main())")


def describe_commit() -> str:
    """The last commit that changed what is measured, with a "+" if more has changed since.

    Empty where there is no git.
    """
    last = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", *_CODE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if last.returncode != 0:
        return ""
    same = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *_CODE], cwd=ROOT, check=False)
    return last.stdout.strip() + "+" * (same.returncode != 0)


def export(
    checkpoint: Path,
    name: str,
    precision: str = "float32",
    device: str = "cpu",
    *,
    portable: bool = False,
) -> Path:
    """Export a checkpoint under a name and return the repository."""
    command = [*_OFA, "export", str(checkpoint), "--repository", str(REPOSITORY), "--name", name]
    command += ["--precision", precision, "--device", device, *["--portable"] * portable]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return REPOSITORY


def load_exported_task(repository: Path, name: str) -> Task:
    """The pre- and postprocessing of an export."""
    return load_task(repository / f"{name}_preprocess" / "1")


def load_exported_generator(
    repository: Path, name: str, device: torch.device | None = None
) -> torch.jit.ScriptModule:
    """The generator of an export, as the server's backend loads it."""
    return torch.jit.load(str(repository / f"{name}_generator" / "1" / "model.pt"), device)


def read_texts(task: Task, row: Tensors, outputs: Sequence[Tensor]) -> list[str]:
    """What a task says of one request, best first.

    Args:
        task: the request's.
        row: what its preprocessing made of the request.
        outputs: of the generator, for a batch that starts with this row.
    """
    tensors = {spec.name: row[spec.name] for spec in task.tensors.kept}
    for spec, tensor in zip(task.tensors.generator_outputs, outputs, strict=True):
        tensors[spec.name] = tensor[0].cpu().numpy()
    return [text.decode() for text in task.postprocess(tensors)[task.results]]
