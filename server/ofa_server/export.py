"""Writes a complete, loadable Triton model repository from a checkpoint."""

from __future__ import annotations

import argparse
import errno
import importlib.metadata
import json
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa.hub import fetch_checkpoint
from ofa.options import OptionLimits
from ofa.tasks import TASKS, Task
from ofa.tensors import Tensors, TensorSpec
from ofa_server.errors import ServerError
from ofa_server.processor import default_precision, multiplies_int8
from ofa_server.repository import (
    add_warmup,
    staged_export,
    version_of,
)
from ofa_server.versions import ENSEMBLE, IDENTITY, MANIFEST
from ofa_server.warmup import write_warmup_files

if TYPE_CHECKING:
    from ofa.checkpoint import Checkpoint
    from ofa.export import ExportReport


#: ModelScope's name of each task by its own.
_TASK_NAMES = {task.ensemble: name for name, task in TASKS.items()}
#: `ofa.lowering.PORTABLE_PRECISIONS` has the others; that module imports torch.
_NOT_PORTABLE = ("float16", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ofa export`."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder, or the id of a checkpoint on ModelScope or Hugging Face "
        "(damo/ofa_image-caption_coco_large_en@v1.0.1)",
    )
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="DIR", help="made if missing"
    )
    parser.add_argument(
        "--configuration",
        type=Path,
        metavar="FILE",
        help="read instead of the checkpoint's configuration.json, for another task of its weights",
    )
    parser.add_argument(
        "--task",
        choices=_TASK_NAMES,
        help="for a checkpoint whose configuration names none (default: the configuration's, else "
        "generate)",
    )
    parser.add_argument(
        "--name",
        help="what clients ask for; an earlier export of that name is replaced, unless --version "
        "adds to it (default: the task's: caption, vqa, grounding ...)",
    )
    parser.add_argument(
        "--version",
        type=int,
        metavar="N",
        help="put beside the versions that an earlier export of that name has; `ofa switch` makes "
        "it the one that answers, see docs/versions.md",
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16", "int8"],
        help="of weights and most of the arithmetic, see docs/precision.md; all but float32 answer "
        "slightly otherwise than the reference (default: float32; for CPUs, where this machine has "
        "AMX, bfloat16)",
    )
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="what the model is made for (default: cpu); int8 is for CPUs only",
    )
    parser.add_argument(
        "--portable",
        action="store_true",
        help="use PyTorch's own operators only, which every libtorch has that is as new; slower on "
        "CPUs (docs/precision.md)",
    )
    parser.add_argument(
        "--instances",
        type=int,
        default=1,
        metavar="N",
        help="generators that share the cores, each with weights of its own: more answers a second "
        "of a small network (default: 1; docs/serving.md)",
    )
    for flag, what in (("--max-beam-size", "beam_size"), ("--max-length", "max_length")):
        parser.add_argument(
            flag,
            type=int,
            metavar="N",
            help=f"largest {what} of a request (default: the checkpoint's own {what})",
        )


def run(arguments: argparse.Namespace) -> None:
    """Exports one checkpoint.

    Raises:
        OFAError: the checkpoint cannot be had or read, or the repository cannot take it. The
            repository is then as it was before.
    """
    # Half-written folders are removed on the way out, which the default action would skip.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Who exports can do nothing about how 8-bit weights get into FBGEMM; docs/precision.md has it.
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
    if arguments.precision is None:
        arguments.precision = default_precision(arguments.device)
        print(f"precision: {arguments.precision} (--precision chooses another)", flush=True)
    if arguments.device == "cuda" and arguments.precision == "int8":
        raise ServerError("--precision int8 is for CPUs; --device cuda takes the other precisions")
    if arguments.precision == "int8" and not multiplies_int8():
        raise ServerError(
            "--precision int8 needs a processor with AVX512-VNNI; on others sums of products are "
            "cut off"
        )
    if arguments.portable and arguments.device == "cpu" and arguments.precision in _NOT_PORTABLE:
        raise ServerError(
            f"--portable and --precision {arguments.precision} exclude each other: on CPUs its "
            "products are not PyTorch's own operators; float32 and bfloat16 can be portable"
        )
    if arguments.instances < 1 or (arguments.instances > 1 and arguments.device == "cuda"):
        raise ServerError(
            f"--instances {arguments.instances} does not do; CPUs take 1 or more, a GPU only 1"
        )
    folder = fetch_checkpoint(arguments.checkpoint)
    # torch takes seconds to import, and `ofa serve` shares this command.
    from ofa.checkpoint import load_checkpoint

    print(f"reading {folder.name}", flush=True)
    task_name = None if arguments.task is None else _TASK_NAMES[arguments.task]
    checkpoint = load_checkpoint(folder, arguments.configuration, task_name)
    own = checkpoint.default_limits()
    beam_size, length = arguments.max_beam_size, arguments.max_length
    limits = OptionLimits(
        max_beam_size=own.max_beam_size if beam_size is None else beam_size,
        max_length=own.max_length if length is None else length,
    )
    task = checkpoint.build_task(limits)
    name = task.ensemble if arguments.name is None else arguments.name
    try:
        names = _write(arguments, name, folder, checkpoint, task)
    except OSError as error:
        full = "; make room, or export to another disk" if error.errno == errno.ENOSPC else ""
        raise ServerError(
            f"{arguments.repository} cannot be written: {error.strerror}{full}"
        ) from error
    which = "" if arguments.version is None else f"version {arguments.version} of "
    print(f"wrote {which}{', '.join(names)} to {arguments.repository}", flush=True)


def _write(
    arguments: argparse.Namespace, name: str, folder: Path, checkpoint: Checkpoint, task: Task
) -> list[str]:
    """Writes the four models and returns their names."""
    from ofa.export import export_generator

    with staged_export(
        arguments.repository,
        name,
        task.tensors,
        arguments.device,
        arguments.version,
        arguments.instances,
    ) as models:
        print("writing model.pt and comparing it with the eager model", flush=True)
        model_file = version_of(models["generator"]) / "model.pt"
        report = export_generator(
            checkpoint,
            model_file,
            task.settings.limits,
            arguments.precision,
            arguments.device,
            portable=arguments.portable,
        )
        for member in ("preprocess", "postprocess"):
            task.save(version_of(models[member]))
        _write_warmups(models, task, report)
        manifest = _manifest(arguments, name, folder, checkpoint, task, report)
        (version_of(models[ENSEMBLE]) / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        identity = json.dumps(_identity(manifest), indent=2) + "\n"
        (version_of(models["preprocess"]) / IDENTITY).write_text(identity)
    return [model.name for model in models.values()]


def _write_warmups(models: Mapping[str, Path], task: Task, report: ExportReport) -> None:
    """The task's example for each member as it would meet it, and for the ensemble."""
    request = task.example_request()
    kept = _take(task.tensors.kept, report.example_row)
    write_warmup_files(models[ENSEMBLE], request)
    add_warmup(models["preprocess"], request)
    add_warmup(models["generator"], _take(task.tensors.generator_inputs, report.example_row))
    add_warmup(models["postprocess"], {**report.example_outputs, **kept})


def _take(specs: Sequence[TensorSpec], tensors: Tensors) -> Tensors:
    return {spec.name: tensors[spec.name] for spec in specs}


def _identity(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What tells checkpoints apart in the figures, whose preprocess sees no folder but its own."""
    names = ("task", "language", "checkpoint", "precision", "device")
    return {
        **{name: manifest[name] for name in names},
        "weights": manifest["weights_sha256"][:12],
        "torch": manifest["versions"]["torch"],
    }


def _manifest(
    arguments: argparse.Namespace,
    name: str,
    folder: Path,
    checkpoint: Checkpoint,
    task: Task,
    report: ExportReport,
) -> dict[str, object]:
    is_folder = Path(arguments.checkpoint).is_dir()
    row = _take(task.tensors.generator_inputs, report.example_row)
    return {
        "name": name,
        "task": task.name,
        "language": task.settings.language,
        "num_labels": len(task.settings.labels),
        "checkpoint": folder.resolve().name if is_folder else arguments.checkpoint,
        "weights_sha256": checkpoint.weights_sha256,
        "precision": arguments.precision,
        "device": arguments.device,
        "operators": list(report.operators),
        "limits": asdict(task.settings.limits),
        "input_shapes": {name: list(value.shape) for name, value in row.items()},
        "score_difference": report.score_difference,
        "versions": {
            "ofa-triton": importlib.metadata.version("ofa-triton"),
            "torch": report.torch_version,
            "numpy": np.__version__,
        },
    }
