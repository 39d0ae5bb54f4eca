"""Writes one checkpoint's four models into a model repository.

NAME is the ensemble; NAME_preprocess, NAME_generator and NAME_postprocess are its members. Their
configurations follow from the task's tensors, the adapters are the packaged `model_repository/`'s.
Nothing is shared between two names, so exports are added, replaced and removed one by one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ofa.tasks.task import TaskTensors
from ofa.tensors import Tensors
from ofa_server.config_layout import warmup_block
from ofa_server.config_writer import write_configs
from ofa_server.errors import ServerError
from ofa_server.warmup import write_warmup_files

_ADAPTERS = Path(__file__).parent / "model_repository"
ENSEMBLE = "ensemble"
MEMBERS = ("preprocess", "generator", "postprocess")
#: The version that an export writes; Triton serves the highest, so others can be put beside it.
VERSION = "1"
MANIFEST = "manifest.json"

# What Triton takes as a folder name on every storage, and nothing that starts with a dot.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@contextmanager
def staged_export(
    repository: Path, name: str, tensors: TaskTensors, device: str = "cpu"
) -> Iterator[dict[str, Path]]:
    """Builds the models aside and moves them into the repository when all are complete.

    Whatever goes wrong meanwhile, the repository stays as it was. Inside the block the models have
    their configuration and adapters; weights, tokenizer, manifest and warm-up are for the caller.

    Args:
        repository: folder of models, made if missing.
        name: of the ensemble; an earlier export of that name is replaced.
        tensors: what travels between the models.
        device: "cpu" or "cuda", that the generator is made for.

    Yields:
        The folder of each model: `ensemble`, `preprocess`, `generator` and `postprocess`.

    Raises:
        ServerError: the name does not do, or belongs to models that no export has written.
    """
    members = {member: f"{name}_{member}" for member in MEMBERS}
    names = {ENSEMBLE: name, **members}
    targets = {model: repository / names[model] for model in names}
    _check_targets(name, targets)
    repository.mkdir(parents=True, exist_ok=True)
    # Inside the repository, because only a rename within one file system is a single step. Triton
    # does not start over such a folder, so one that a killed export left is cleared up here.
    staging = repository / f".export-{name}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        models = {model: staging / names[model] for model in names}
        for model, config in write_configs(tensors, members, device).items():
            _write_model(models[model], config, _ADAPTERS / model / VERSION / "model.py")
        yield models
        _move_in(staging, list(targets.values()))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def add_warmup(model: Path, tensors: Tensors) -> None:
    """Gives a member its warm-up request: tensors by name, without batch dimension."""
    write_warmup_files(model, tensors)
    with (model / "config.pbtxt").open("a", encoding="utf-8") as config:
        config.write(warmup_block(tensors))


def version_of(model: Path) -> Path:
    """Folder of the version that an export writes."""
    return model / VERSION


def _check_targets(name: str, targets: Mapping[str, Path]) -> None:
    if _NAME.fullmatch(name) is None:
        raise ServerError(
            f"the name {name!r} does not do; letters, digits, '_', '-' and '.' are allowed"
        )
    taken = [target.name for target in targets.values() if target.exists()]
    if taken and not (targets[ENSEMBLE] / VERSION / MANIFEST).is_file():
        raise ServerError(
            f"{taken[0]} is in the repository and not from an export named {name}; "
            "choose another name or remove it"
        )


def _write_model(model: Path, config: str, adapter: Path) -> None:
    version_of(model).mkdir(parents=True)
    (model / "config.pbtxt").write_text(config, "utf-8")
    if adapter.exists():
        shutil.copy(adapter, version_of(model))


def _move_in(staging: Path, targets: Sequence[Path]) -> None:
    """Puts all models in place, or none; other versions of them than ours stay."""
    replaced = staging / "replaced"
    replaced.mkdir()
    with ExitStack() as undo:
        for target in targets:
            if target.exists():
                target.rename(replaced / target.name)
                undo.callback((replaced / target.name).rename, target)
            (staging / target.name).rename(target)
            undo.callback(target.rename, staging / target.name)
        undo.pop_all()
    for version in replaced.glob("*/[0-9]*"):
        if version.name != VERSION:
            version.rename(targets[0].parent / version.parent.name / version.name)
