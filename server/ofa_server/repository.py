"""Writes one checkpoint's four models into a model repository.

NAME is the ensemble; NAME_preprocess, NAME_generator and NAME_postprocess are its members. Their
configurations follow from the task's tensors, the adapters are the packaged `model_repository/`'s.
Nothing is shared between two names, so exports are added, replaced and removed one by one.
"""

from __future__ import annotations

import py_compile
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ofa.tasks.task import TaskTensors
from ofa.tensors import Tensors
from ofa_server.config_layout import warmup_block
from ofa_server.config_writer import write_configs
from ofa_server.errors import ServerError
from ofa_server.versions import (
    ENSEMBLE,
    FIRST_VERSION,
    MANIFEST,
    MEMBERS,
    adapter_file,
    check_same_layout,
    check_takes_versions,
    model_folders,
    version_folders,
)
from ofa_server.warmup import write_warmup_files

# What Triton takes as a folder name on every storage, and nothing that starts with a dot.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@contextmanager
def staged_export(
    repository: Path,
    name: str,
    tensors: TaskTensors,
    device: str = "cpu",
    version: int | None = None,
    instances: int = 1,
) -> Iterator[dict[str, Path]]:
    """Builds the models aside and moves them into the repository when all are complete.

    Whatever goes wrong meanwhile, the repository stays as it was. Inside the block the models have
    their configuration and adapters; weights, tokenizer, manifest and warm-up are for the caller.

    Args:
        repository: folder of models, made if missing.
        name: of the ensemble.
        tensors: what travels between the models.
        device: "cpu" or "cuda", that the generator is made for.
        version: added to an earlier export of that name, which goes on answering. None writes the
            first version and replaces an earlier export that has no other.
        instances: of the generator; on a GPU, for each one.

    Yields:
        The folder of each model: `ensemble`, `preprocess`, `generator` and `postprocess`.

    Raises:
        ServerError: the name or the version does not do, the name belongs to models that no export
            has written, or the new version needs other configurations than those that are there.
    """
    targets = model_folders(repository, name)
    there = _check_targets(name, targets, version)
    number = FIRST_VERSION if version is None else version
    is_added = version is not None and bool(there)
    repository.mkdir(parents=True, exist_ok=True)
    # Inside the repository, because only a rename within one file system is a single step. Triton
    # does not start over such a folder beside its models, but does with one inside of a model, so
    # an export that is added disturbs no server. What a killed one left is cleared up here.
    staging = (
        targets[ENSEMBLE] / f".export-{number}" if is_added else repository / f".export-{name}"
    )
    shutil.rmtree(staging, ignore_errors=True)
    try:
        models = model_folders(staging, name)
        names = {member: models[member].name for member in MEMBERS}
        for model, config in write_configs(tensors, names, device, number, instances).items():
            _write_model(models[model], number, config, adapter_file(model))
        yield models
        if is_added:
            check_same_layout(models, targets)
        parts = [str(number)] if is_added else []
        # The ensemble last: a server that polls must find what its steps name.
        moves = {
            models[model].joinpath(*parts): targets[model].joinpath(*parts)
            for model in (*MEMBERS, ENSEMBLE)
        }
        _move_in(staging, moves)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def add_warmup(model: Path, tensors: Tensors) -> None:
    """Gives a member its warm-up request: tensors by name, without batch dimension."""
    write_warmup_files(model, tensors)
    with (model / "config.pbtxt").open("a", encoding="utf-8") as config:
        config.write(warmup_block(tensors))


def version_of(model: Path) -> Path:
    """Folder of the one version that a staged model has."""
    [folder] = version_folders(model).values()
    return folder


def _check_targets(name: str, targets: Mapping[str, Path], version: int | None) -> list[int]:
    """Refuses what an export must not touch.

    Returns:
        The versions that an earlier export of that name has.
    """
    if _NAME.fullmatch(name) is None:
        raise ServerError(
            f"the name {name!r} does not do; letters, digits, '_', '-' and '.' are allowed"
        )
    taken = [target.name for target in targets.values() if target.exists()]
    if taken and not any(targets[ENSEMBLE].glob(f"*/{MANIFEST}")):
        raise ServerError(
            f"{taken[0]} is in the repository and not from an export named {name}; "
            "choose another name or remove it"
        )
    there = [*version_folders(targets[ENSEMBLE])]
    if version is not None and version < 1:
        raise ServerError(f"the version {version} does not do; versions are numbered from 1")
    if version in there:
        raise ServerError(f"{name} has a version {version} already; choose another number")
    if version is None and len(there) > 1:
        raise ServerError(
            f"{name} has the versions {', '.join(map(str, there))}; --version N adds another, and "
            "`ofa remove` removes one"
        )
    if version is not None and there:
        check_takes_versions(targets)
    return there


def _write_model(model: Path, version: int, config: str, adapter: Path) -> None:
    folder = model / str(version)
    folder.mkdir(parents=True)
    (model / "config.pbtxt").write_text(config, "utf-8")
    if adapter.exists():
        copied = str(shutil.copy(adapter, folder))
        # Else Python writes this file when it loads the adapter, and a server that polls takes the
        # version for a changed one and loads it again.
        py_compile.compile(
            copied, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )


def _move_in(staging: Path, moves: Mapping[Path, Path]) -> None:
    """Puts all folders in place, or none; what was in a place goes."""
    replaced = staging / "replaced"
    replaced.mkdir()
    with ExitStack() as undo:
        for number, (source, target) in enumerate(moves.items()):
            if target.exists():
                kept = replaced / str(number)
                target.rename(kept)
                undo.callback(kept.rename, target)
            source.rename(target)
            undo.callback(target.rename, source)
        undo.pop_all()
