"""Writes one checkpoint's four models into a model repository.

They come from the packaged `model_repository/`, under the name of the export: NAME is the ensemble,
NAME_preprocess, NAME_generator and NAME_postprocess are its members. Nothing is shared between two
names, so checkpoints are added, replaced and removed one by one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ofa_server.errors import ServerError
from ofa_server.tensors import Tensors
from ofa_server.warmup import warmup_block, write_warmup_files

TEMPLATE = Path(__file__).parent / "model_repository"
ENSEMBLE = "caption"
MEMBERS = ("preprocess", "generator", "postprocess")
#: The version that an export writes; Triton serves the highest, so others can be put beside it.
VERSION = "1"
MANIFEST = "manifest.json"

# What Triton takes as a folder name on every storage, and nothing that starts with a dot.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


# The committed folders of versions without a file in them are kept by the latter.
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".gitkeep")


@contextmanager
def staged_export(repository: Path, name: str) -> Iterator[dict[str, Path]]:
    """Builds the models aside and moves them into the repository when all are complete.

    Whatever goes wrong meanwhile, the repository stays as it was. Inside the block the models have
    their configuration and adapters; weights, tokenizer, manifest and warm-up are for the caller.

    Args:
        repository: folder of models, made if missing.
        name: of the ensemble; an earlier export of that name is replaced.

    Yields:
        The folder of each model by its plain name (`caption`, `preprocess`, ...).

    Raises:
        ServerError: the name does not do, or belongs to models that no export has written.
    """
    targets = {plain: repository / _model_name(name, plain) for plain in (ENSEMBLE, *MEMBERS)}
    _check_targets(name, targets)
    repository.mkdir(parents=True, exist_ok=True)
    # Inside the repository, because only a rename within one file system is a single step. Triton
    # does not start over such a folder, so one that a killed export left is cleared up here.
    staging = repository / f".export-{name}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        yield {plain: _copy_model(plain, name, staging) for plain in targets}
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


def _model_name(name: str, plain: str) -> str:
    return name if plain == ENSEMBLE else f"{name}_{plain}"


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


def _copy_model(plain: str, name: str, staging: Path) -> Path:
    model = staging / _model_name(name, plain)
    shutil.copytree(TEMPLATE / plain, model, ignore=_NOT_COPIED)
    version_of(model).mkdir(exist_ok=True)
    if plain == ENSEMBLE:
        config = model / "config.pbtxt"
        config.write_text(_rename_steps(config.read_text("utf-8"), name), "utf-8")
    return model


def _rename_steps(config: str, name: str) -> str:
    """Points the ensemble's steps at the members of this export; comments stay."""
    return re.sub(
        rf'(model_name: *)"({"|".join(MEMBERS)})"',
        lambda step: f'{step[1]}"{_model_name(name, step[2])}"',
        config,
    )


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
