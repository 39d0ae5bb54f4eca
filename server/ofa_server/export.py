"""Writes a complete, loadable Triton model repository from a checkpoint."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ofa.hub import fetch_checkpoint
from ofa.options import OptionLimits
from ofa.tasks import CaptioningTask
from ofa_server.repository import (
    ENSEMBLE,
    MANIFEST,
    add_warmup,
    staged_export,
    version_of,
)
from ofa_server.tensors import Tensors, generator_tensors
from ofa_server.warmup import warmup_image, write_warmup_files

if TYPE_CHECKING:
    from ofa.checkpoint import Checkpoint
    from ofa.export import ExportReport


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
        "--name",
        default=ENSEMBLE,
        help="what clients ask for; an earlier export of that name is replaced "
        "(default: %(default)s)",
    )
    parser.add_argument("--precision", choices=["float32"], default="float32")
    parser.add_argument("--device", choices=["cpu"], default="cpu")
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
    folder = fetch_checkpoint(arguments.checkpoint)
    # torch takes seconds to import, and `ofa serve` shares this command.
    from ofa.checkpoint import load_checkpoint
    from ofa.export import export_generator

    with staged_export(arguments.repository, arguments.name) as models:
        print(f"reading {folder.name}", flush=True)
        checkpoint = load_checkpoint(folder)
        own = checkpoint.default_limits()
        beam_size, length = arguments.max_beam_size, arguments.max_length
        limits = OptionLimits(
            max_beam_size=own.max_beam_size if beam_size is None else beam_size,
            max_length=own.max_length if length is None else length,
        )
        task = checkpoint.build_task(limits)
        print("writing model.pt and comparing it with the eager model", flush=True)
        model_file = version_of(models["generator"]) / "model.pt"
        report = export_generator(checkpoint, model_file, limits)
        for member in ("preprocess", "postprocess"):
            task.save(version_of(models[member]))
        _write_warmups(models, task)
        manifest = _manifest(arguments, folder, checkpoint, limits, report)
        (version_of(models[ENSEMBLE]) / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    names = ", ".join(model.name for model in models.values())
    print(f"wrote {names} to {arguments.repository}", flush=True)


def _write_warmups(models: dict[str, Path], task: CaptioningTask) -> None:
    """One grey picture for each member as it would meet it, and for the ensemble."""
    image = {"image": np.array([warmup_image()], dtype=np.object_)}
    row = task.preprocess(warmup_image(), {})
    length = len(row.source_ids)
    # The prompt itself does for an answer.
    answer: Tensors = {
        "token_ids": row.source_ids[np.newaxis],
        "hypothesis_scores": np.zeros([1], np.float32),
        "hypothesis_log_probs": np.zeros([1, length], np.float32),
        "num_captions": np.ones([1], np.int32),
    }
    add_warmup(models["preprocess"], image)
    add_warmup(models["generator"], generator_tensors(row))
    add_warmup(models["postprocess"], answer)
    write_warmup_files(models[ENSEMBLE], image)


def _manifest(
    arguments: argparse.Namespace,
    folder: Path,
    checkpoint: Checkpoint,
    limits: OptionLimits,
    report: ExportReport,
) -> dict[str, object]:
    is_folder = Path(arguments.checkpoint).is_dir()
    return {
        "name": arguments.name,
        "task": checkpoint.task_config.task,
        "checkpoint": folder.resolve().name if is_folder else arguments.checkpoint,
        "weights_sha256": checkpoint.weights_sha256,
        "precision": arguments.precision,
        "device": arguments.device,
        "limits": asdict(limits),
        "input_shapes": report.input_shapes,
        "score_difference": report.score_difference,
        "versions": {
            "ofa-triton": importlib.metadata.version("ofa-triton"),
            "torch": report.torch_version,
            "numpy": np.__version__,
        },
    }
